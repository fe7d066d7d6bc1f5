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
from transferd.ledger.ids import LEDGERS
from transferd.ledger.store.database import Database
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

_LEASE = f"{LEDGERS[0]}/expiry"


class Expiry:
    """Looks for due holds. The replica that has the lease looks; `clock` returns seconds."""

    def __init__(
        self,
        database: Database,
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
        # The active holds of the ledger, as last measured.
        self.active = ActiveHolds(0, 0.0)

    def __repr__(self) -> str:
        return f"<Expiry of {self.active.holds} active holds>"

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            began = self._clock()
            try:
                await self._measure()
                found = await self.sweep_once()
            except (StoreError, TransferdError) as error:
                # PostgreSQL is away, or the replica is overloaded or drains. Nothing is lost.
                self._facts.emit(ExpiryFailed(error))
                found = 0
            # After a round as long a pause: payments get at least half of the time.
            await asyncio.sleep(self._clock() - began if found else self._limits.expiry_sweep_s)

    async def sweep_once(self) -> int:
        """Expire the due holds of some wallets. Returns the number of holds; 0 also without the
        lease. Raises StoreError or TransferdError.

        The commands go through the mailboxes and the group commit like payments. The next round
        begins after them, so payments come in between.
        """
        if not await has_due_holds(self._database):
            return 0
        async with self._database.transaction() as transaction:
            if not await take_lease(transaction, _LEASE):
                return 0
            found = await due_wallets(transaction, holds_max=self._limits.expiry_wallets_max)
            chosen = _first(found, self._limits.expiry_holds_max)
            await asyncio.gather(*(self._expire(wallet.wallet_id) for wallet in chosen))
        return sum(wallet.holds for wallet in chosen)

    async def _expire(self, wallet_id: str) -> None:
        now = self._clock()
        await self._router.ask(
            Envelope(
                ExpireHolds(wallet_id),
                key=None,
                fingerprint=NO_FINGERPRINT,
                origin=new_origin(),
                enqueued_at=now,
                deadline=now + self._limits.request_deadline_s,
            )
        )

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
