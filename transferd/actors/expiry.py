"""Writes the expiry of holds that are due, so that their events appear within seconds.

Nothing depends on it being on time: each group expires the due holds of the wallets that it locks,
and reads leave due holds out.
"""

import asyncio
from collections.abc import Callable
from typing import TypeAlias

from transferd.actors.ledgers import OpenLedger, OpenLedgers
from transferd.commit.envelope import Envelope
from transferd.commit.origin import new_origin
from transferd.config import Limits
from transferd.domain.errors import DatabaseUnavailable, TransferdError
from transferd.domain.hold import ExpireHolds
from transferd.domain.key import NO_FINGERPRINT
from transferd.domain.ledger import Ledger
from transferd.ledger.store.errors import Rejected, StoreError
from transferd.ledger.store.holds import (
    ActiveHolds,
    DueWallet,
    due_wallets,
    measure_holds,
)
from transferd.ledger.store.outbox import take_lease
from transferd.ledger.watch import LedgerWatch
from transferd.observability.facts import ExpiryFailed, Facts

_LEASE = "/expiry"
# The number of a ledger, and a wallet in it.
_Place: TypeAlias = tuple[int, str]


class Expiry:
    """Looks for due holds in the ledgers that `watch` finds. In each, the replica that has the
    lease looks; `clock` returns seconds."""

    def __init__(
        self,
        watch: LedgerWatch,
        ledgers: OpenLedgers,
        limits: Limits,
        facts: Facts,
        clock: Callable[[], float],
    ) -> None:
        self._watch = watch
        self._ledgers = ledgers
        self._intake = ledgers.intake
        self._limits = limits
        self._facts = facts
        self._clock = clock
        # The commands in flight, and the times until which wallets and ledgers are left out of
        # which one has failed. Otherwise one that stays locked would stop the sweep for all others.
        self._asked: dict[_Place, asyncio.Task[None]] = {}
        self._left_out: dict[_Place, float] = {}
        self._broken: dict[int, float] = {}
        # The ledgers in which a sweep runs, and the rounds at a time: as many as lanes.
        self._sweeping: set[int] = set()
        self._rounds = asyncio.Semaphore(limits.lanes_max)
        # The active holds of the ledgers that are open here, as last measured.
        self.active = ActiveHolds(0, 0.0)

    def __repr__(self) -> str:
        return f"<Expiry of {self.active.holds} active holds>"

    async def run(self) -> None:
        """Sweep until cancelled."""
        try:
            async with asyncio.TaskGroup() as sweeps:
                while True:
                    for ledger in await self._due():
                        self._sweeping.add(ledger.number)
                        sweeps.create_task(self._sweep_while_due(ledger))
                    await asyncio.sleep(self._limits.expiry_sweep_s)
        finally:
            for task in self._asked.values():
                task.cancel()

    async def measure(self) -> None:
        """Count the active holds again and again until cancelled."""
        while True:
            await self._measure()
            await asyncio.sleep(self._limits.active_holds_measure_s)

    async def _due(self) -> list[Ledger]:
        """The ledgers with due holds in which no sweep runs."""
        try:
            found = await self._watch.ledgers()
        except StoreError as error:
            # PostgreSQL is away. Nothing is lost.
            self._facts.emit(ExpiryFailed(error))
            return []
        now = self._clock()
        self._broken = {number: until for number, until in self._broken.items() if until > now}
        busy = self._sweeping | self._broken.keys()
        return [ledger for ledger in found if ledger.number not in busy]

    async def _sweep_while_due(self, ledger: Ledger) -> None:
        """Rounds in one ledger until one finds nothing."""
        try:
            while True:
                async with self._rounds:
                    began = self._clock()
                    found = await self._sweep(await self._ledgers.of(ledger))
                if not found:
                    return
                # Payments get at least two thirds of the time.
                await asyncio.sleep(2 * (self._clock() - began))
        except (StoreError, DatabaseUnavailable) as error:
            if isinstance(error, Rejected) or not isinstance(error, StoreError):
                self._broken[ledger.number] = self._clock() + self._limits.expiry_left_out_s
            self._facts.emit(ExpiryFailed(error))
        finally:
            self._sweeping.discard(ledger.number)

    async def _sweep(self, ledger: OpenLedger) -> int:
        """Ask in one ledger. Returns the number of holds; 0 without the lease. Raises StoreError.

        The commands go through the group commit like payments. The round ends with them, or after
        a second; then another replica may take the lease.
        """
        if self._intake.is_draining:
            return 0
        async with ledger.database.transaction() as transaction:
            if not await take_lease(transaction, _LEASE):
                return 0
            found = await due_wallets(
                transaction,
                self._excluded(transaction.ledger.number),
                holds_max=self._limits.expiry_look_holds_max,
            )
            chosen = _first(found, self._limits.expiry_holds_max)
            tasks = [self._ask(ledger, wallet.wallet_id) for wallet in chosen]
            if tasks:
                # PostgreSQL ends a transaction that is idle for twice as long.
                wait_s = self._limits.idle_in_transaction_timeout_s / 2
                await asyncio.wait(tasks, timeout=wait_s)
        return sum(wallet.holds for wallet in chosen)

    def _excluded(self, number: int) -> list[str]:
        now = self._clock()
        self._left_out = {place: until for place, until in self._left_out.items() if until > now}
        places = (*self._asked, *self._left_out)
        return [wallet_id for ledger, wallet_id in places if ledger == number]

    def _ask(self, ledger: OpenLedger, wallet_id: str) -> asyncio.Task[None]:
        place = (ledger.database.ledger.number, wallet_id)
        self._asked[place] = asyncio.create_task(self._expire(ledger, place))
        return self._asked[place]

    async def _expire(self, ledger: OpenLedger, place: _Place) -> None:
        now = self._clock()
        envelope = Envelope(
            ExpireHolds(place[1]),
            key=None,
            fingerprint=NO_FINGERPRINT,
            origin=new_origin(),
            enqueued_at=now,
            deadline=now + self._limits.request_deadline_s,
        )
        try:
            await ledger.router.ask(envelope)
        except TransferdError as error:
            self._left_out[place] = self._clock() + self._limits.expiry_left_out_s
            if not self._intake.is_draining:
                self._facts.emit(ExpiryFailed(error))
        finally:
            self._asked.pop(place, None)

    async def _measure(self) -> None:
        holds_max = self._limits.active_holds_counted_max
        holds, overdue_s = 0, 0.0
        for ledger in self._ledgers:
            try:
                active = await measure_holds(ledger.database, holds_max=holds_max)
            except StoreError as error:
                self._facts.emit(ExpiryFailed(error))
            else:
                holds += active.holds
                overdue_s = max(overdue_s, active.overdue_s)
        self.active = ActiveHolds(holds, overdue_s)


def _first(wallets: list[DueWallet], holds_max: int) -> list[DueWallet]:
    """The first wallets that together have at most so many due holds, and at least one wallet."""
    chosen: list[DueWallet] = []
    holds = 0
    for wallet in wallets:
        holds += wallet.holds
        if chosen and holds > holds_max:
            break
        chosen.append(wallet)
    return chosen
