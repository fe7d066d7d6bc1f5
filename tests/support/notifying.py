"""A worker in this process, its facts, and receivers that it delivers to."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.conftest import Database
from tests.support.endpoints import letters, new_webhook, status_of
from tests.support.outbox import left, put
from tests.support.queues import message_count, topology_of
from tests.support.receivers import Receiver, receiving
from tests.support.waiting import until
from transferd.config import Limits, Settings
from transferd.domain.ledger import MAIN, Ledger
from transferd.domain.webhook import DeliveryStatus
from transferd.ledger.store.database import Database as Store
from transferd.ledger.store.deliveries import HAS_WAITING
from transferd.ledger.store.outbox import HAS_ROWS
from transferd.ledger.watch import LedgerList, LedgerWatch
from transferd.notifications.measuring import Backlog, Size
from transferd.observability.facts import Fact, Facts, NotificationFinished
from transferd.observability.metrics import Metrics
from transferd.worker import Worker, open_worker

QUICK = Limits()
DELAYS = "0.05,0.1,0.2"


@dataclass
class Scene:
    """A database, workers and receivers for a test. All of them stop when the test ends."""

    database: Database
    # Makes the settings of a worker; arguments replace the defaults.
    settings_with: Callable[..., Settings]
    exits: AsyncExitStack
    facts: list[Fact] = field(default_factory=list)
    # The settings of the last worker.
    settings: Settings | None = None
    # Wakes the relay of the worker.
    wakeup: asyncio.Event = field(default_factory=asyncio.Event)

    async def receiver(
        self, *events: str, wallet: str | None = None, ledger: Ledger = MAIN
    ) -> tuple[Receiver, str]:
        """Start a receiver and create its webhook; return both, the webhook as its id."""
        receiver = await self.exits.enter_async_context(receiving())
        webhook = await new_webhook(
            self.database, receiver.url, *events, wallet=wallet, ledger=ledger
        )
        return receiver, webhook

    async def start(self, limits: Limits = QUICK, **settings: Any) -> Worker:
        """Start a worker that relays and notifies, without a log sink and with short delays."""
        return await self.exits.enter_async_context(self.working(limits, **settings))

    @asynccontextmanager
    async def working(self, limits: Limits = QUICK, **settings: Any) -> AsyncIterator[Worker]:
        """The same, until the block ends."""
        chosen = {"notify_log": False, "notify_retry_delays_s": DELAYS} | settings
        self.settings = self.settings_with(**chosen)
        facts = Facts(self.facts.append)
        limits = self.database.limits(limits)
        async with open_worker(self.settings, limits, facts=facts, wakeup=self.wakeup) as worker:
            yield worker

    async def put(self, *events: dict[str, Any], ledger: Ledger = MAIN) -> None:
        """Put events into the outbox, as one row."""
        await put(self.database, list(events), ledger=ledger)

    async def relayed(self, *, ledger: Ledger = MAIN, within_s: float = 10.0) -> None:
        """Wait until the outbox is empty."""

        async def is_empty() -> bool:
            return await left(self.database, ledger) == []

        await until(is_empty, within_s=within_s)

    async def ends(
        self, webhook: str, event: dict[str, Any], status: DeliveryStatus, ledger: Ledger = MAIN
    ) -> None:
        """Wait until the delivery of the event to the webhook has this status."""

        async def has() -> bool:
            return await status_of(self.database, webhook, event["id"], ledger) is status

        await until(has)

    async def has_letters(self, count: int, ledger: Ledger = MAIN) -> None:
        """Wait until there are this many dead letters."""

        async def has() -> bool:
            return len(await letters(self.database, ledger)) == count

        await until(has)

    async def waiting(self, delay_s: float) -> int:
        """The number of messages in the retry queue of this delay."""
        assert self.settings is not None
        queue = topology_of(self.settings).retry_queue(delay_s)
        return await message_count(self.settings, queue)

    async def unfinished(self) -> int:
        """The number of deliveries that wait for an attempt."""
        [row] = await self.database.fetch(
            "SELECT count(*) FROM ledger_00.deliveries WHERE status IN (0, 2)"
        )
        return int(row[0])

    def results(self, webhook: str) -> Counter[str]:
        """The number of attempts at this endpoint by result."""
        return Counter(
            fact.result
            for fact in self.facts
            if isinstance(fact, NotificationFinished) and fact.endpoint_id == webhook
        )


async def backlog_of(database: Store, limits: Limits) -> tuple[Size, Size]:
    """The events and the deliveries that wait in all ledgers, as a new worker measures them."""
    ledgers = LedgerList(database, limits, time.monotonic)
    outboxes, waiting = (
        LedgerWatch(database, ledgers, name, limits=limits, facts=Facts(), clock=time.monotonic)
        for name in (HAS_ROWS, HAS_WAITING)
    )
    await outboxes.ledgers()
    return await Backlog(database, outboxes, waiting, limits, Metrics()).measure_once()


def has_received(receiver: Receiver, count: int) -> Callable[[], bool]:
    """A condition for `until`: the receiver has at least this many requests."""
    return lambda: len(receiver.received) >= count
