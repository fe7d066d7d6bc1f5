"""Writes the expiry of holds that are due, so that their events appear within seconds.

Nothing depends on it being on time: each group expires the due holds of the wallets that it locks,
and reads leave due holds out.
"""

import asyncio
from collections.abc import Callable

from transferd.actors.router import Router
from transferd.commit.envelope import Envelope
from transferd.commit.origin import new_origin
from transferd.config import Limits
from transferd.domain.errors import TransferdError
from transferd.domain.hold import ExpireHolds
from transferd.domain.key import NO_FINGERPRINT
from transferd.ledger.store.database import LedgerDatabase
from transferd.ledger.store.errors import StoreError
from transferd.ledger.store.holds import (
    ActiveHolds,
    DueWallet,
    due_wallets,
    has_due_holds,
    measure_holds,
)
from transferd.ledger.store.outbox import take_lease
from transferd.observability.facts import ExpiryFailed, Facts

_LEASE = "/expiry"


class Expiry:
    """Looks for due holds. The replica that has the lease looks; `clock` returns seconds."""

    def __init__(
        self,
        database: LedgerDatabase,
        router: Router,
        limits: Limits,
        facts: Facts,
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._router = router
        self._limits = limits
        self._facts = facts
        self._clock = clock
        self._measured_at = -limits.active_holds_measure_s
        # The commands in flight, and the times until which wallets are left out whose command has
        # failed. Otherwise a wallet that stays locked would stop the sweep for all others.
        self._asked: dict[str, asyncio.Task[None]] = {}
        self._left_out: dict[str, float] = {}
        # The active holds of the ledger, as last measured.
        self.active = ActiveHolds(0, 0.0)

    def __repr__(self) -> str:
        return f"<Expiry of {self.active.holds} active holds>"

    async def run(self) -> None:
        """Sweep until cancelled."""
        try:
            while True:
                began = self._clock()
                try:
                    await self._measure()
                    found = await self.sweep_once()
                except StoreError as error:
                    # PostgreSQL is away. Nothing is lost.
                    self._facts.emit(ExpiryFailed(error))
                    found = 0
                # Payments get at least two thirds of the time.
                pause_s = 2 * (self._clock() - began) if found else self._limits.expiry_sweep_s
                await asyncio.sleep(pause_s)
        finally:
            for task in self._asked.values():
                task.cancel()

    async def sweep_once(self) -> int:
        """Ask for the expiry of the due holds of some wallets. Returns the number of these holds; 0
        without the lease. Raises StoreError.

        The commands go through the group commit like payments. The round ends with them, or after
        a second; then another replica may take the lease.
        """
        if self._router.is_draining or not await has_due_holds(self._database):
            return 0
        async with self._database.transaction() as transaction:
            if not await take_lease(transaction, _LEASE):
                return 0
            found = await due_wallets(
                transaction, self._excluded(), holds_max=self._limits.expiry_look_holds_max
            )
            chosen = _first(found, self._limits.expiry_holds_max)
            tasks = [self._ask(wallet.wallet_id) for wallet in chosen]
            if tasks:
                # PostgreSQL ends a transaction that is idle for twice as long.
                wait_s = self._limits.idle_in_transaction_timeout_s / 2
                await asyncio.wait(tasks, timeout=wait_s)
        return sum(wallet.holds for wallet in chosen)

    def _excluded(self) -> list[str]:
        now = self._clock()
        self._left_out = {id: until for id, until in self._left_out.items() if until > now}
        return [*self._asked, *self._left_out]

    def _ask(self, wallet_id: str) -> asyncio.Task[None]:
        task = asyncio.create_task(self._expire(wallet_id))
        self._asked[wallet_id] = task
        return task

    async def _expire(self, wallet_id: str) -> None:
        now = self._clock()
        envelope = Envelope(
            ExpireHolds(wallet_id),
            key=None,
            fingerprint=NO_FINGERPRINT,
            origin=new_origin(),
            enqueued_at=now,
            deadline=now + self._limits.request_deadline_s,
        )
        try:
            await self._router.ask(envelope)
        except TransferdError as error:
            self._left_out[wallet_id] = self._clock() + self._limits.expiry_left_out_s
            if not self._router.is_draining:
                self._facts.emit(ExpiryFailed(error))
        finally:
            self._asked.pop(wallet_id, None)

    async def _measure(self) -> None:
        now = self._clock()
        if now - self._measured_at >= self._limits.active_holds_measure_s:
            self._measured_at = now
            self.active = await measure_holds(
                self._database, holds_max=self._limits.active_holds_counted_max
            )


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
