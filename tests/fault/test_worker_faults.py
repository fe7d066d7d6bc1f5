"""Workers that are killed or lose a connection lose no event."""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import aio_pika
import orjson
import pytest

from tests.conftest import Database, Workers
from tests.support.command import Command, running
from tests.support.endpoints import letters
from tests.support.home import proxied
from tests.support.notifying import QUICK, Scene, has_received
from tests.support.outbox import left, put, transfer_event
from tests.support.proxy import Cut, Proxy
from tests.support.queues import bound_queue, message_count, take, topology_of
from tests.support.receivers import after
from tests.support.store import open_main
from tests.support.waiting import SLOWNESS, until
from transferd.domain.ledger import MAIN
from transferd.domain.webhook import DeliveryStatus
from transferd.ledger.ids import new_id
from transferd.ledger.store.dead_letters import Filter
from transferd.ledger.store.deliveries import LOG
from transferd.notifications.dead_letters import redrive
from transferd.worker import open_worker

# Events in one row of the outbox, while relays take one row at a time.
_BATCH = 10
# Reconnects at once, because the tests often cut the connection.
HASTY = replace(QUICK, relay_wait_first_s=0.02, relay_wait_max_s=0.05)


@pytest.fixture
async def scene(database: Database, workers: Workers) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as exits:
        yield Scene(database, workers.settings, exits)


def environment(scene: Scene) -> dict[str, str]:
    """The settings of a worker that is a process."""
    settings = scene.settings_with()
    return scene.database.variables() | {
        "TRANSFERD_AMQP_URL": settings.required("amqp_url"),
        "TRANSFERD_AMQP_PREFIX": settings.amqp_prefix,
        "TRANSFERD_WORKER_PORT": "0",
        "TRANSFERD_NOTIFY_LOG": "false",
        "TRANSFERD_NOTIFY_RETRY_DELAYS_S": settings.notify_retry_delays_s,
        "TRANSFERD_WEBHOOK_ALLOW_HTTP": "true",
        "TRANSFERD_WEBHOOK_ALLOW_NETWORKS": "127.0.0.0/8",
    }


async def log_of(database: Database) -> Counter[tuple[int, int]]:
    """How many deliveries have each (status, attempts)."""
    rows = await database.fetch("SELECT status, attempts FROM ledger_00.deliveries")
    return Counter((row[0], row[1]) for row in rows)


async def has_log(database: Database, status: int, count: int) -> bool:
    return sum(n for key, n in (await log_of(database)).items() if key[0] == status) == count


@pytest.mark.parametrize("cut", [Cut.BEFORE, Cut.IN_FLIGHT, Cut.AFTER])
async def test_a_relay_that_is_cut_off_between_publish_and_delete_repeats_at_most(
    cut: Cut, scene: Scene
) -> None:
    receiver, webhook = await scene.receiver()
    events = [transfer_event() for _ in range(40)]
    settings = scene.settings_with()
    async with (
        proxied(scene.database) as proxy,
        bound_queue(settings) as public,
    ):
        settings = scene.settings_with(database_url=proxy.url)
        async with open_worker(settings, HASTY, only="relay") as relay:
            await until(lambda: relay.complaints() == {})
            proxy.arm(cut)
            await put(scene.database, events)
            await until(lambda: proxy.cuts == 1)
            await until(lambda: relay.complaints() == {})
            await scene.relayed()
        published = await message_count(settings, public)
        assert published == len(events) if cut is Cut.AFTER else published >= len(events)
        if cut is Cut.BEFORE:
            assert published == 2 * len(events), "the fault happened"
    async with scene.working(HASTY):
        await until(has_received(receiver, len(events)))
        for event in events:
            await scene.ends(webhook, event, DeliveryStatus.DELIVERED)
    assert Counter(receiver.event_ids()) == Counter(event["id"] for event in events)


async def test_many_cuts_of_the_connection_lose_no_delivery(scene: Scene) -> None:
    """Each cut returns the message that a worker holds; returns are not limited."""
    receiver, _ = await scene.receiver()
    may_end = asyncio.Event()
    receiver.answer = after(may_end)
    async with (
        Proxy(scene.settings_with().required("amqp_url")) as proxy,
        scene.working(replace(HASTY, webhook_timeout_s=60.0), amqp_url=proxy.url) as worker,
    ):
        await scene.put(*(transfer_event() for _ in range(5)))
        await until(has_received(receiver, 5))
        # More often than RabbitMQ 4 returns a message by default.
        for _ in range(25):
            proxy.cut_all()
            await until(lambda: worker.complaints() != {})
            await until(lambda: worker.complaints() == {})
        may_end.set()

        async def are_over() -> bool:
            return await has_log(scene.database, 1, 5)

        await until(are_over)
    assert await letters(scene.database) == []
    assert Counter(receiver.event_ids()).most_common(1)[0][1] == 1


async def test_a_worker_that_stands_by_takes_over_at_once(scene: Scene) -> None:
    """The message that the killed worker held makes the other one read the due rows."""
    receiver, webhook = await scene.receiver()
    events = [transfer_event() for _ in range(20)]
    may_end = asyncio.Event()
    receiver.answer = after(may_end)
    async with running("worker", settings=environment(scene)) as first:
        await until(lambda: _are_up(first))
        await scene.put(*events)
        await until(has_received(receiver, 8))
        # No sweep runs during the test, and no further event wakes the worker up.
        async with scene.working(replace(HASTY, delivery_sweep_interval_s=3600.0)) as second:
            await until(lambda: second.complaints() == {})
            first.send(signal.SIGKILL)
            assert await first.end() == -signal.SIGKILL
            may_end.set()
            for event in events:
                await scene.ends(webhook, event, DeliveryStatus.DELIVERED)
    assert set(receiver.event_ids()) == {event["id"] for event in events}


async def test_a_fail_rate_delivers_all_in_a_geometric_number_of_attempts(scene: Scene) -> None:
    count, rate = 2_000, 0.3
    delays = ",".join(f"{0.05 * n:.2f}" for n in range(1, 14))
    rows = ([transfer_event() for _ in range(50)] for _ in range(count // 50))
    await put(scene.database, *rows)
    async with scene.working(notify_log=True, notify_fail_rate=rate, notify_retry_delays_s=delays):

        async def are_delivered() -> bool:
            return await has_log(scene.database, 1, count)

        await until(are_delivered, within_s=60)
    log = await log_of(scene.database)
    # Attempts are geometric: n of them with probability 0.7 * 0.3^(n-1). Five standard deviations
    # of a binomial count are missed once in a million runs.
    for least in (2, 3):
        share = rate ** (least - 1)
        found = sum(n for (_, attempts), n in log.items() if attempts >= least)
        assert abs(found - count * share) < 5 * (count * share * (1 - share)) ** 0.5, log
    assert await letters(scene.database) == []


async def test_a_fail_rate_of_one_kills_all_and_a_redrive_delivers_all(scene: Scene) -> None:
    events = [transfer_event() for _ in range(200)]
    await scene.put(*events)
    delays = "0.05,0.1"
    async with scene.working(notify_log=True, notify_fail_rate=1.0, notify_retry_delays_s=delays):
        await scene.has_letters(len(events))
    found = await letters(scene.database)
    assert {letter.event for letter in found} == {event["id"] for event in events}
    assert {(letter.reason, letter.attempts) for letter in found} == {("attempts exhausted", 3)}
    assert all("simulated" in letter.detail for letter in found)

    async with open_main(scene.database.settings()) as store:
        redriven = await redrive(store, Filter(), lambda done, total: None)
    assert redriven.sent == len(events)
    assert await letters(scene.database) == []
    async with scene.working(notify_log=True, notify_retry_delays_s=delays):
        for event in events:
            await scene.ends(LOG, event, DeliveryStatus.DELIVERED)
    assert await log_of(scene.database) == {(1, 4): len(events)}


async def test_while_the_work_queue_is_full_the_rows_wait(scene: Scene) -> None:
    receiver, webhook = await scene.receiver()
    limits = replace(HASTY, work_queue_messages_max=1, delivery_sweep_interval_s=0.2)
    settings = scene.settings_with(notify_log=False)
    events = [transfer_event() for _ in range(30)]
    async with open_worker(settings, limits, only="relay") as relay:
        for event in events:
            await put(scene.database, [event])
            await scene.relayed()
        assert relay.complaints() == {}
    # The broker notices a full queue with a delay.
    work = topology_of(settings).work_queue(scene.database.ledger.number)
    assert await message_count(settings, work) < len(events)
    async with open_worker(settings, limits, only="notifier"):
        for event in events:
            await scene.ends(webhook, event, DeliveryStatus.DELIVERED)
    assert receiver.event_ids() == [event["id"] for event in events]


async def test_another_topology_ends_the_worker_with_one_line(scene: Scene) -> None:
    settings = scene.settings_with()
    work = topology_of(settings).work_queues[0]
    async with await aio_pika.connect(settings.required("amqp_url")) as connection:
        channel = await connection.channel()
        await channel.declare_queue(work, durable=True, arguments={"x-queue-type": "quorum"})
    async with running("worker", settings=environment(scene)) as command:
        assert await command.end() == 1
        [line] = [text for text in command.output.splitlines() if work in text]
        assert "rabbitmqctl delete_queue" in line
        assert "TRANSFERD_AMQP_PREFIX" in line
        assert "Traceback" not in command.output


async def test_a_consumer_that_the_broker_cancels_comes_back(scene: Scene) -> None:
    receiver, _ = await scene.receiver()
    async with scene.working(replace(HASTY, relay_wait_first_s=0.2)) as worker:
        await until(lambda: worker.complaints() == {})
        settings = scene.settings_with()
        async with await aio_pika.connect(settings.required("amqp_url")) as connection:
            channel = await connection.channel()
            await channel.queue_delete(topology_of(settings).work_queues[0])
        await until(lambda: "cancelled the consumer" in worker.complaints().get("consumer", ""))
        await until(lambda: worker.complaints() == {})
        await scene.put(transfer_event())
        await until(has_received(receiver, 1))


async def test_a_connection_that_carries_no_data_is_noticed_and_replaced(scene: Scene) -> None:
    receiver, _ = await scene.receiver()
    limits = replace(HASTY, amqp_timeout_s=0.5, relay_publish_timeout_s=0.5, consumer_check_s=0.1)
    async with (
        Proxy(scene.settings_with().required("amqp_url")) as proxy,
        scene.working(limits, amqp_url=proxy.url) as worker,
    ):
        await until(lambda: worker.complaints() == {})
        proxy.stall()
        await until(lambda: "consumer" in worker.complaints())
        await scene.put(transfer_event())
        await until(lambda: "relay" in worker.complaints())
        proxy.resume()
        await until(lambda: worker.complaints() == {})
        await until(has_received(receiver, 1))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_another_relay_takes_over_in_order(number: signal.Signals, scene: Scene) -> None:
    settings = scene.settings_with()
    await scene.receiver()
    wallet, events = new_id(MAIN), 1_500
    relay = ("worker", "--only", "relay")
    variables = environment(scene)
    # Small batches, each of one row, so that it takes longer.
    variables["TRANSFERD_LIMITS"] += f",relay_batch_events_max={_BATCH}"
    # PostgreSQL ends the transaction of a relay that hangs after this time. One that ends because
    # the machine is busy is repeated.
    await scene.database.fetch(
        f"ALTER ROLE transferd IN DATABASE {scene.database.name}"
        f" SET idle_in_transaction_session_timeout = '{0.5 * SLOWNESS:.3f}s'"
    )
    async with (
        bound_queue(settings) as public,
        running(*relay, settings=variables) as first_relay,
        running(*relay, settings=variables) as second_relay,
    ):
        await until(lambda: _are_up(first_relay, second_relay))
        # In one transaction, so that the relays find all of them.
        await put(
            scene.database,
            *(
                [_numbered(wallet, version) for version in range(first, first + _BATCH)]
                for first in range(0, events, _BATCH)
            ),
        )

        async def has_begun() -> bool:
            return 0 < len(await left(scene.database)) < events // _BATCH

        await until(has_begun)
        first_relay.send(number)
        await scene.relayed(within_s=30)
        if number is signal.SIGSTOP:
            first_relay.send(signal.SIGCONT)
        taken = await take(settings, public, await message_count(settings, public))
    order = [orjson.loads(message.body)["data"]["source_version"] for message in taken]
    assert list(dict.fromkeys(order)) == list(range(events)), "first arrivals, without a gap"
    rows = await scene.database.fetch(
        "SELECT event::text FROM ledger_00.deliveries ORDER BY number"
    )
    order = [orjson.loads(row["event"])["data"]["source_version"] for row in rows]
    assert order == list(range(events)), "each once, in order"


def _numbered(wallet: str, version: int) -> dict[str, Any]:
    event = transfer_event(wallet)
    event["data"]["source_version"] = version
    return event


def _are_up(*commands: Command) -> bool:
    return all("/readyz" in command.output for command in commands)
