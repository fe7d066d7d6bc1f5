"""The commands of all ledgers in one replica: how many there may be, and the drain."""

import asyncio

from transferd.config import Limits


class Intake:
    """Counts the commands that are inside a gate or wait at one, and ends with the last of them.

    The gate of each ledger limits that ledger. This limits the memory of all together.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._is_empty = asyncio.Event()
        self._is_empty.set()
        self.commands = 0
        self.is_draining = False

    def __repr__(self) -> str:
        state = ", draining" if self.is_draining else ""
        return f"<Intake of {self.commands} commands{state}>"

    @property
    def is_full(self) -> bool:
        """Whether a ledger that has commands here may send no more."""
        return self.commands >= self._limits.backlog_all_max

    def enter(self) -> None:
        """Count a command."""
        self.commands += 1
        self._is_empty.clear()

    def leave(self) -> None:
        """A command is over."""
        self.commands -= 1
        if not self.commands:
            self._is_empty.set()

    async def drain(self) -> bool:
        """Refuse new commands and wait for those in flight. Returns False after the timeout."""
        self.is_draining = True
        try:
            await asyncio.wait_for(self._is_empty.wait(), self._limits.drain_timeout_s)
        except TimeoutError:
            return False
        return True
