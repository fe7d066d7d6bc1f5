"""The stage of `make chaos`: each trouble is what it says, and afterwards all works again."""

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

from tests.fault.chaos.faults import FAULTS
from tests.fault.chaos.topology import ChaosDeployment, chaos_deployment
from tests.support.api import Api
from tests.support.proxy import Cut, Flow, Full, Proxy
from tests.support.waiting import SLOWNESS, patient_s, until
from transferd.devstack import StackError
from transferd.devstack.process import process_table

# One topology serves all tests of this file, which run on its loop.
pytestmark = pytest.mark.asyncio(loop_scope="module")

# Short, so that those who have to give up do so within a second or two.
_IMPATIENT = {
    "request_deadline_s": 2.5,
    "mailbox_wait_s": 0.8,
    "statement_timeout_s": 0.6,
    "command_timeout_s": 0.8,
    "idle_in_transaction_timeout_s": 0.5,
    "relay_publish_timeout_s": 0.3,
    "lock_timeout_s": 0.2,
    "pool_acquire_timeout_s": 0.5,
    "amqp_timeout_s": 1.5,
    "claim_ttl_s": 1.0,
    "drain_linger_s": 2.1,
}


@dataclass(frozen=True)
class Scene:
    """The topology, a client behind Nginx, and two wallets of which the first one pays."""

    topology: ChaosDeployment
    api: Api
    ada: str
    bob: str

    async def pays(self) -> None:
        """A transfer through everything works, and is there once; replicas may need a moment."""
        key = str(uuid4())

        async def is_paid() -> bool:
            with suppress(aiohttp.ClientError, TimeoutError):
                reply = await self.api.transfer(self.ada, self.bob, 1, key=key, reference=key)
                return reply.status == 201
            return False

        await until(is_paid, within_s=20)
        assert await self.count(key) == 1

    async def count(self, reference: str) -> int:
        """How many transfers carry this reference, by PostgreSQL itself."""
        sql = "SELECT count(*) FROM ledger_00.transfers WHERE reference = $1"
        return int(await self.value(sql, reference))

    async def value(self, sql: str, *arguments: object) -> int:
        """What a query answers, past all proxies."""
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
    """Everything, once for this file."""
    directory = tmp_path_factory.mktemp("chaos")
    limits = ",".join(f"{name}={seconds * SLOWNESS}" for name, seconds in _IMPATIENT.items())
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


# The parts


@pytest.mark.parametrize(
    "name", ["replica-1", "replica-2", "worker", "postgres", "redis", "rabbitmq"]
)
async def test_a_killed_part_comes_back(scene: Scene, name: str) -> None:
    part = scene.topology.part(name)
    before = (part.pid, part.port)
    await scene.topology.part(name).kill()
    assert part.pid is None
    await scene.topology.restart(name)
    assert (part.pid != before[0], part.port) == (True, before[1])
    await scene.topology.until_ready()
    await scene.pays()


@pytest.mark.parametrize("name", ["replica-1", "worker", "postgres", "redis", "rabbitmq"])
async def test_a_paused_part_stands_still_and_goes_on(scene: Scene, name: str) -> None:
    part = scene.topology.part(name)
    pid = part.pid
    assert pid is not None
    scene.topology.part(name).pause()
    assert process_table()[pid].state == "T"
    if name in scene.topology.programs:
        with pytest.raises(StackError, match=rf"not ready within 0\.1 s: <Program {name} "):
            await scene.topology.until_ready(0.1)
    scene.topology.part(name).resume()
    await scene.topology.until_ready()
    assert part.pid == pid


async def test_a_program_that_ends_by_itself_is_started_again(scene: Scene) -> None:
    program = scene.topology.programs["replica-1"]
    crashes, pid = program.crashes, program.pid
    # It cannot start without PostgreSQL.
    await scene.topology.part("postgres").kill()
    await scene.topology.part("replica-1").kill()
    await scene.topology.restart("replica-1")
    await until(lambda: program.crashes > crashes)
    await scene.topology.restart("postgres")
    await scene.topology.until_ready()
    assert program.pid != pid


# The links


async def _reads(connection: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> bytes:
    return await asyncio.wait_for(connection[0].read(100), patient_s(5))


async def _is_silent(proxy: Proxy) -> bool:
    """Whether a new connection is taken and nothing comes of it."""
    reader, writer = await asyncio.open_connection(*proxy.address.split(":"))
    try:
        writer.write(b"PING\r\n")
        await asyncio.wait_for(reader.read(100), 0.3)
    except TimeoutError:
        return True
    finally:
        writer.close()
    return False


async def test_a_stalled_link_delivers_later_what_was_sent(scene: Scene) -> None:
    proxy = scene.topology.links["replica-1-redis"]
    reader, writer = await asyncio.open_connection(*proxy.address.split(":"))
    proxy.stall()
    writer.write(b"PING\r\n")
    assert await _is_silent(proxy)
    proxy.resume()
    assert await _reads((reader, writer)) == b"+PONG\r\n"
    writer.close()


async def test_a_black_hole_swallows_and_cuts_afterwards(scene: Scene) -> None:
    proxy = scene.topology.links["replica-1-redis"]
    reader, writer = await asyncio.open_connection(*proxy.address.split(":"))
    writer.write(b"PING\r\n")
    assert await _reads((reader, writer)) == b"+PONG\r\n"
    proxy.swallow()
    writer.write(b"PING\r\n")
    assert await _is_silent(proxy)
    proxy.resume()
    assert await _reads((reader, writer)) == b""
    assert not await _is_silent(proxy)
    writer.close()


async def test_a_refusing_link_cuts_and_lets_nobody_in(scene: Scene) -> None:
    proxy = scene.topology.links["replica-1-redis"]
    reader, writer = await asyncio.open_connection(*proxy.address.split(":"))
    await proxy.refuse()
    assert await _reads((reader, writer)) == b""
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*proxy.address.split(":"))
    await proxy.heal()
    assert not await _is_silent(proxy)


async def test_a_slow_link_delivers_in_order(scene: Scene) -> None:
    proxy = scene.topology.links["replica-1-redis"]
    reader, writer = await asyncio.open_connection(*proxy.address.split(":"))
    clock = asyncio.get_running_loop().time
    began = clock()
    proxy.delay_s = 0.1
    for number in range(20):
        writer.write(b"ECHO %d\r\n" % number)
        await asyncio.sleep(0)
    proxy.delay_s = 0.0
    answers = [await reader.readline() for _ in range(40)]
    assert answers[1::2] == [b"%d\r\n" % number for number in range(20)]
    assert clock() - began >= 0.1
    writer.close()


@pytest.mark.parametrize("cut", Cut, ids=[cut.name for cut in Cut])
async def test_a_cut_at_the_commit_is_noticed_by_nobody(scene: Scene, cut: Cut) -> None:
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


# Redis and the clock


async def test_redis_is_flushed_and_starved(scene: Scene) -> None:
    await scene.api.get(f"/wallets/{scene.ada}")
    await scene.topology.flush_redis()
    await scene.pays()
    await scene.topology.starve_redis()
    await scene.pays()
    await scene.topology.feed_redis()
    await scene.pays()
    balance = await scene.value("SELECT balance FROM ledger_00.wallets WHERE id = $1", scene.ada)
    assert await scene.api.balance(scene.ada) == balance


@pytest.mark.parametrize("hours", [-30, 5])
async def test_a_clock_jumps_and_nothing_else_does(scene: Scene, hours: int) -> None:
    replica = scene.direct("replica-1")
    assert abs(_made_at(await replica.user()) - datetime.now(UTC)) < timedelta(minutes=1)
    scene.topology.jump_clock("replica-1", hours * 3600.0)
    jumped = datetime.now(UTC) + timedelta(hours=hours)
    assert abs(_made_at(await replica.user()) - jumped) < timedelta(minutes=1)
    reply = await replica.transfer(scene.ada, scene.bob, 1)
    assert reply.status == 201
    assert abs(_made_at(reply.json["id"]) - jumped) < timedelta(minutes=1)
    # Both replicas agree on what happened.
    shown = await scene.direct("replica-2").get(f"/transfers/{reply.json['id']}")
    assert shown.json == reply.json
    await scene.topology.until_ready()


def _made_at(id: str) -> datetime:
    """The time in a UUIDv7."""
    return datetime.fromtimestamp(int(id.replace("-", "")[:12], 16) / 1000, UTC)


# The faults


@pytest.mark.parametrize(
    "name",
    [
        *(name for name in FAULTS if not name.startswith(("outage", "kill", "two"))),
        *(["two-at-once"] * 3),
    ],
)
async def test_a_fault_strikes_and_is_over(scene: Scene, name: str) -> None:
    number = scene.topology.links["nginx-replica-1"].cuts
    async with FAULTS[name].strike(scene.topology, Random(f"{name}-{number}")) as said:
        assert said
    assert {proxy.flow for proxy in scene.topology.links.values()} == {Flow.OPEN}
    await scene.topology.until_ready()
    await scene.pays()
