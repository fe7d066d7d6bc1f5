"""The relay: events leave the outbox in order, after the broker has confirmed them."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import aio_pika
import pytest

from tests.conftest import Database, Workers
from tests.support.endpoints import new_webhook, update_webhook
from tests.support.home import execute_on_rows
from tests.support.outbox import TRACEPARENT, again, left, put, transfer_event, wallet_event
from tests.support.pressure import held
from tests.support.queues import bound_queue, message_count, take, topology_of
from tests.support.waiting import until
from transferd.commit.events import CLOUD_EVENT, cloud_event
from transferd.config import Limits
from transferd.domain.ledger import MAIN, Ledger
from transferd.domain.webhook import WebhookStatus
from transferd.ledger.ids import new_id
from transferd.ledger.store import outbox
from transferd.ledger.store.database import Database as Store
from transferd.ledger.store.database import Transaction
from transferd.ledger.store.deliveries import LOG
from transferd.ledger.watch import LedgerList, LedgerWatch
from transferd.notifications.broker import TransportFailure
from transferd.notifications.directory import Directories
from transferd.notifications.rabbit import RabbitBroker
from transferd.notifications.relay import Relay
from transferd.notifications.relays import Relays as Running
from transferd.notifications.wakeups import decode_wakeup
from transferd.observability.facts import Fact, Facts, OutboxRelayed, RelayFailed

LEASE = "SELECT 1 FROM ledger_00.relay_leases FOR UPDATE"


@dataclass
class Relays:
    """Relays of one test, on its outbox and its queues."""

    database: Database
    workers: Workers
    exits: AsyncExitStack
    facts: list[Fact] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.settings = self.workers.settings()
        self.topology = topology_of(self.settings)
        # The queue of another program that gets every event.
        self.public = ""

    async def open(
        self, limits: Limits | None = None, wakeup: asyncio.Event | None = None
    ) -> "OneRelay":
        """One more relay, which works only when it is called."""
        limits = limits or Limits()
        store = await self.exits.enter_async_context(Store(self.settings, limits, 10))
        topology = topology_of(self.settings, limits)
        url = self.settings.required("amqp_url")
        connect = partial(RabbitBroker, url, topology, limits, "relay of a test")
        facts = Facts(self.facts.append)
        relay = Relay(
            database=store,
            directories=Directories(limits, with_log=False),
            limits=limits,
            facts=facts,
            clock=time.monotonic,
        )
        ledgers = LedgerList(store, limits, time.monotonic)
        watch = LedgerWatch(
            store, ledgers, outbox.HAS_ROWS, limits=limits, facts=facts, clock=time.monotonic
        )
        running = Running(
            relay=relay,
            watch=watch,
            connect=connect,
            limits=limits,
            facts=facts,
            wakeup=wakeup or asyncio.Event(),
        )
        broker = await self.exits.enter_async_context(connect())
        return OneRelay(relay, running, broker, limits, self.database.ledger)

    async def run(
        self, limits: Limits | None = None, wakeup: asyncio.Event | None = None
    ) -> Running:
        """One more relay, which publishes by itself until the end of the test."""
        relay = (await self.open(limits, wakeup)).running
        task = asyncio.create_task(relay.run())

        async def stop() -> None:
            task.cancel()
            await asyncio.wait([task])

        self.exits.push_async_callback(stop)
        await until(lambda: relay.fault is None)
        return relay

    async def published(self, count: int) -> list[Any]:
        """Take this many events out of the public queue."""
        return list(await take(self.settings, self.public, count))

    @property
    def batches(self) -> list[int]:
        """How many events each transaction has published."""
        return [fact.events for fact in self.facts if isinstance(fact, OutboxRelayed)]


@dataclass
class OneRelay:
    """A relay with a connection of its own, and the loop over all ledgers that uses it."""

    relay: Relay
    running: Running
    broker: RabbitBroker
    limits: Limits
    ledger: Ledger

    async def relay_once(self, ledger: Ledger | None = None) -> int:
        """Publish one batch of a ledger, or of the one of this run."""
        return await self.relay.relay_once(
            self.broker, ledger or self.ledger, events_max=self.limits.relay_batch_events_max
        )


@pytest.fixture
async def relays(database: Database, workers: Workers) -> AsyncIterator[Relays]:
    async with AsyncExitStack() as exits:
        found = Relays(database, workers, exits)
        found.public = await exits.enter_async_context(bound_queue(found.settings))
        yield found


def is_empty(database: Database) -> Callable[[], Awaitable[bool]]:
    async def holds() -> bool:
        return await left(database) == []

    return holds


def full_queue(relays: Relays, key: str) -> AbstractAsyncContextManager[str]:
    """A queue of another program that refuses the events of a type until the block ends."""
    refusing: dict[str, Any] = {"x-max-length": 0, "x-overflow": "reject-publish"}
    return bound_queue(relays.settings, key, **refusing)


async def written(database: Database) -> list[tuple[str, str, int, int]]:
    """Event, endpoint, status and attempts of each delivery, in order."""
    rows = await database.fetch(
        "SELECT event_id, endpoint_id::text, status, attempts FROM ledger_00.deliveries"
        " ORDER BY number"
    )
    return [tuple(row) for row in rows]


# Published events


async def test_a_published_message_is_persistent_and_has_the_headers_of_its_event(
    database: Database, relays: Relays
) -> None:
    transfer, frozen = transfer_event(), wallet_event()
    await put(database, [transfer, frozen])
    await (await relays.open()).relay_once()
    messages = await relays.published(2)
    for message, event in zip(messages, (transfer, frozen), strict=True):
        assert message.exchange == relays.topology.exchange
        assert message.routing_key == f"{database.ledger.name}.{event['type']}"
        assert message.delivery_mode is aio_pika.DeliveryMode.PERSISTENT
        assert message.message_id == event["id"]
        assert message.type == event["type"]
        assert message.content_type == CLOUD_EVENT
        assert message.headers == {"traceparent": TRACEPARENT}
        assert message.body == cloud_event(event, database.ledger.name)


async def test_each_event_gets_a_delivery_for_each_matching_endpoint(
    database: Database, relays: Relays
) -> None:
    ada = new_id(MAIN)
    everything = await new_webhook(database, "https://a.example/")
    of_ada = await new_webhook(database, "https://b.example/", "transfer.*", wallet=ada)
    disabled = await new_webhook(database, "https://c.example/", "wallet.*")
    await update_webhook(
        database, disabled, status=WebhookStatus.DISABLED, reason="a client asked for it"
    )
    transfer, other, frozen = transfer_event(ada), transfer_event(), wallet_event()
    await put(database, [transfer, other], [frozen])
    relay = await relays.open()
    await relay.relay_once()
    assert await written(database) == [
        (transfer["id"], everything, 0, 0),
        (transfer["id"], of_ada, 0, 0),
        (other["id"], everything, 0, 0),
        (frozen["id"], everything, 0, 0),
        (frozen["id"], disabled, -1, 0),
    ]
    [message] = await take(relays.settings, relays.topology.work_queue(database.ledger.number), 1)
    number, endpoint_ids = decode_wakeup(message.body)
    assert (number, set(endpoint_ids)) == (database.ledger.number, {everything, of_ada})
    # A webhook that is newer than the relay's knowledge gets the next event.
    newer = await new_webhook(database, "https://d.example/", "user.created")
    user = transfer_event(type="user.created", data={"id": new_id(MAIN), "name": "Ada"})
    await put(database, [user])
    await relay.relay_once()
    assert {row[1] for row in (await written(database))[5:]} == {everything, newer}


async def test_an_event_that_is_sent_again_to_one_endpoint_is_not_published(
    database: Database, relays: Relays
) -> None:
    webhook = await new_webhook(database, "https://a.example/")
    to_one, to_all, untraced = [transfer_event() for _ in range(3)]
    last = again(untraced, None)
    del last["event"]["traceparent"]
    await put(database, [again(to_one, LOG), again(to_all, None), last])
    await (await relays.open()).relay_once()
    messages = await relays.published(2)
    assert [message.message_id for message in messages] == [to_all["id"], untraced["id"]]
    assert [message.headers for message in messages] == [{"traceparent": TRACEPARENT}, {}]
    assert await written(database) == [
        (to_one["id"], LOG, 0, 0),
        (to_all["id"], webhook, 0, 0),
        (untraced["id"], webhook, 0, 0),
    ]


async def test_an_event_that_is_published_twice_has_one_delivery(
    database: Database, relays: Relays
) -> None:
    webhook = await new_webhook(database, "https://a.example/")
    event = transfer_event()
    relay = await relays.open()
    await put(database, [event, event])
    await relay.relay_once()
    await database.fetch("UPDATE ledger_00.deliveries SET status = 1, attempts = 1")
    await put(database, [event])
    await relay.relay_once()
    assert await written(database) == [(event["id"], webhook, 1, 1)]


@pytest.mark.parametrize(
    ("sizes", "batches"),
    [
        ((1, 1, 1, 1, 1), [3, 2]),
        ((3, 1, 5, 2), [3, 6, 2]),
        ((2, 2, 2), [4, 2]),
        ((1, 7, 1), [8, 1]),
        ((7, 1), [7, 1]),
        ((3, 3), [3, 3]),
    ],
    ids=str,
)
async def test_rows_leave_in_order_in_batches_that_end_with_the_row_that_fills_them(
    database: Database, relays: Relays, sizes: tuple[int, ...], batches: list[int]
) -> None:
    rows = [[transfer_event() for _ in range(size)] for size in sizes]
    await put(database, *rows)
    relay = await relays.open(replace(Limits(), relay_batch_events_max=3))
    while await relay.relay_once():
        pass
    assert await left(database) == []
    assert relays.batches == batches
    sent = [event["id"] for row in rows for event in row]
    assert [message.message_id for message in await relays.published(len(sent))] == sent


# Only confirmed events are deleted


async def test_rows_leave_in_the_order_of_their_times(database: Database, relays: Relays) -> None:
    """Then in the order of `seq`, which need not grow when the ledger has moved to another node."""
    events = [transfer_event() for _ in range(6)]
    await put(database, *([event] for event in events))
    await execute_on_rows(
        database,
        "ledger_00.outbox",
        "UPDATE {table} SET created_at = now() - (seq / 2) * interval '1 minute'",
    )
    rows = await database.fetch("SELECT created_at, seq FROM ledger_00.outbox ORDER BY 1, 2")
    first = min(row["seq"] for row in rows)
    order = [events[row["seq"] - first]["id"] for row in rows]
    assert order != [event["id"] for event in events]
    async with full_queue(relays, f"{database.ledger.name}.transfer.posted"):
        with pytest.raises(TransportFailure):
            await (await relays.open()).relay_once()
    relay = await relays.open(Limits(relay_batch_events_max=4))
    while await relay.relay_once():
        pass
    assert [message.message_id for message in await relays.published(6)] == order


async def test_deliveries_are_numbered_through_all_batches(
    database: Database, relays: Relays
) -> None:
    await new_webhook(database, "https://a.example/")
    await new_webhook(database, "https://b.example/")
    for _ in range(2):
        await put(database, [transfer_event(), transfer_event()], [transfer_event()])
        await (await relays.open()).relay_once()
    rows = await database.fetch("SELECT number FROM ledger_00.deliveries ORDER BY number")
    first = rows[0]["number"]
    assert [row["number"] for row in rows] == list(range(first, first + 12))
    [[last]] = await database.fetch("SELECT max(delivery_number) FROM ledger_00.relay_leases")
    assert last == first + 11


async def test_a_refused_event_stays_until_the_broker_accepts_it(
    database: Database, relays: Relays
) -> None:
    webhook = await new_webhook(database, "https://a.example/")
    first, second = transfer_event(), transfer_event()
    relay = await relays.open()
    assert await relay.relay_once() == 0
    async with full_queue(relays, f"{database.ledger.name}.transfer.posted"):
        await put(database, [first], [second])
        for _ in range(2):
            with pytest.raises(TransportFailure, match="RabbitMQ refused it: a queue is full"):
                await relay.relay_once()
        assert await left(database) == [[first["id"]], [second["id"]]]
        assert await written(database) == []
    assert await relay.relay_once() == 2
    assert [row[:2] for row in await written(database)] == [
        (first["id"], webhook),
        (second["id"], webhook),
    ]
    # The other queue got them each time: at least once, in order.
    ids = [message.message_id for message in await relays.published(6)]
    assert ids == [first["id"], second["id"]] * 3
    assert relays.batches == [2]


async def test_a_row_stays_whole_until_all_its_events_are_confirmed(
    database: Database, relays: Relays
) -> None:
    relay = await relays.open()
    assert await relay.relay_once() == 0
    to_one = [again(transfer_event(), LOG) for _ in range(3)]
    public = transfer_event()
    ids = [item["event"]["id"] for item in to_one]
    async with full_queue(relays, f"{database.ledger.name}.transfer.posted"):
        await put(database, [to_one[0]], [to_one[1], public], [to_one[2]])
        with pytest.raises(TransportFailure):
            await relay.relay_once()
        # The last row needs no broker, but it is behind a refused one.
        assert await left(database) == [[ids[1], public["id"]], [ids[2]]]
        assert [row[0] for row in await written(database)] == ids[:1]
        assert relays.batches == [1]
    assert await relay.relay_once() == 3
    assert [row[0] for row in await written(database)] == ids


async def test_a_broker_that_confirms_too_slowly_gets_smaller_batches(
    database: Database, relays: Relays, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    publish = RabbitBroker.publish

    async def slowly(self: RabbitBroker, events: Any, *, timeout_s: float) -> Any:
        sizes.append(len(events))
        if len(events) > 2:
            raise TransportFailure("RabbitMQ did not confirm in time")
        return await publish(self, events, timeout_s=timeout_s)

    monkeypatch.setattr(RabbitBroker, "publish", slowly)
    await put(database, *[[transfer_event()] for _ in range(20)])
    limits = replace(
        Limits(),
        relay_batch_events_max=16,
        relay_wait_first_s=0.01,
        relay_wait_max_s=0.02,
    )
    await relays.run(limits)
    await until(is_empty(database))
    assert sizes[:5] == [16, 8, 4, 2, 4]
    assert max(sizes[5:]) <= 4


async def test_a_failing_relay_reports_the_reason_and_continues_when_it_can(
    database: Database, relays: Relays
) -> None:
    relay = await relays.run()
    async with full_queue(relays, "#"):
        await put(database, [transfer_event()])
        await until(lambda: relay.fault == "RabbitMQ refused it: a queue is full")
        assert repr(relay) == "<Relays RabbitMQ refused it: a queue is full>"
    await until(is_empty(database))
    await until(lambda: relay.fault is None)
    assert repr(relay) == "<Relays running>"
    assert any(isinstance(fact, RelayFailed) for fact in relays.facts)


# Several relays


async def test_a_relay_without_the_lease_publishes_nothing(
    database: Database, relays: Relays
) -> None:
    relay = await relays.open()
    await put(database, [transfer_event()])
    async with held(database, LEASE):
        assert await relay.relay_once() == 0
        assert len(await left(database)) == 1
    assert await relay.relay_once() == 1


async def test_a_relay_that_comes_too_late_publishes_nothing(
    database: Database, relays: Relays, monkeypatch: pytest.MonkeyPatch
) -> None:
    late, quick = await relays.open(), await relays.open()
    await put(database, [transfer_event()])
    take_lease = outbox.take_lease

    async def after_another(transaction: Transaction) -> bool:
        """The other relay publishes after this one has looked at the outbox."""
        monkeypatch.setattr(outbox, "take_lease", take_lease)
        assert await quick.relay_once() == 1
        return await take_lease(transaction)

    monkeypatch.setattr(outbox, "take_lease", after_another)
    assert await late.relay_once() == 0
    assert relays.batches == [1]


async def test_concurrent_relays_lose_double_and_reorder_nothing(
    database: Database, relays: Relays
) -> None:
    limits = replace(Limits(), relay_batch_events_max=7)
    several = [await relays.open(limits) for _ in range(3)]
    events = [transfer_event() for _ in range(300)]
    await put(database, *[events[at : at + 5] for at in range(0, 300, 5)])

    async def compete(relay: OneRelay) -> None:
        while await left(database):
            await relay.relay_once()

    async with asyncio.TaskGroup() as group:
        for relay in several:
            group.create_task(compete(relay))
    assert sum(relays.batches) == 300
    arrived = [message.message_id for message in await relays.published(300)]
    assert arrived == [event["id"] for event in events]
    assert await message_count(relays.settings, relays.public) == 0
