"""The past of wallets: what is said of it is never different later.

A change gets its time while its group holds the wallet's row, and is seen some milliseconds later,
when the group has committed. So a reader that asks for everything before an instant, near now, can
miss a change with an earlier time. Three facts make its answer final:

- The times of one wallet never decrease: the time of a group is the greater one of the database's
  clock, read with the locks held, and the latest time of its wallets (`lock_and_look_up`).
- If the wallet has changed at the instant or later, every change before the instant is committed.
- Otherwise, if the clock has reached the instant, each change before it is committed, or its group
  holds the row now. A lock of the row that is asked for after that waits for this group.

The length of a transaction has no bound, so no pause would be long enough instead. If the clock of
the database is set back, times of wallets stand still until it has caught up. But an instant that
was settled by that clock alone can get changes again: no row remembers that it was read.
"""

import asyncio
from datetime import datetime

from transferd.config import Limits
from transferd.domain.errors import Overloaded
from transferd.domain.wallet import Wallet
from transferd.ledger.store import wallets as store
from transferd.ledger.store.database import Database
from transferd.ledger.store.errors import LockTimeout


class InstantNotReached(Exception):
    """The database's clock has not reached the instant; `now` is its time."""

    def __init__(self, now: datetime) -> None:
        super().__init__(f"the database's time is {now}")
        self.now = now


class Past:
    """The past of the wallets, for the readers of one replica."""

    def __init__(self, database: Database, limits: Limits) -> None:
        self._database = database
        self._limits = limits
        self._locks = SharedLocks(database, limits)

    def __repr__(self) -> str:
        return f"<Past {self._locks!r}>"

    async def wallet_before(self, wallet_id: str, instant: datetime) -> Wallet | None:
        """The wallet with everything before the instant; None if it was not created before it.

        Its metadata are those of now, since they have no history. Raises as `settle` does.
        """
        wallet = await self.settle(wallet_id, instant)
        if wallet is None:
            return None
        version = await store.version_before(self._database, wallet_id, instant)
        if version is None:
            return None
        return await store.wallet_at_version(self._database, wallet, version)

    async def settle(self, wallet_id: str, instant: datetime) -> Wallet | None:
        """Return when each change of the wallet before the instant is committed; None: unknown id.

        What a statement that begins now sees before the instant is final. The wallet itself may be
        older than that. Raises InstantNotReached, Overloaded if the row stays locked for as long as
        a request may take, or StoreError.
        """
        try:
            async with asyncio.timeout(self._limits.request_deadline_s):
                return await self._settle(wallet_id, instant)
        except TimeoutError:
            raise Overloaded() from None

    async def _settle(self, wallet_id: str, instant: datetime) -> Wallet | None:
        while (found := await store.read_wallet_and_clock(self._database, wallet_id)) is not None:
            wallet, now = found
            if wallet.updated_at >= instant:
                return wallet
            if now < instant:
                raise InstantNotReached(now)
            if await self._locks.wait_for_writers(wallet_id):
                return wallet
        return None


class SharedLocks:
    """Waits for the writers of wallets: one lock of a wallet at a time, shared by its readers.

    A reader may share a lock only if it has asked before the lock is begun; those that come later
    share the next one, which begins when the one before has ended. With two of them at once, each
    beginning before the other has ended, writers would never get the row: PostgreSQL lets a reader
    share a lock that others hold, past a writer that waits for it.
    """

    def __init__(self, database: Database, limits: Limits) -> None:
        self._database = database
        self._turns = asyncio.Semaphore(limits.settling_locks_max)
        # By wallet. Every reader joins the one that is not begun.
        self._begun: dict[str, asyncio.Task[bool]] = {}
        self._next: dict[str, asyncio.Task[bool]] = {}

    def __repr__(self) -> str:
        return f"<SharedLocks {len(self._begun)} begun, {len(self._next)} to come>"

    async def wait_for_writers(self, wallet_id: str) -> bool:
        """Whether each transaction that has the row locked at the time of the call has ended.

        False if one kept it for longer than lock_timeout. Raises StoreError.
        """
        lock = self._next.get(wallet_id)
        if lock is None:
            lock = asyncio.create_task(self._lock(wallet_id, self._begun.get(wallet_id)))
            # Its readers may all have given up when it fails.
            lock.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._next[wallet_id] = lock
        return await asyncio.shield(lock)

    async def _lock(self, wallet_id: str, before: asyncio.Task[bool] | None) -> bool:
        if before is not None:
            await asyncio.wait([before])
        async with self._turns:
            self._begun[wallet_id] = self._next.pop(wallet_id)
            try:
                await store.wait_for_writers(self._database, wallet_id)
            except LockTimeout:
                return False
            finally:
                del self._begun[wallet_id]
        return True
