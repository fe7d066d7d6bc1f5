"""RabbitMQ goes away and comes back. Each test kills a broker: this module has one of its own."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from itertools import pairwise

import pytest

from tests.conftest import Database, Replicas, Workers
from tests.support.api import Api
from tests.support.endpoints import letters
from tests.support.notifying import QUICK, Scene
from tests.support.queues import publish, queue_names, take, topology_of
from tests.support.receivers import Receiver
from tests.support.truth import row_count
from tests.support.waiting import until
from transferd.devstack import RabbitServer
from transferd.notifications.rabbit import RabbitBroker

_OUTAGE_S = 10.0
_PAYERS = 6
# Some 150 transfers/s: the receiver keeps up with that, and gets 1,500 at once afterwards.
_PAUSE_S = 0.03
# Looks for the broker often, so that the test need not wait for it.
LIMITS = replace(QUICK, relay_wait_max_s=0.3, amqp_timeout_s=2.0)


@pytest.fixture(scope="module")
def own_rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitServer]:
    server = RabbitServer(tmp_path_factory.mktemp("own-rabbitmq"))
    asyncio.run(server.start())
    try:
        yield server
    finally:
        asyncio.run(server.stop())


@pytest.fixture
async def scene(database: Database, own_rabbitmq: RabbitServer) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as exits:
        workers = Workers(database, own_rabbitmq.url, exits)
        exits.push_async_callback(workers.remove_queues)
        yield Scene(database, workers.settings, exits)


class Traffic:
    """Transfers in a ring until told to stop."""

    def __init__(self, api: Api, wallets: list[str]) -> None:
        self.count = 0
        self._api = api
        self._wallets = wallets
        self._is_over = False
        self._tasks = [asyncio.create_task(self._pay(n)) for n in range(_PAYERS)]

    async def _pay(self, number: int) -> None:
        while not self._is_over:
            source, destination = (self._wallets[(number + n) % len(self._wallets)] for n in (0, 1))
            reply = await self._api.transfer(source, destination, 1)
            assert reply.status == 201, reply
            self.count += 1
            await asyncio.sleep(_PAUSE_S)

    async def stop(self) -> None:
        self._is_over = True
        await asyncio.gather(*self._tasks)


async def all_events(database: Database) -> set[str]:
    """The ids of every event that the ledger knows of."""
    rows = await database.fetch(
        "SELECT id::text FROM ledger_00.transfers UNION ALL"
        " SELECT wallet_id || ':' || version FROM ledger_00.wallet_changes c"
        " WHERE EXISTS (SELECT FROM ledger_00.wallets w WHERE w.id = c.wallet_id AND NOT funding)"
        " UNION ALL SELECT id::text FROM transferd.users"
    )
    return {row[0] for row in rows}


def firsts_in_order(receiver: Receiver) -> bool:
    """Whether the first arrival of each event of a wallet came behind those of lower versions."""
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


async def test_a_broker_that_is_killed_under_load_costs_no_event_and_no_order(
    scene: Scene, replicas: Replicas, own_rabbitmq: RabbitServer
) -> None:
    api = await replicas.start()
    wallets = [await api.wallet(1_000_000) for _ in range(_PAYERS)]
    receiver, webhook = await scene.receiver()
    worker = await scene.start(LIMITS)
    traffic = Traffic(api, wallets)
    await until(lambda: len(receiver.received) > 50)

    await own_rabbitmq.kill()
    during = traffic.count
    down_until = time.monotonic() + _OUTAGE_S
    await until(lambda: "relay" in worker.complaints() and "consumer" in worker.complaints())
    assert (await api.get("/readyz")).status == 200, "transfers need no broker"
    # Transfers go on.
    await until(lambda: time.monotonic() > down_until and traffic.count > during + 500)
    await own_rabbitmq.start()
    await until(lambda: worker.complaints() == {})
    await traffic.stop()

    events = await all_events(scene.database)
    await until(lambda: set(receiver.event_ids()) >= events, within_s=30)
    assert set(receiver.event_ids()) == events
    assert firsts_in_order(receiver)

    async def recorded() -> set[tuple[str, int]]:
        rows = await scene.database.fetch(
            "SELECT event_id, status FROM transferd.deliveries WHERE endpoint_id::text = $1",
            webhook,
        )
        return {(row[0], row[1]) for row in rows}

    async def all_are_recorded() -> bool:
        return len(await recorded()) >= len(events)

    # A result is written after the receiver has answered.
    await until(all_are_recorded)
    assert await recorded() == {(event, 1) for event in events}, "each as delivered, once"
    assert await row_count(scene.database, "ledger_00.outbox") == 0
    assert await letters(scene.database) == []


async def test_a_broker_that_is_killed_as_soon_as_it_is_declared_keeps_every_queue(
    scene: Scene, own_rabbitmq: RabbitServer
) -> None:
    # Not among the settings whose queues are removed: what the broker has lost it cannot delete.
    settings = scene.database.settings(
        amqp_url=own_rabbitmq.url, amqp_prefix="killed.", notify_retry_delays_s="600,700"
    )
    topology = topology_of(settings)
    used = [name for name in queue_names(settings) if name != topology.seal]
    async with RabbitBroker(own_rabbitmq.url, topology, LIMITS, "test"):
        for name in used:
            await publish(settings, name, b"precious")
        await own_rabbitmq.kill()
    await own_rabbitmq.start()
    for name in used:
        [message] = await take(settings, name, 1)
        assert message.body == b"precious"
    # The next connection can declare and use all of it again.
    async with RabbitBroker(own_rabbitmq.url, topology, LIMITS, "test"):
        for name in used:
            await publish(settings, name, b"precious")


async def test_a_broker_that_is_away_at_the_start_is_waited_for(
    scene: Scene, replicas: Replicas, own_rabbitmq: RabbitServer
) -> None:
    api = await replicas.start()
    receiver, _ = await scene.receiver("transfer.posted")
    await own_rabbitmq.kill()
    worker = await scene.start(LIMITS)
    await until(lambda: "RabbitMQ is out of reach" in worker.complaints().get("relay", ""))
    assert "RabbitMQ is out of reach" in worker.complaints()["consumer"]
    async with api.session.get(f"{worker.url}/readyz") as reply:
        assert reply.status == 503
        assert "relay" in (await reply.json())["why"]
    a, b = await api.wallet(100), await api.wallet()
    assert (await api.transfer(a, b, 1)).status == 201
    assert await row_count(scene.database, "ledger_00.outbox") > 0, "the outbox holds it"

    await own_rabbitmq.start()
    await until(lambda: worker.complaints() == {})
    await until(lambda: len(receiver.received) == 2)
    async with api.session.get(f"{worker.url}/readyz") as reply:
        assert reply.status == 200
