"""The topology of `make chaos`: each fault has its effect, and afterwards everything works."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from uuid import uuid4

import aiohttp
import asyncpg
import pytest
import pytest_asyncio

from loadtest.program import Program
from tests.fault.chaos.faults import FAULTS
from tests.fault.chaos.topology import ChaosDeployment, chaos_deployment
from tests.support.api import Api
from tests.support.proxy import Cut, Flow, Full, Proxy
from tests.support.waiting import SLOWNESS, patient_s, until
from transferd.devstack import Server
from transferd.devstack.process import process_table

# One topology serves all tests of this file, which run on its loop.
pytestmark = pytest.mark.asyncio(loop_scope="module")

# Short timeouts, so that each request fails within a second or two.
_IMPATIENT = {
    "request_deadline_s": 1.7,
    "mailbox_wait_s": 0.8,
    "statement_timeout_s": 0.6,
    "command_timeout_s": 0.8,
    "idle_in_transaction_timeout_s": 0.5,
    "relay_publish_timeout_s": 0.3,
    "lock_timeout_s": 0.2,
    "pool_acquire_timeout_s": 0.5,
    "amqp_timeout_s": 1.5,
    "claim_ttl_s": 1.0,
}
# No request is in flight when these tests stop a replica, so a drain need not linger longer than
# Nginx keeps idle connections.
_BRIEF = "nginx_keepalive_s=0.01,drain_linger_s=0.05"


@dataclass(frozen=True)
class Scene:
    """The topology, a client behind Nginx, and two wallets of which the first one pays."""

    topology: ChaosDeployment
    api: Api
    ada: str
    bob: str

    async def pays(self) -> None:
        """A transfer through the whole topology succeeds once; replicas may need a moment."""
        key = str(uuid4())

        async def is_paid() -> bool:
            with suppress(aiohttp.ClientError, TimeoutError):
                reply = await self.api.transfer(self.ada, self.bob, 1, key=key, reference=key)
                return reply.status == 201
            return False

        await until(is_paid, within_s=20)
        assert await self.count(key) == 1

    async def count(self, reference: str) -> int:
        """How many transfers have this reference in PostgreSQL."""
        sql = "SELECT count(*) FROM ledger_00.transfers WHERE reference = $1"
        return int(await self.value(sql, reference))

    async def value(self, sql: str, *arguments: object) -> int:
        """The result of a query that passes no proxy."""
        connection = await asyncpg.connect(self.topology.postgres.url)
        try:
            return int(await connection.fetchval(sql, *arguments))
        finally:
            await connection.close()

    async def is_balanced(self) -> bool:
        """Whether no money was made or lost."""
        return await self.value("SELECT sum(balance)::bigint FROM ledger_00.wallets") == 0

    def direct(self, replica: str) -> Api:
        """A client of one replica, past Nginx."""
        return Api(self.api.session, self.topology.programs[replica].url)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    """One topology for all tests of this file."""
    directory = tmp_path_factory.mktemp("chaos")
    limits = ",".join(f"{name}={seconds * SLOWNESS}" for name, seconds in _IMPATIENT.items())
    limits += f",{_BRIEF}"
    timeout = aiohttp.ClientTimeout(patient_s(15))
    async with (
        chaos_deployment(directory, limits=limits) as topology,
        aiohttp.ClientSession(timeout=timeout) as session,
    ):
        api = Api(session, topology.url)
        yield Scene(topology, api, await api.wallet(1_000_000), await api.wallet())


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def healed(scene: Scene) -> AsyncIterator[None]:
    """Each test leaves everything ready, balanced and able to pay."""
    yield
    await scene.topology.heal()
    await scene.topology.until_ready()
    await scene.pays()
    assert await scene.is_balanced()


async def test_a_transfer_goes_through_every_link(scene: Scene) -> None:
    # Wallets of both replicas take part, so that each has work.
    wallets = [await scene.api.wallet(10) for _ in range(8)]
    for wallet in wallets:
        assert (await scene.api.transfer(wallet, scene.bob, 1)).status == 201

    async def is_empty() -> bool:
        return await scene.value("SELECT count(*) FROM ledger_00.outbox") == 0

    # Events have reached RabbitMQ by way of the worker.
    await until(is_empty)
    unused = [name for name, proxy in scene.topology.links.items() if not proxy.links]
    assert unused == []
    pids = [program.pid for program in scene.topology.programs.values()]
    assert len({pid for pid in pids if pid in process_table()}) == 3


# PostgreSQL


@pytest.mark.parametrize("cut", Cut, ids=[cut.name for cut in Cut])
async def test_clients_do_not_notice_a_cut_at_the_commit(scene: Scene, cut: Cut) -> None:
    proxies = _postgres_links(scene)
    before = sum(proxy.cuts for proxy in proxies)
    for proxy in proxies:
        proxy.arm(cut)
    reply = await scene.api.transfer(scene.ada, scene.bob, 1, reference=f"cut {cut.name}")
    assert sum(proxy.cuts for proxy in proxies) == before + 1
    assert (reply.status, await scene.count(f"cut {cut.name}")) == (201, 1)


@pytest.mark.parametrize("step", Full, ids=[step.name for step in Full])
async def test_a_full_disk_fails_and_loses_nothing(scene: Scene, step: Full) -> None:
    proxies = _postgres_links(scene)
    key = f"full disk at {step.name}"
    for proxy in proxies:
        proxy.fill_disk(step, times=1_000)
    reply = await scene.api.transfer(scene.ada, scene.bob, 1, key=key, reference=key)
    assert reply.status in {503, 504}, reply
    assert reply.code in {"database-unavailable", "overloaded", "deadline-exceeded"}
    assert sum(proxy.failed_writes for proxy in proxies) > 0
    assert await scene.count(key) == 0
    await scene.topology.heal()
    await until(lambda: _is_repeated(scene, key))
    assert await scene.count(key) == 1


async def _is_repeated(scene: Scene, key: str) -> bool:
    return (await scene.api.transfer(scene.ada, scene.bob, 1, key=key, reference=key)).status == 201


def _postgres_links(scene: Scene) -> list[Proxy]:
    return [scene.topology.links[f"{name}-postgres"] for name in scene.topology.replicas]


# The clock


@pytest.mark.parametrize("hours", [-30, 5])
async def test_only_the_clock_of_one_replica_jumps(scene: Scene, hours: int) -> None:
    replica = scene.direct("replica-1")
    assert abs(_made_at(await replica.user()) - datetime.now(UTC)) < timedelta(minutes=1)
    scene.topology.jump_clock("replica-1", hours * 3600.0)
    jumped = datetime.now(UTC) + timedelta(hours=hours)
    assert abs(_made_at(await replica.user()) - jumped) < timedelta(minutes=1)
    reply = await replica.transfer(scene.ada, scene.bob, 1)
    assert reply.status == 201
    assert abs(_made_at(reply.json["id"]) - jumped) < timedelta(minutes=1)
    # Both replicas show the same transfer.
    shown = await scene.direct("replica-2").get(f"/transfers/{reply.json['id']}")
    assert shown.json == reply.json
    await scene.topology.until_ready()


def _made_at(id: str) -> datetime:
    """The time in a UUIDv7."""
    return datetime.fromtimestamp(int(id.replace("-", "")[:12], 16) / 1000, UTC)


# The faults


# Other tests kill RabbitMQ: tests/fault/test_broker_outage.py.
_TRIED = [name for name in FAULTS if not name.startswith(("outage", "two", "kill-rabbitmq"))]


async def _is_cut_off(proxy: Proxy) -> bool:
    """Whether a new connection is refused or gets no answer."""
    try:
        reader, writer = await asyncio.open_connection(*proxy.address.split(":"))
    except ConnectionRefusedError:
        return True
    try:
        writer.write(b"PING\r\n")
        await asyncio.wait_for(reader.read(100), 0.3)
    except TimeoutError:
        return True
    finally:
        writer.close()
    return False


@pytest.mark.parametrize("name", _TRIED)
async def test_a_fault_begins_and_ends(scene: Scene, name: str) -> None:
    processes: list[Program | Server] = [
        *scene.topology.programs.values(),
        *scene.topology.servers.values(),
    ]
    before = {(part.pid, part.port) for part in processes}
    async with FAULTS[name].inject(scene.topology, Random(name)) as said:
        link = scene.topology.links.get(said.partition(" ")[0])
        is_outage = name.startswith("blackhole") or "refuses" in said
        assert link is None or await _is_cut_off(link) is is_outage
        states = [process_table()[part.pid].state for part in processes if part.pid]
    assert {proxy.flow for proxy in scene.topology.links.values()} == {Flow.OPEN}
    await scene.topology.until_ready()
    await scene.pays()
    changed = before - {(part.pid, part.port) for part in processes}
    if name.startswith("kill"):
        assert (len(changed), len(states)) == (1, len(processes) - 1)
    elif name.startswith("hang"):
        assert (len(changed), states.count("T")) == (0, 1)
