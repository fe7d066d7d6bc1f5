"""The relay of a ledger: turns events of its outbox into CloudEvents and deliveries, in order."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from transferd.commit.events import cloud_event, completed, is_bare
from transferd.config import Limits
from transferd.domain.ledger import Ledger
from transferd.domain.transfer import PostedTransfer
from transferd.domain.webhook import DeliveryStatus
from transferd.ledger.store import outbox
from transferd.ledger.store.database import Database, Transaction
from transferd.ledger.store.deliveries import EventText, NewDelivery, insert_deliveries
from transferd.ledger.store.outbox import OutboxRow
from transferd.ledger.store.transfers import read_transfers
from transferd.notifications.broker import Broker, PublicEvent, TransportFailure
from transferd.notifications.directory import Directories, Directory
from transferd.notifications.event import wallets_of
from transferd.notifications.sinks.result import DISABLED
from transferd.observability.facts import About, EventsPublished, Facts, OutboxRelayed


class _Item(NamedTuple):
    """An event of the row `seq` of the outbox; `endpoint_id` if it is sent again to that one."""

    event: PublicEvent
    wallets: tuple[str, ...]
    endpoint_id: str | None
    seq: int


class Relay:
    """Publishes outboxes. Several may run: the one that takes the lease of a ledger publishes a
    batch."""

    def __init__(
        self,
        *,
        database: Database,
        directories: Directories,
        limits: Limits,
        facts: Facts,
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._directories = directories
        self._limits = limits
        self._facts = facts
        self._clock = clock

    def __repr__(self) -> str:
        return f"<Relay with {self._directories!r}>"

    async def relay_once(self, broker: Broker, ledger: Ledger, *, events_max: int) -> int:
        """Publish one batch; how many events, 0 also if another relay has the lease.

        Raises StoreError or TransportFailure. If the broker refuses an event, the rows before it
        are done; after other failures the whole batch is published again.
        """
        database = self._database.of(ledger)
        if not await outbox.has_rows(database):
            return 0
        started = self._clock()
        async with database.transaction() as transaction:
            if not await outbox.take_lease(transaction):
                return 0
            # No rows: another relay has published them.
            rows = await outbox.read_outbox(transaction, events_max=events_max)
            found = await _items_of(transaction, rows)
            items, failure = await self._publish(broker, found)
            endpoint_ids: list[str] = []
            if items:
                directory = self._directories.of(ledger)
                await directory.refresh(transaction, rows[0].webhooks_version)
                endpoint_ids = await _address(transaction, directory, items)
                await outbox.delete_outbox(transaction, list({item.seq for item in items}))
        # The notifier can read the rows only now.
        if endpoint_ids:
            await broker.wake(ledger.number, endpoint_ids)
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


async def _address(
    transaction: Transaction, directory: Directory, items: Sequence[_Item]
) -> list[str]:
    """Write a delivery for each endpoint that each event is for; the endpoints to wake up."""
    events: list[EventText] = []
    deliveries: list[NewDelivery] = []
    due: dict[str, None] = {}
    for event, wallets, endpoint_id, _ in items:
        targets = [endpoint_id] if endpoint_id else directory.wanting(event.type, wallets)
        if targets:
            events.append(EventText(event.id, event.type, event.body.decode()))
        for target in targets:
            # The webhook was active when an event was requested again; the notifier decides.
            if endpoint_id is None and directory.is_disabled(target):
                status, error = DeliveryStatus.SKIPPED, DISABLED.error
            else:
                status, error = DeliveryStatus.PENDING, None
                due[target] = None
            deliveries.append(NewDelivery(len(events), target, status, error))
    if deliveries:
        await insert_deliveries(transaction, events, deliveries)
    return list(due)


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
    ledger = transaction.ledger.name
    return [_item(ledger, seq, item, transfers) for seq, item in found]


def _item(
    ledger: str, seq: int, item: dict[str, Any], transfers: Mapping[str, PostedTransfer]
) -> _Item:
    if (again := item.get("event")) is not None:
        event = PublicEvent(
            ledger, again["id"], again["type"], orjson.dumps(again), again.get("traceparent")
        )
        endpoint_id = item["endpoint"]
        wallets = () if endpoint_id else wallets_of(event.type, again["data"])
        return _Item(event, wallets, endpoint_id, seq)
    whole = completed(item, transfers)
    event = PublicEvent(
        ledger, whole["id"], whole["type"], cloud_event(whole, ledger), whole["traceparent"]
    )
    return _Item(event, wallets_of(event.type, whole["data"]), None, seq)


def _about(event: PublicEvent) -> About:
    # The event of a transfer has the transfer's id.
    is_transfer = event.type.startswith("transfer.")
    return About(None, event.traceparent, event.id if is_transfer else None)
