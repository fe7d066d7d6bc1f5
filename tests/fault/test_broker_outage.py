"""RabbitMQ is killed and comes back. It is the broker of the run, which no other test uses now."""

from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from itertools import pairwise

import pytest

from tests.conftest import Database, Replicas, Workers
from tests.support.endpoints import letters
from tests.support.load import Load
from tests.support.notifying import QUICK, Scene
from tests.support.queues import publish, queue_names, remove_queues, take, topology_of
from tests.support.receivers import Receiver
from tests.support.truth import row_count
from tests.support.waiting import until
from transferd.devstack import RabbitServer
from transferd.notifications.rabbit import RabbitBroker

_PAYERS = 6
# Short waits between connection attempts, and several batches after an outage.
LIMITS = replace(QUICK, relay_wait_max_s=0.3, amqp_timeout_s=2.0, relay_batch_events_max=100)


@pytest.fixture
async def broker(rabbitmq: RabbitServer) -> AsyncIterator[RabbitServer]:
    """The broker, which the test may kill."""
    yield rabbitmq
    await rabbitmq.start()


@pytest.fixture
async def scene(database: Database, workers: Workers, broker: RabbitServer) -> AsyncIterator[Scene]:
    # `workers` comes before `broker`, so it removes queues when the broker runs again.
    assert broker.url == workers.amqp_url
    async with AsyncExitStack() as exits:
        yield Scene(database, workers.settings, exits)


async def all_events(database: Database) -> set[str]:
    """The ids of all events that the ledger implies."""
    rows = await database.fetch(
        "SELECT id::text FROM ledger_00.transfers UNION ALL"
        " SELECT wallet_id || ':' || version FROM ledger_00.wallet_changes c"
        " WHERE EXISTS (SELECT FROM ledger_00.wallets w WHERE w.id = c.wallet_id AND NOT funding)"
        " UNION ALL SELECT id::text FROM ledger_00.users"
    )
    return {row[0] for row in rows}


def firsts_in_order(receiver: Receiver) -> bool:
    """Whether the events of each wallet first arrived in the order of its versions."""
    versions: dict[str, list[int]] = defaultdict(list)
    seen = set()
    for request in receiver.received:
        if request.event_id in seen or not request.json["type"].startswith("transfer."):
            continue
        seen.add(request.event_id)
        data = request.json["data"]
        for side in ("source", "destination"):
            versions[data[f"{side}_wallet_id"]].append(data[f"{side}_version"])
    return all(a < b for each in versions.values() for a, b in pairwise(each))


async def test_a_broker_that_is_killed_under_load_keeps_all_events_and_their_order(
    scene: Scene, replicas: Replicas, broker: RabbitServer
) -> None:
    api = await replicas.start()
    wallets = [await api.wallet(1_000_000) for _ in range(_PAYERS)]
    receiver, webhook = await scene.receiver()
    worker = await scene.start(LIMITS)
    loads = [Load(api, wallets[n - 1], wallets[n], name=f"load-{n}") for n in range(_PAYERS)]
    for load in loads:
        load.start(workers=1)
    await until(lambda: len(receiver.received) > 50)

    def acknowledged() -> int:
        return sum(len(load.acknowledged) for load in loads)

    await broker.kill()
    during = acknowledged()
    await until(lambda: "relay" in worker.complaints() and "consumer" in worker.complaints())
    assert (await api.get("/readyz")).status == 200, "transfers need no broker"
    # Transfers go on.
    await until(lambda: acknowledged() > during + 300)
    await broker.start()
    await until(lambda: worker.complaints() == {})
    for load in loads:
        await load.stop()
        assert set(load.statuses) == {201}

    events = await all_events(scene.database)
    await until(lambda: set(receiver.event_ids()) >= events, within_s=30)
    assert set(receiver.event_ids()) == events
    assert firsts_in_order(receiver)

    async def recorded() -> set[tuple[str, int]]:
        rows = await scene.database.fetch(
            "SELECT event_id, status FROM ledger_00.deliveries WHERE endpoint_id::text = $1",
            webhook,
        )
        return {(row[0], row[1]) for row in rows}

    async def all_are_recorded() -> bool:
        return len(await recorded()) >= len(events)

    # A result is written after the receiver has answered.
    await until(all_are_recorded)
    assert await recorded() == {(event, 1) for event in events}, "one delivered row for each"
    assert await row_count(scene.database, "ledger_00.outbox") == 0
    assert await letters(scene.database) == []


async def test_a_killed_broker_keeps_every_queue_and_a_worker_may_start_without_it(
    scene: Scene, replicas: Replicas, broker: RabbitServer
) -> None:
    # The fixture does not remove these queues: the broker cannot delete a queue that it has lost.
    settings = scene.database.settings(
        amqp_url=broker.url, amqp_prefix="killed.", notify_retry_delays_s="600,700"
    )
    topology = topology_of(settings)
    used = [name for name in queue_names(settings) if name != topology.seal]
    api = await replicas.start()
    receiver, _ = await scene.receiver("transfer.posted")
    # Killed as soon as the queues are declared.
    async with RabbitBroker(broker.url, topology, LIMITS, "test"):
        for name in used:
            await publish(settings, name, b"precious")
        await broker.kill()

    worker = await scene.start(LIMITS)
    await until(lambda: "RabbitMQ is out of reach" in worker.complaints().get("relay", ""))
    assert "RabbitMQ is out of reach" in worker.complaints()["consumer"]
    async with api.session.get(f"{worker.url}/readyz") as reply:
        assert reply.status == 503
        assert "relay" in (await reply.json())["why"]
    a, b = await api.wallet(100), await api.wallet()
    assert (await api.transfer(a, b, 1)).status == 201
    assert await row_count(scene.database, "ledger_00.outbox") > 0, "the event is in the outbox"

    await broker.start()
    await until(lambda: worker.complaints() == {})
    await until(lambda: len(receiver.received) == 2)
    async with api.session.get(f"{worker.url}/readyz") as reply:
        assert reply.status == 200
    for name in used:
        [message] = await take(settings, name, 1)
        assert message.body == b"precious"
    # The next connection can declare and use all of it again.
    async with RabbitBroker(broker.url, topology, LIMITS, "test"):
        for name in used:
            await publish(settings, name, b"precious")
    await remove_queues(broker.url, [settings])
