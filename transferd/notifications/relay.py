"""The relay: turns events of the outbox into public CloudEvents and deliveries, in order."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any, NamedTuple

import orjson

from transferd.commit.events import cloud_event, completed, is_bare
from transferd.config import Limits
from transferd.domain.transfer import PostedTransfer
from transferd.domain.webhook import DeliveryStatus
from transferd.ledger.store import outbox
from transferd.ledger.store.database import LedgerDatabase, Transaction
from transferd.ledger.store.deliveries import EventText, NewDelivery, insert_deliveries
from transferd.ledger.store.outbox import OutboxRow
from transferd.ledger.store.transfers import read_transfers
from transferd.notifications.broker import Broker, Connect, PublicEvent, TransportFailure
from transferd.notifications.directory import Directory
from transferd.notifications.event import wallets_of
from transferd.notifications.retrying import fault_of, run_forever
from transferd.notifications.sinks.result import DISABLED
from transferd.observability.facts import About, EventsPublished, Facts, OutboxRelayed, RelayFailed


class _Item(NamedTuple):
    """An event of the row `seq` of the outbox; `endpoint_id` if it is sent again to that one."""

    event: PublicEvent
    wallets: tuple[str, ...]
    endpoint_id: str | None
    seq: int


class Relay:
    """Publishes the outbox. Several may run: the one that takes the lease publishes a batch.

    `wakeup` is set by a process that has written events; without it the outbox is polled.
    """

    def __init__(
        self,
        *,
        database: LedgerDatabase,
        connect: Connect,
        directory: Directory,
        limits: Limits,
        facts: Facts,
        clock: Callable[[], float],
        wakeup: asyncio.Event,
    ) -> None:
        self._database = database
        self._connect = connect
        self._directory = directory
        self._limits = limits
        self._facts = facts
        self._clock = clock
        self._wakeup = wakeup
        self._batch_max = limits.relay_batch_events_max
        self._connection = AsyncExitStack()
        self._broker: Broker | None = None
        # Why nothing is published now; None if all is well.
        self.fault: str | None = "not connected yet"

    def __repr__(self) -> str:
        return f"<Relay {self.fault or 'running'}>"

    async def run(self) -> None:
        """Publish until cancelled. Raises ConfigurationError if the broker cannot be used so."""
        try:
            await run_forever(self._step, self._limits, self._note)
        finally:
            await self.close()

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.aclose()

    async def relay_once(self) -> int:
        """Publish one batch; how many events, 0 also if another relay has the lease.

        Raises StoreError or TransportFailure. If the broker refuses an event, the rows before it
        are done; after other failures the whole batch is published again.
        """
        broker = await self._connected()
        if not await outbox.has_rows(self._database):
            return 0
        started = self._clock()
        async with self._database.transaction() as transaction:
            if not await outbox.take_lease(transaction):
                return 0
            # No rows: another relay has published them.
            rows = await outbox.read_outbox(transaction, events_max=self._batch_max)
            found = await _items_of(transaction, rows)
            items, failure = await self._publish(broker, found)
            endpoint_ids: list[str] = []
            if items:
                await self._directory.refresh(transaction, rows[0].webhooks_version)
                endpoint_ids = await self._address(transaction, items)
                await outbox.delete_outbox(transaction, list({item.seq for item in items}))
        # The notifier can read the rows only now.
        if endpoint_ids:
            await broker.wake(endpoint_ids)
        if items:
            self._facts.emit(OutboxRelayed(len(items), self._clock() - started))
        if failure is not None:
            raise TransportFailure(failure)
        return len(items)

    async def _publish(
        self, broker: Broker, items: Sequence[_Item]
    ) -> tuple[Sequence[_Item], str | None]:
        """The items of the first rows, those confirmed in full; and why the next one is not."""
        # An event that is sent again to one endpoint was published when it happened.
        public = [item for item in items if item.endpoint_id is None]
        if not public:
            return items, None
        started = self._clock()
        outcomes = await broker.publish(
            [item.event for item in public], timeout_s=self._limits.relay_publish_timeout_s
        )
        if self._facts.per_request_facts:
            published = [
                (item.event.type, _about(item.event))
                for item, outcome in zip(public, outcomes, strict=True)
                if outcome is None
            ]
            self._facts.emit(EventsPublished(published, started, self._clock()))
        for item, outcome in zip(public, outcomes, strict=True):
            if outcome is not None:
                rows = [each.seq for each in items]
                return items[: rows.index(item.seq)], outcome
        return items, None

    async def _address(self, transaction: Transaction, items: Sequence[_Item]) -> list[str]:
        """Write a delivery for each endpoint that each event is for; the endpoints to wake up."""
        events: list[EventText] = []
        deliveries: list[NewDelivery] = []
        due: dict[str, None] = {}
        for event, wallets, endpoint_id, _ in items:
            targets = [endpoint_id] if endpoint_id else self._directory.wanting(event.type, wallets)
            if targets:
                events.append(EventText(event.id, event.type, event.body.decode()))
            for target in targets:
                # The webhook was active when an event was requested again; the notifier decides.
                if endpoint_id is None and self._directory.is_disabled(target):
                    status, error = DeliveryStatus.SKIPPED, DISABLED.error
                else:
                    status, error = DeliveryStatus.PENDING, None
                    due[target] = None
                deliveries.append(NewDelivery(len(events), target, status, error))
        if deliveries:
            await insert_deliveries(transaction, events, deliveries)
        return list(due)

    async def _connected(self) -> Broker:
        if self._broker is None or self._broker.reason:
            await self._connection.aclose()
            broker = await self._connection.enter_async_context(self._connect())
            await broker.take_over()
            self._broker = broker
        return self._broker

    async def _step(self) -> None:
        """Publish one batch, or wait until there may be events."""
        if not await self.relay_once():
            self.fault = None
            with suppress(TimeoutError):
                async with asyncio.timeout(self._limits.relay_poll_s):
                    await self._wakeup.wait()
            self._wakeup.clear()

    def _note(self, error: Exception | None) -> None:
        self.fault = fault_of(error)
        if error is None:
            self._batch_max = min(self._batch_max * 2, self._limits.relay_batch_events_max)
        else:
            # A broker that cannot confirm so many in time may confirm fewer.
            self._batch_max = max(self._batch_max // 2, 1)
            self._facts.emit(RelayFailed(error))


async def _items_of(transaction: Transaction, rows: Sequence[OutboxRow]) -> list[_Item]:
    """The events of each row, in order. Raises StoreError.

    The outbox has an event as `commit.events` writes it, of a transfer the id alone; or
    `{"endpoint", "event"}`: a CloudEvent that is sent again, to that endpoint or to all.
    """
    found: list[tuple[int, dict[str, Any]]] = [
        (row.seq, item) for row in rows for item in orjson.loads(row.events)
    ]
    bare = [item["id"] for _, item in found if "event" not in item and is_bare(item)]
    transfers = await read_transfers(transaction, bare) if bare else {}
    return [_item(seq, item, transfers) for seq, item in found]


def _item(seq: int, item: dict[str, Any], transfers: Mapping[str, PostedTransfer]) -> _Item:
    if (again := item.get("event")) is not None:
        event = PublicEvent(
            again["id"], again["type"], orjson.dumps(again), again.get("traceparent")
        )
        endpoint_id = item["endpoint"]
        wallets = () if endpoint_id else wallets_of(event.type, again["data"])
        return _Item(event, wallets, endpoint_id, seq)
    whole = completed(item, transfers)
    event = PublicEvent(whole["id"], whole["type"], cloud_event(whole), whole["traceparent"])
    return _Item(event, wallets_of(event.type, whole["data"]), None, seq)


def _about(event: PublicEvent) -> About:
    # The event of a transfer has the transfer's id.
    is_transfer = event.type.startswith("transfer.")
    return About(None, event.traceparent, event.id if is_transfer else None)
