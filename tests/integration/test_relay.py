"""The relay: events leave the outbox in order, and only once the broker has them for certain."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import aio_pika
import orjson
import pytest

from tests.conftest import Database, Workers
from tests.support.outbox import TRACEPARENT, again, left, put, transfer_event, wallet_event
from tests.support.pressure import held
from tests.support.queues import message_count, take, topology_of
from tests.support.waiting import SLOWNESS, until
from transferd.commit.events import CLOUD_EVENT, cloud_event
from transferd.config import Limits
from transferd.ledger.store import outbox
from transferd.ledger.store.database import Database as Store
from transferd.ledger.store.database import Transaction
from transferd.notifications.broker import ENDPOINT, Broker
from transferd.notifications.messages import TransportFailure
from transferd.notifications.relay import Relay
from transferd.observability.facts import Fact, Facts, OutboxRelayed, RelayFailed

ENDPOINT_ID = "019a0000-0000-7000-8000-000000000001"
OTHER_ID = "019a0000-0000-7000-8000-000000000002"
LEASE = "SELECT 1 FROM transferd.relay_leases FOR UPDATE"
# Nothing happens by itself within a test.
PATIENT = replace(Limits(), relay_poll_s=60.0, relay_standby_s=60.0)


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

    async def open(
        self, limits: Limits | None = None, wakeup: asyncio.Event | None = None
    ) -> Relay:
        """One more relay, which does what it is asked to."""
        limits = limits or Limits()
        store = await self.exits.enter_async_context(Store(self.settings, limits, 2))
        topology = topology_of(self.settings, limits)
        url = self.settings.required("amqp_url")
        relay = Relay(
            database=store,
            connect=partial(Broker, url, topology, limits, "relay of a test"),
            topology=topology,
            limits=limits,
            facts=Facts(self.facts.append),
            clock=time.monotonic,
            wakeup=wakeup or asyncio.Event(),
        )
        self.exits.push_async_callback(relay.close)
        return relay

    async def run(self, limits: Limits | None = None, wakeup: asyncio.Event | None = None) -> Relay:
        """One more relay, which publishes by itself until the end of the test."""
        relay = await self.open(limits, wakeup)
        task = asyncio.create_task(relay.run())

        async def stop() -> None:
            task.cancel()
            await asyncio.wait([task])

        self.exits.push_async_callback(stop)
        await until(lambda: relay.fault is None)
        return relay

    async def published(self, count: int) -> list[Any]:
        """Take so many messages out of the work queue."""
        return list(await take(self.settings, self.topology.work, count))

    @property
    def batches(self) -> list[int]:
        """The sizes of what was published in one transaction."""
        return [fact.events for fact in self.facts if isinstance(fact, OutboxRelayed)]


@pytest.fixture
async def relays(database: Database, workers: Workers) -> AsyncIterator[Relays]:
    async with AsyncExitStack() as exits:
        yield Relays(database, workers, exits)


def is_empty(database: Database) -> Callable[[], Awaitable[bool]]:
    async def holds() -> bool:
        return await left(database) == []

    return holds


async def relay_all(relay: Relay) -> None:
    """Publish until nothing is left."""
    while await relay.relay_once():
        pass


def leading(*relays: Relay) -> list[bool]:
    """Which of them lead."""
    return [relay.leads for relay in relays]


@asynccontextmanager
async def without_binding(relays: Relays) -> AsyncIterator[None]:
    """The exchange has no queue until the block ends."""
    connection = await aio_pika.connect(relays.settings.required("amqp_url"))
    async with connection:
        channel = await connection.channel()
        exchange = await channel.get_exchange(relays.topology.exchange)
        queue = await channel.get_queue(relays.topology.work)
        await queue.unbind(exchange, "#")
        yield
        await queue.bind(exchange, "#")


async def without_queue(relays: Relays) -> None:
    """The work queue is not there, until a relay connects anew."""
    connection = await aio_pika.connect(relays.settings.required("amqp_url"))
    async with connection:
        await (await connection.channel()).queue_delete(relays.topology.work)


# What is published


async def test_events_leave_in_the_order_of_their_rows(database: Database, relays: Relays) -> None:
    rows = [[transfer_event() for _ in range(size)] for size in (3, 1, 5, 2)]
    await put(database, *rows)
    relay = await relays.open()
    assert await relay.relay_once() == 11
    assert await left(database) == []
    sent = [event["id"] for row in rows for event in row]
    assert [message.message_id for message in await relays.published(11)] == sent
    assert relays.batches == [11]
    assert await relay.relay_once() == 0
    assert relays.batches == [11]


async def test_a_message_survives_the_broker_and_says_what_it_is(
    database: Database, relays: Relays
) -> None:
    transfer, frozen = transfer_event(), wallet_event()
    await put(database, [transfer, frozen])
    await (await relays.open()).relay_once()
    messages = await relays.published(2)
    for message, event in zip(messages, (transfer, frozen), strict=True):
        assert message.exchange == relays.topology.exchange
        assert message.routing_key == event["type"]
        assert message.delivery_mode is aio_pika.DeliveryMode.PERSISTENT
        assert message.message_id == event["id"]
        assert message.type == event["type"]
        assert message.content_type == CLOUD_EVENT
        assert message.headers == {"traceparent": TRACEPARENT}
        assert message.body == cloud_event(event)


async def test_whoever_wants_only_some_types_can_bind_a_queue_for_them(
    database: Database, relays: Relays
) -> None:
    relay = await relays.open()
    assert await relay.relay_once() == 0
    connection = await aio_pika.connect(relays.settings.required("amqp_url"))
    async with connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(relays.topology.exchange, "wallet.*")
        frozen = wallet_event()
        await put(database, [transfer_event(), frozen])
        await relay.relay_once()
        message = await queue.get()
        assert message is not None
        assert message.message_id == frozen["id"]
        assert await queue.get(fail=False) is None


async def test_what_is_wanted_again_goes_straight_to_the_work_queue(
    database: Database, relays: Relays
) -> None:
    event, other = transfer_event(), transfer_event()
    await put(database, [again(event, ENDPOINT_ID), again(other, None)])
    await (await relays.open()).relay_once()
    to_one, to_all = await relays.published(2)
    assert (to_one.exchange, to_one.routing_key) == ("", relays.topology.work)
    assert to_one.headers == {"traceparent": TRACEPARENT, ENDPOINT: ENDPOINT_ID}
    assert orjson.loads(to_one.body) == orjson.loads(cloud_event(event))
    assert (to_all.exchange, to_all.routing_key) == (relays.topology.exchange, "transfer.posted")
    assert to_all.headers == {"traceparent": TRACEPARENT}


async def test_an_event_without_a_trace_has_no_header(database: Database, relays: Relays) -> None:
    event = again(transfer_event(), None)
    del event["event"]["traceparent"]
    await put(database, [event])
    await (await relays.open()).relay_once()
    [message] = await relays.published(1)
    assert message.headers == {}


@pytest.mark.parametrize(
    ("sizes", "batches"),
    [
        ((1, 1, 1, 1, 1), [3, 2]),
        ((2, 2, 2), [4, 2]),
        ((1, 7, 1), [8, 1]),
        ((7, 1), [7, 1]),
        ((3, 3), [3, 3]),
    ],
    ids=str,
)
async def test_a_batch_ends_with_the_row_that_fills_it(
    database: Database, relays: Relays, sizes: tuple[int, ...], batches: list[int]
) -> None:
    rows = [[transfer_event() for _ in range(size)] for size in sizes]
    await put(database, *rows)
    relay = await relays.open(replace(Limits(), relay_batch_events_max=3))
    await relay_all(relay)
    assert relays.batches == batches
    sent = [event["id"] for row in rows for event in row]
    assert [message.message_id for message in await relays.published(len(sent))] == sent


# Only what is certain is deleted


async def test_what_has_no_queue_stays_until_there_is_one(
    database: Database, relays: Relays
) -> None:
    first, second = transfer_event(), transfer_event()
    relay = await relays.open()
    assert await relay.relay_once() == 0
    async with without_binding(relays):
        await put(database, [first], [second])
        for _ in range(2):
            with pytest.raises(TransportFailure, match="RabbitMQ has no queue for it"):
                await relay.relay_once()
        assert await left(database) == [[first["id"]], [second["id"]]]
    assert await relay.relay_once() == 2
    ids = [message.message_id for message in await relays.published(2)]
    assert ids == [first["id"], second["id"]]
    assert relays.batches == [2]


async def test_each_message_of_the_same_event_has_to_be_confirmed(
    database: Database, relays: Relays
) -> None:
    event = transfer_event()
    relay = await relays.open()
    assert await relay.relay_once() == 0
    await without_queue(relays)
    await put(database, [again(event, ENDPOINT_ID)], [again(event, OTHER_ID)])
    with pytest.raises(TransportFailure, match="RabbitMQ has no queue for it"):
        await relay.relay_once()
    assert await left(database) == [[event["id"]], [event["id"]]]
    await relay.close()
    assert await relay.relay_once() == 2
    messages = await relays.published(2)
    assert [message.headers[ENDPOINT] for message in messages] == [ENDPOINT_ID, OTHER_ID]
    assert {message.type for message in messages} == {"transfer.posted"}


async def test_a_row_stays_whole_until_all_its_events_are_confirmed(
    database: Database, relays: Relays
) -> None:
    relay = await relays.open()
    assert await relay.relay_once() == 0
    straight = [again(transfer_event(), ENDPOINT_ID) for _ in range(3)]
    by_type = transfer_event()
    async with without_binding(relays):
        await put(database, [straight[0]], [straight[1], by_type], [straight[2]])
        with pytest.raises(TransportFailure):
            await relay.relay_once()
        ids = [item["event"]["id"] for item in straight]
        # The last one has arrived, but behind one that has not.
        assert await left(database) == [[ids[1], by_type["id"]], [ids[2]]]
        assert relays.batches == [1]
    assert await relay.relay_once() == 3
    arrived = [message.message_id for message in await relays.published(6)]
    assert arrived == [*ids, ids[1], by_type["id"], ids[2]]


async def test_a_full_queue_makes_the_outbox_hold(database: Database, relays: Relays) -> None:
    limits = replace(Limits(), work_queue_messages_max=5, relay_batch_events_max=10)
    events = [transfer_event() for _ in range(60)]
    relay = await relays.open(limits)
    await put(database, *[[event] for event in events])
    with pytest.raises(TransportFailure, match="RabbitMQ refused it: a queue is full"):
        await relay_all(relay)
    held_back = [id for row in await left(database) for id in row]
    assert held_back == [event["id"] for event in events[-len(held_back) :]]
    assert held_back
    # What was refused does not leave a gap: it comes again, in order, when there is room.
    arrived: list[str] = []
    while await left(database):
        count = await message_count(relays.settings, relays.topology.work)
        arrived += [message.message_id for message in await relays.published(count)]
        try:
            await relay.relay_once()
        except TransportFailure:
            continue
    count = await message_count(relays.settings, relays.topology.work)
    arrived += [message.message_id for message in await relays.published(count)]
    assert list(dict.fromkeys(arrived)) == [event["id"] for event in events]


async def test_a_relay_that_fails_says_why_and_goes_on_when_it_can(
    database: Database, relays: Relays
) -> None:
    relay = await relays.run(replace(Limits(), relay_standby_s=0.05))
    async with without_binding(relays):
        await put(database, [transfer_event()])
        await until(lambda: relay.fault == "RabbitMQ has no queue for it")
        assert repr(relay) == "<Relay RabbitMQ has no queue for it>"
        assert not relay.leads
    await until(is_empty(database))
    await until(lambda: relay.fault is None)
    assert repr(relay) == "<Relay leads>"
    assert any(isinstance(fact, RelayFailed) for fact in relays.facts)


# When it is published


async def test_a_signal_publishes_at_once(database: Database, relays: Relays) -> None:
    wakeup = asyncio.Event()
    relay = await relays.run(PATIENT, wakeup)
    for _ in range(3):
        await put(database, [transfer_event()])
        wakeup.set()
        await until(is_empty(database))
        assert relay.leads
    assert relays.batches == [1, 1, 1]


async def test_without_a_signal_the_outbox_is_looked_at(database: Database, relays: Relays) -> None:
    relay = await relays.run(replace(Limits(), relay_standby_s=0.2))
    assert repr(relay) == "<Relay stands by>"
    for _ in range(3):
        await put(database, [transfer_event()])
        await until(is_empty(database))
        assert relay.leads
    assert relays.batches == [1, 1, 1]


# Several relays


async def test_who_does_not_get_the_lease_publishes_nothing(
    database: Database, relays: Relays
) -> None:
    relay = await relays.open()
    await put(database, [transfer_event()])
    async with held(database, LEASE):
        assert await relay.relay_once() == 0
        assert leading(relay) == [False]
        assert len(await left(database)) == 1
    assert await relay.relay_once() == 1
    assert leading(relay) == [True]
    await put(database, [transfer_event()])
    async with held(database, LEASE):
        assert await relay.relay_once() == 0
        assert leading(relay) == [False]


async def test_who_comes_too_late_does_not_lead(
    database: Database, relays: Relays, monkeypatch: pytest.MonkeyPatch
) -> None:
    late, quick = await relays.open(), await relays.open()
    await put(database, [transfer_event()])
    take_lease = outbox.take_lease

    async def after_another(transaction: Transaction) -> bool:
        """Between its look at the outbox and its turn, the other one publishes."""
        monkeypatch.setattr(outbox, "take_lease", take_lease)
        assert await quick.relay_once() == 1
        return await take_lease(transaction)

    monkeypatch.setattr(outbox, "take_lease", after_another)
    assert await late.relay_once() == 0
    assert leading(late, quick) == [False, True]
    assert relays.batches == [1]


async def test_of_several_relays_one_leads(database: Database, relays: Relays) -> None:
    # A leader that is only slow is followed by nobody.
    limits = replace(Limits(), relay_standby_s=2.0 * SLOWNESS)
    several = [await relays.run(limits) for _ in range(3)]
    assert leading(*several) == [False, False, False]
    leaders = set()
    for _ in range(10):
        await put(database, [transfer_event()])
        await until(is_empty(database))
        leaders.add(tuple(leading(*several)))
    [leads] = leaders
    assert sum(leads) == 1
    assert sum(relays.batches) == 10
    ids = [message.message_id for message in await relays.published(10)]
    assert len(set(ids)) == 10


async def test_who_stands_by_takes_over_what_is_left_lying(
    database: Database, relays: Relays
) -> None:
    leader = await relays.open()
    await put(database, [transfer_event()])
    assert await leader.relay_once() == 1
    # It does nothing from now on.
    other = await relays.run(replace(Limits(), relay_standby_s=0.3))
    started = time.monotonic()
    await put(database, [transfer_event()])
    await until(is_empty(database))
    assert other.leads
    assert time.monotonic() - started > 0.25


async def test_relays_that_compete_neither_lose_nor_double_nor_mix_anything(
    database: Database, relays: Relays
) -> None:
    limits = replace(Limits(), relay_batch_events_max=7)
    several = [await relays.open(limits) for _ in range(3)]
    events = [transfer_event() for _ in range(300)]
    await put(database, *[events[at : at + 5] for at in range(0, 300, 5)])

    async def compete(relay: Relay) -> None:
        while await left(database):
            await relay.relay_once()

    async with asyncio.TaskGroup() as group:
        for relay in several:
            group.create_task(compete(relay))
    assert sum(relays.batches) == 300
    arrived = [message.message_id for message in await relays.published(300)]
    assert arrived == [event["id"] for event in events]
    assert await message_count(relays.settings, relays.topology.work) == 0
