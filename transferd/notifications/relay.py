"""The relay: turns events of the outbox into public CloudEvents and deliveries, in order."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

import orjson

from transferd.commit.events import cloud_event, event_of_transfer
from transferd.config import Limits
from transferd.domain.transfer import PostedTransfer
from transferd.domain.webhook import DeliveryStatus
from transferd.ledger.store import outbox
from transferd.ledger.store.database import Database, Transaction
from transferd.ledger.store.deliveries import EventText, NewDelivery, insert_deliveries
from transferd.ledger.store.errors import StoreError
from transferd.ledger.store.outbox import OutboxRow
from transferd.ledger.store.transfers import read_transfers
from transferd.notifications.broker import Broker, Connect, PublicEvent, TransportFailure
from transferd.notifications.directory import Directory
from transferd.notifications.event import wallets_of
from transferd.notifications.sinks.result import DISABLED
from transferd.notifications.wakeup import WakeUp
from transferd.observability.facts import About, EventsPublished, Facts, OutboxRelayed, RelayFailed


class _Item(NamedTuple):
    """An event of the outbox; `endpoint_id` is the only one that it is for, if it is sent again."""

    event: PublicEvent
    wallets: tuple[str, ...]
    endpoint_id: str | None = None


class Relay:
    """Publishes the outbox. Several may run; one leads, the others take over when it does not.

    `wakeup` is set by a process that has written events; without it the outbox is polled.
    """

    def __init__(
        self,
        *,
        database: Database,
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
        self.leads = False
        # Events were written, and the process that wrote them has woken this relay up.
        self._is_told = False

    def __repr__(self) -> str:
        return f"<Relay {self.fault or ('leads' if self.leads else 'stands by')}>"

    async def run(self) -> None:
        """Publish until cancelled. Raises ConfigurationError if the broker cannot be used so."""
        wait_s = 0.0
        try:
            while True:
                try:
                    count = await self.relay_once() if await self._is_wanted() else 0
                except (TransportFailure, StoreError) as error:
                    self.fault, self.leads = str(error), False
                    # A broker that cannot confirm so many in time may confirm fewer.
                    self._batch_max = max(self._batch_max // 2, 1)
                    self._facts.emit(RelayFailed(error))
                    wait_s = min(
                        max(wait_s * 2, self._limits.relay_wait_first_s),
                        self._limits.relay_wait_max_s,
                    )
                    await asyncio.sleep(wait_s)
                else:
                    self.fault, wait_s = None, 0.0
                    self._batch_max = min(self._batch_max * 2, self._limits.relay_batch_events_max)
                    if not count:
                        await self._rest()
        finally:
            await self.close()

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.aclose()

    async def relay_once(self) -> int:
        """Publish one batch; how many events, 0 also if another relay leads.

        Raises StoreError or TransportFailure. What was confirmed before that is not published
        again, unless the transaction is what failed.
        """
        broker = await self._connected()
        if not await outbox.has_rows(self._database):
            return 0
        started = self._clock()
        async with self._database.transaction() as transaction:
            if not await outbox.take_lease(transaction):
                self.leads = False
                return 0
            rows = await outbox.read_outbox(transaction, events_max=self._batch_max)
            # No rows: another relay has published them.
            self.leads = bool(rows)
            groups = await _items_of(transaction, rows)
            confirmed, failure = await self._publish(broker, groups)
            items = [item for group in groups[:confirmed] for item in group]
            endpoints: list[str] = []
            if confirmed:
                await self._directory.refresh(transaction, rows[0].webhooks_version)
                endpoints = await self._address(transaction, items)
                await outbox.delete_outbox(transaction, [row.seq for row in rows[:confirmed]])
        # The rows are there for the notifier to read only now.
        if endpoints:
            await broker.wake(WakeUp(endpoints=tuple(endpoints)))
        if items:
            self._facts.emit(OutboxRelayed(len(items), self._clock() - started))
        if failure is not None:
            raise TransportFailure(failure)
        return len(items)

    async def _publish(
        self, broker: Broker, groups: Sequence[Sequence[_Item]]
    ) -> tuple[int, str | None]:
        """How many groups, from the front, are confirmed in full; and what went wrong."""
        # An event that is sent again to one endpoint was published when it happened.
        events = [[item.event for item in group if item.endpoint_id is None] for group in groups]
        flat = [event for group in events for event in group]
        if not flat:
            return len(groups), None
        started = self._clock()
        outcomes = await broker.publish(flat, timeout_s=self._limits.relay_publish_timeout_s)
        if self._facts.per_request_facts:
            published = [
                (event.type, _about(event))
                for event, outcome in zip(flat, outcomes, strict=True)
                if outcome is None
            ]
            self._facts.emit(EventsPublished(published, started, self._clock()))
        failure = next((outcome for outcome in outcomes if outcome is not None), None)
        confirmed = len(flat) if failure is None else outcomes.index(failure)
        count = 0
        for number, group in enumerate(events):
            count += len(group)
            if count > confirmed:
                return number, failure
        return len(groups), failure

    async def _address(self, transaction: Transaction, items: Sequence[_Item]) -> list[str]:
        """Write a delivery for each endpoint that each event is for; the endpoints."""
        events: list[EventText] = []
        deliveries: list[NewDelivery] = []
        for item in items:
            event = item.event
            targets = (
                self._directory.wanting(event.type, item.wallets)
                if item.endpoint_id is None
                else [item.endpoint_id]
            )
            if not targets:
                continue
            events.append(EventText(event.id, event.type, event.body.decode()))
            for endpoint_id in targets:
                # One that is sent again was active when it was asked for; the notifier decides.
                skipped = item.endpoint_id is None and self._directory.is_disabled(endpoint_id)
                deliveries.append(
                    NewDelivery(len(events), endpoint_id, DeliveryStatus.SKIPPED, DISABLED.error)
                    if skipped
                    else NewDelivery(len(events), endpoint_id, DeliveryStatus.PENDING)
                )
        if deliveries:
            await insert_deliveries(transaction, events, deliveries)
        return list(
            dict.fromkeys(
                d.endpoint_id for d in deliveries if d.status is not DeliveryStatus.SKIPPED
            )
        )

    async def _is_wanted(self) -> bool:
        """Whether it leads or was woken up, or no relay has published for a while.

        Without that a relay that stands by would now and then be faster than the one that leads.
        """
        is_told, self._is_told = self._is_told, False
        await self._connected()
        if self.leads or is_told:
            return True
        return await outbox.oldest_s(self._database) > self._limits.relay_standby_s

    async def _connected(self) -> Broker:
        if self._broker is None or self._broker.reason:
            await self._connection.aclose()
            broker = await self._connection.enter_async_context(self._connect())
            await broker.take_over()
            self._broker = broker
        return self._broker

    async def _rest(self) -> None:
        """Until there may be events: a signal, or the time to look."""
        wait_s = self._limits.relay_poll_s if self.leads else self._limits.relay_standby_s
        try:
            async with asyncio.timeout(wait_s):
                await self._wakeup.wait()
        except TimeoutError:
            return
        self._wakeup.clear()
        self._is_told = True


async def _items_of(transaction: Transaction, rows: Sequence[OutboxRow]) -> list[list[_Item]]:
    """The events of each row, in order. Raises StoreError.

    The outbox has an event as `commit.events` writes it, of a batch the id of a transfer alone; or
    `{"endpoint", "event"}`: a CloudEvent that is sent again, to that endpoint or to all.
    """
    groups: list[list[dict[str, Any]]] = [orjson.loads(row.events) for row in rows]
    bare = [item["id"] for items in groups for item in items if _is_bare(item)]
    transfers = await read_transfers(transaction, bare) if bare else {}
    return [[_item(item, transfers) for item in items] for items in groups]


def _is_bare(item: dict[str, Any]) -> bool:
    return "data" not in item and "event" not in item


def _item(item: dict[str, Any], transfers: Mapping[str, PostedTransfer]) -> _Item:
    if (again := item.get("event")) is not None:
        event = PublicEvent(
            again["id"], again["type"], orjson.dumps(again), again.get("traceparent")
        )
        endpoint_id = item["endpoint"]
        wallets = () if endpoint_id else wallets_of(event.type, again["data"])
        return _Item(event, wallets, endpoint_id)
    if _is_bare(item):
        item = event_of_transfer(transfers[item["id"]])._asdict() | item
    event = PublicEvent(item["id"], item["type"], cloud_event(item), item["traceparent"])
    return _Item(event, wallets_of(event.type, item["data"]))


def _about(event: PublicEvent) -> About:
    # The event of a transfer has the transfer's id.
    is_transfer = event.type.startswith("transfer.")
    return About(None, event.traceparent, event.id if is_transfer else None)
