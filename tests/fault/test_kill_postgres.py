"""PostgreSQL is killed and comes back: no acknowledged transfer is lost or executed twice."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import Database, Replicas
from tests.fault.conftest import IMPATIENT
from tests.support.api import Api
from tests.support.load import Load
from tests.support.servers import Servers
from tests.support.truth import faults_in
from tests.support.waiting import until
from transferd.config import Limits
from transferd.devstack import PostgresServer, RedisServer


@pytest.fixture(scope="module")
def way_in(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that the user of PostgreSQL can reach; its parents are open to all users."""
    assert servers.postgres.pid is not None
    directory = tmp_path_factory.mktemp("own-postgresql")
    directory.chmod(0o711)
    return directory


@pytest.fixture(scope="module")
def own_postgres(servers: Servers, way_in: Path) -> Iterator[PostgresServer]:
    """A PostgreSQL that only this module uses; a COMMIT is written when it answers."""
    settings = {"fsync": "off", **servers.configuration.postgres}
    server = PostgresServer(way_in / "postgresql", settings=settings)
    asyncio.run(server.start())
    yield server
    asyncio.run(server.stop())


@pytest.fixture
async def postgres(own_postgres: PostgresServer) -> AsyncIterator[PostgresServer]:
    """The same, for a test that may kill or pause it."""
    yield own_postgres
    own_postgres.resume()
    await own_postgres.start()


@pytest.fixture
async def own_database(
    servers: Servers, postgres: PostgresServer, redis: RedisServer, way_in: Path
) -> AsyncIterator[Database]:
    """The migrated database of this PostgreSQL, which the tests share."""
    own = Servers(postgres, redis, servers.configuration)
    await own.start_pooler(way_in)
    database = Database("transferd", 0, own)
    await own.migrate(database.settings(), Limits())
    yield database
    await own.stop_pooler()


@pytest.fixture
async def own_replicas(own_database: Database) -> AsyncIterator[Replicas]:
    """Replicas on this database."""
    async with AsyncExitStack() as exits:
        yield Replicas(own_database, exits)


async def is_ready(api: Api, status: int = 200) -> None:
    """Wait until /readyz answers with that status."""

    async def answers() -> bool:
        reply = await api.get("/readyz")
        assert status == 200 or reply.status == 200 or reply.code == "database-unavailable"
        return reply.status == status

    await until(answers)


async def test_postgresql_is_killed_twice_under_load(
    own_database: Database, own_replicas: Replicas, postgres: PostgresServer
) -> None:
    api = await own_replicas.start()
    ada, bob = await api.wallet(1_000_000), await api.wallet()
    load = Load(api, ada, bob, name=ada)
    load.start()
    for _ in range(2):
        await load.until_acknowledged(100)
        await postgres.kill()
        await is_ready(api, 503)
        # The process itself is healthy, and reads that hit the cache are answered.
        assert (await api.get("/healthz")).status == 200
        if own_database.settings().cache:
            assert (await api.get(f"/wallets/{ada}")).headers["X-Cache"] == "hit"
        await postgres.start()
        await is_ready(api)
    await load.until_acknowledged(100)
    await load.stop()
    # The outage was shorter than the deadline: every waiting request succeeded.
    assert set(load.statuses) == {201}
    assert load.unknown == set()
    await load.assert_each_once(own_database)
    assert await api.balance(bob) == len(load.acknowledged)
    assert await faults_in(own_database) == []


async def test_after_an_outage_past_the_deadline_a_repetition_with_the_key_settles_the_outcome(
    own_database: Database, own_replicas: Replicas, postgres: PostgresServer
) -> None:
    limits = replace(IMPATIENT, request_deadline_s=1.0, command_timeout_s=0.5)
    api = await own_replicas.start(limits)
    ada, bob = await api.wallet(1_000_000), await api.wallet()
    load = Load(api, ada, bob, name=ada)
    load.start()
    await load.until_acknowledged(100)
    await postgres.kill()
    await until(lambda: load.statuses[503] >= 8)
    # On a busy machine the deadline may end an attempt; the next one gets an answer.
    while (reply := await api.transfer(ada, bob, 1)).code == "deadline-exceeded":
        assert reply.status == 504
    assert reply.code in ("database-unavailable", "overloaded")
    assert reply.headers["Retry-After"] == "1"
    read = await api.get(f"/wallets/{ada}/statement")
    assert (read.status, read.code) == (503, "database-unavailable")
    await postgres.start()
    await is_ready(api)
    await load.stop()
    assert set(load.statuses) <= {201, 503, 504}
    assert load.unknown
    await load.assert_each_once(own_database)
    await load.settle(api)
    assert load.unknown == set()
    await load.assert_each_once(own_database)
    assert await api.balance(bob) == len(load.acknowledged)
    assert await faults_in(own_database) == []


async def test_a_paused_postgresql_is_not_ready_and_comes_back(
    own_replicas: Replicas, postgres: PostgresServer
) -> None:
    api = await own_replicas.start()
    ada, bob = await api.wallet(100), await api.wallet()
    postgres.pause()
    waiting = asyncio.create_task(api.transfer(ada, bob, 1, key="rent"))
    await is_ready(api, 503)
    # The probe is answered in time: the driver still waits for the server in the first attempt.
    assert not waiting.done()
    assert "transferd_group_retries_total{" not in (await api.get("/metrics")).body.decode()
    postgres.resume()
    await is_ready(api)
    assert (await waiting).status == 201
    assert await api.balance(ada) == 99
