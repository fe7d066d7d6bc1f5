"""Permits that all ledgers share, of which one ledger gets only a part."""

import asyncio
from types import TracebackType


class Share:
    """The permits of one ledger: at most `own_max` at a time, each also a permit of `all`.

    Used like a semaphore. So a flooded ledger leaves permits to the others.
    """

    def __init__(self, own_max: int, all: asyncio.Semaphore) -> None:
        self._own = asyncio.Semaphore(own_max)
        self._all = all

    def __repr__(self) -> str:
        return f"<Share, {'none' if self._own.locked() else 'some'} of its permits free>"

    async def acquire(self) -> None:
        """Wait for a permit."""
        await self._own.acquire()
        try:
            await self._all.acquire()
        except BaseException:
            self._own.release()
            raise

    def release(self) -> None:
        """Give a permit back."""
        self._all.release()
        self._own.release()

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(
        self,
        _: type[BaseException] | None,
        __: BaseException | None,
        ___: TracebackType | None,
    ) -> None:
        self.release()
