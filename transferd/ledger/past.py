"""The past of wallets: an answer about it is final.

A change gets its time while its group holds the lock of the wallet's row, and becomes visible some
milliseconds later, when the group has committed. So a reader that asks for all changes before an
instant close to now can miss a change with an earlier time. Three facts make its answer final:

- The times of one wallet never decrease: the time of a group is the later one of the database's
  clock, read with the locks held, and the latest time of its wallets (`lock_and_look_up`).
- If the wallet has changed at the instant or later, every change before the instant is committed.
- Otherwise, if the clock has reached the instant, each change before it is committed, or its group
  holds the lock now. Then the reader waits until that group has ended: the row is not locked, or
  the wallet has a change with a time after the start of the wait.

A transaction may take any time, so no fixed pause is long enough. If the clock of the database is
set back, the times of wallets stand still until it has caught up. An instant that only that clock
has settled can then get changes again, because no row stores that it was read.
"""

import asyncio
from datetime import datetime

from transferd.config import Limits
from transferd.domain.errors import Overloaded
from transferd.domain.wallet import Wallet
from transferd.ledger.store import wallets as store
from transferd.ledger.store.database import LedgerDatabase
from transferd.ledger.store.errors import LockTimeout
from transferd.share import Share


class InstantNotReached(Exception):
    """The database's clock has not reached the instant; `now` is its time."""

    def __init__(self, now: datetime) -> None:
        super().__init__(f"the database's time is {now}")
        self.now = now


class Past:
    """The past of a ledger's wallets, for the readers of one replica.

    `locks` are permits to keep a connection until a row is unlocked.
    """

    def __init__(self, database: LedgerDatabase, limits: Limits, locks: Share) -> None:
        self._database = database
        self._limits = limits
        self._waits = SharedWaits(database, limits, locks)

    def __repr__(self) -> str:
        return f"<Past {self._waits!r}>"

    async def wallet_before(self, wallet_id: str, instant: datetime) -> Wallet | None:
        """The wallet with everything before the instant; None if it was not created before it.

        The metadata are the present ones, because they have no history. Raises as `settle` does.
        """
        wallet = await self.settle(wallet_id, instant)
        if wallet is None:
            return None
        version = await store.version_before(self._database, wallet_id, instant)
        if version is None:
            return None
        return await store.wallet_at_version(self._database, wallet, version, instant)

    async def settle(self, wallet_id: str, instant: datetime) -> Wallet | None:
        """Return when each change of the wallet before the instant is committed; None: unknown id.

        A statement that begins after the return reads a final past before the instant. The returned
        wallet may be older. Raises InstantNotReached, Overloaded if the row stays locked for as
        long as a request may take, or StoreError.
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
            if await self._waits.for_writers(wallet_id):
                return wallet
        return None


class SharedWaits:
    """Waits for the writers of wallets: one wait for a wallet at a time, shared by its readers.

    A reader shares a wait only if it asks before the wait begins. Later readers share the next
    wait, which begins when this one has ended. If shared locks of a row overlapped all the time, a
    writer would never get the row: PostgreSQL grants a shared lock that other readers hold, even
    while a writer waits for the row.
    """

    def __init__(self, database: LedgerDatabase, limits: Limits, locks: Share) -> None:
        self._database = database
        self._limits = limits
        self._locks = locks
        # By wallet. A reader joins the wait that has not begun.
        self._begun: dict[str, asyncio.Task[bool]] = {}
        self._next: dict[str, asyncio.Task[bool]] = {}

    def __repr__(self) -> str:
        return f"<SharedWaits {len(self._begun)} begun, {len(self._next)} to come>"

    async def for_writers(self, wallet_id: str) -> bool:
        """Whether each transaction that has the row locked at the time of the call has ended.

        False if one kept it for longer than lock_timeout. Raises StoreError.
        """
        wait = self._next.get(wallet_id)
        if wait is None:
            wait = asyncio.create_task(self._run(wallet_id, self._begun.get(wallet_id)))
            # If it fails after all its readers have timed out, asyncio must not log the error.
            wait.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._next[wallet_id] = wait
        return await asyncio.shield(wait)

    async def _run(self, wallet_id: str, before: asyncio.Task[bool] | None) -> bool:
        if before is not None:
            await asyncio.wait([before])
        self._begun[wallet_id] = self._next.pop(wallet_id)
        try:
            return await self._poll(wallet_id) or await self._lock(wallet_id)
        finally:
            del self._begun[wallet_id]

    async def _poll(self, wallet_id: str) -> bool:
        """Poll for the time of some groups; whether the writers have ended.

        PostgreSQL serves a reader that waits for the lock before the next writer, which then waits
        for a switch of processes. So the reader polls first: between two groups the row is not
        locked, and a busy wallet soon has a later change.
        """
        if await store.is_unlocked(self._database, wallet_id):
            return True
        found = await store.read_wallet_and_clock(self._database, wallet_id)
        pause_s = self._limits.settling_look_first_s
        while found is not None and pause_s <= self._limits.settling_look_last_s:
            await asyncio.sleep(pause_s)
            pause_s *= 2
            later = await store.read_wallet_and_clock(self._database, wallet_id)
            if later is not None and later[0].updated_at >= found[1]:
                return True
            if await store.is_unlocked(self._database, wallet_id):
                return True
        return False

    async def _lock(self, wallet_id: str) -> bool:
        async with self._locks:
            try:
                await store.wait_for_writers(self._database, wallet_id)
            except LockTimeout:
                return False
        return True
