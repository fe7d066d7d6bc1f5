"""The sizes of outboxes and of the deliveries that wait, added up over all ledgers."""

import asyncio
from contextlib import suppress
from typing import NamedTuple

from transferd.config import Limits
from transferd.ledger.store import deliveries, outbox
from transferd.ledger.store.database import Database
from transferd.ledger.store.errors import StoreError
from transferd.ledger.watch import LedgerWatch, ask, groups
from transferd.observability.metrics import Metrics


class Size(NamedTuple):
    """How many wait; the age of the oldest that is due in seconds, 0 if there is none."""

    waiting: int
    oldest_s: float


class Backlog:
    """Gauges of events and deliveries that wait. Only ledgers that have some are measured.

    `outboxes` and `waiting` know these ledgers; the relay asks the first one.
    """

    def __init__(
        self,
        database: Database,
        outboxes: LedgerWatch,
        waiting: LedgerWatch,
        limits: Limits,
        metrics: Metrics,
    ) -> None:
        self._database = database
        self._outboxes = outboxes
        self._deliveries = waiting
        self._limits = limits
        self._events = self._waiting = Size(0, 0.0)
        metrics.gauge(
            "transferd_outbox_waiting_events",
            "Events in the outbox, not published yet.",
            lambda: self._events.waiting,
        )
        metrics.gauge(
            "transferd_outbox_oldest_seconds",
            "Age of the oldest event in the outbox.",
            lambda: self._events.oldest_s,
        )
        metrics.gauge(
            "transferd_deliveries_waiting",
            "Deliveries that wait for an attempt, retries too; up to deliveries_counted_max.",
            lambda: self._waiting.waiting,
        )
        metrics.gauge(
            "transferd_deliveries_oldest_seconds",
            "Age of the oldest delivery that is due, of those that are counted.",
            lambda: self._waiting.oldest_s,
        )

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            # If PostgreSQL is unreachable, the relay reports it.
            with suppress(StoreError):
                await self.measure_once()
            await asyncio.sleep(self._limits.outbox_measure_s)

    async def measure_once(self) -> tuple[Size, Size]:
        """Measure; events, then deliveries. Raises StoreError."""
        self._events = await self._size(self._outboxes, outbox.SIZE)
        await self._deliveries.ledgers()
        ledgers = max(len(self._deliveries.busy), 1)
        count_max = max(self._limits.deliveries_counted_max // ledgers, 1)
        self._waiting = await self._size(self._deliveries, deliveries.WAITING, count_max)
        return self._events, self._waiting

    async def _size(self, watch: LedgerWatch, name: str, *arguments: object) -> Size:
        count, oldest_s = 0, 0.0
        for group in groups(self._database, watch.busy, self._limits):
            for [row] in (await ask(self._database, group, name, *arguments)).rows.values():
                count += row[1]
                oldest_s = max(oldest_s, row[2] or 0.0)
        return Size(count, oldest_s)
