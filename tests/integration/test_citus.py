"""The private Citus: its nodes hold schemas, move them, and are cloned with their databases."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from pydantic import SecretStr

from tests.support.project import README
from tests.support.waiting import until
from transferd.config import Limits, Settings
from transferd.devstack import CitusCluster, CitusNode, StackError, find_citus_binaries
from transferd.devstack import postgres as postgres_module
from transferd.domain.ledger import MAIN
from transferd.ledger.migrate import create_ledger as create_ledger_of_service
from transferd.ledger.migrate import migrate
from transferd.ledger.store.currencies import read_currencies
from transferd.ledger.store.database import Database

needs_citus = pytest.mark.needs_configuration(
    "Citus", why="no PostgreSQL of this machine has the extension"
)

pytestmark = pytest.mark.needs_configuration(
    "no other configuration", why="these tests start their own servers"
)

SHARDED = "SET citus.enable_schema_based_sharding = on"
NODE_OF = "SELECT nodeport FROM citus_shards WHERE table_name = $1::text::regclass"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CitusCluster]:
    whole = CitusCluster(tmp_path_factory.mktemp("citus"), durable=False)
    runner = asyncio.Runner()
    with runner:
        runner.run(whole.__aenter__())
        try:
            yield whole
        finally:
            runner.run(whole.__aexit__(None, None, None))


@asynccontextmanager
async def connected(
    node: CitusNode, database: str = "transferd"
) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    connection = await asyncpg.connect(f"{node.url.rpartition('/')[0]}/{database}")
    try:
        yield connection
    finally:
        await connection.close()


async def create_ledger(node: CitusNode, schema: str, database: str = "transferd") -> None:
    async with connected(node, database) as coordinator:
        await coordinator.execute(SHARDED)
        await coordinator.execute(f"CREATE SCHEMA {schema}")
        await coordinator.execute(f"CREATE TABLE {schema}.wallets (id bigint PRIMARY KEY)")
        await coordinator.execute(f"INSERT INTO {schema}.wallets VALUES (1)")


@needs_citus
async def test_the_role_of_the_service_creates_a_schema_that_moves_between_workers(
    cluster: CitusCluster,
) -> None:
    await create_ledger(cluster.coordinator, "moving")
    async with connected(cluster.coordinator) as coordinator:
        home = await coordinator.fetchval(NODE_OF, "moving.wallets")
        [old] = [node for node in cluster.workers if node.port == home]
        [new] = [node for node in cluster.workers if node.port != home]
        async with connected(old) as before:
            await coordinator.execute(
                f"SELECT citus_schema_move('moving', '127.0.0.1', {new.port}, 'block_writes')"
            )
            assert await coordinator.fetchval(NODE_OF, "moving.wallets") == new.port
            # A connection to the old node goes on: the node forwards the statement.
            await before.execute("INSERT INTO moving.wallets VALUES (2)")
    for node in cluster.nodes:
        async with connected(node) as anywhere:
            assert await anywhere.fetchval("SELECT count(*) FROM moving.wallets") == 2


@needs_citus
async def test_clones_of_a_template_are_databases_of_their_own(cluster: CitusCluster) -> None:
    await cluster.create_database("template_of_citus")
    await create_ledger(cluster.coordinator, "cloned", "template_of_citus")
    await cluster.close_template("template_of_citus")
    for name in ("first_clone", "second_clone"):
        await cluster.clone_database(name, template="template_of_citus")
    async with connected(cluster.workers[0], "first_clone") as first:
        await first.execute("INSERT INTO cloned.wallets VALUES (2)")
    for name, rows in (("first_clone", 2), ("second_clone", 1)):
        for node in cluster.nodes:
            async with connected(node, name) as clone:
                assert await clone.fetchval("SELECT count(*) FROM cloned.wallets") == rows
        await create_ledger(cluster.coordinator, "later", name)
        await cluster.drop_database(name)


@needs_citus
async def test_a_killed_worker_stops_its_schemas_only_and_can_be_started_again(
    cluster: CitusCluster,
) -> None:
    async with connected(cluster.coordinator) as coordinator:
        schemas: dict[int, str] = {}
        for number in range(2 * len(cluster.workers)):
            await create_ledger(cluster.coordinator, f"kept_{number}")
            port = await coordinator.fetchval(NODE_OF, f"kept_{number}.wallets")
            schemas[port] = f"kept_{number}"
        dead, alive = cluster.workers
        await dead.kill()
        with pytest.raises(asyncpg.ConnectionFailureError):
            await coordinator.fetchval(f"SELECT count(*) FROM {schemas[dead.port]}.wallets")
        assert await coordinator.fetchval(f"SELECT count(*) FROM {schemas[alive.port]}.wallets")
        await dead.start()
        assert await coordinator.fetchval(f"SELECT count(*) FROM {schemas[dead.port]}.wallets")


def test_without_citus_one_line_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_module, "postgres_directories", lambda: iter([tmp_path]))
    with pytest.raises(StackError, match="extension citus: install it") as caught:
        find_citus_binaries()
    assert "\n" not in str(caught.value)


@needs_citus
async def test_the_scripts_of_the_compose_project_make_a_cluster_with_passwords(
    tmp_path: Path,
) -> None:
    nodes = [CitusNode(tmp_path / name, durable=False) for name in ("one", "two", "three")]
    secret = r"it's a \ secret"
    async with AsyncExitStack() as exits:
        for node in nodes:
            exits.push_async_callback(node.stop)
            await node.start()
            # As in a new container: no role of the service yet, and no connection without password.
            await node.run("DROP DATABASE transferd")
            await node.run("DROP ROLE transferd", f"ALTER ROLE postgres PASSWORD $${secret}$$")
            (node.data / "pg_hba.conf").write_text("host all all 127.0.0.1/32 scram-sha-256\n")
            await reload(node)
            await script(node, "init.sh", secret)
        workers = [f"127.0.0.1:{node.port}" for node in nodes[1:]]
        for _ in range(2):
            await script(nodes[0], "nodes.sh", secret, *workers)
        settings = Settings(database_url=nodes[0].url, database_password=SecretStr(secret))
        await migrate(settings, Limits())
        shop = await create_ledger_of_service(settings, Limits(), "shop")
        async with Database(settings, Limits(), 1) as database:
            places = {str(database.of(ledger).node) for ledger in (MAIN, shop)}
            assert places == set(workers)
            for ledger in (MAIN, shop):
                assert await read_currencies(database.of(ledger))


async def script(node: CitusNode, name: str, secret: str, *arguments: str) -> None:
    """Run a script of the compose project with the environment of its container."""
    environment = {
        "PATH": f"{node.binaries}:{os.environ['PATH']}",
        "PGHOST": "127.0.0.1",
        "PGPORT": str(node.port),
        "PGUSER": "postgres",
        "PGPASSWORD": secret,
        "POSTGRES_PASSWORD": secret,
        "TRANSFERD_DATABASE_PASSWORD": secret,
    }
    path = README.parent / "deploy/citus" / name
    process = await asyncio.create_subprocess_exec(path, *arguments, env=environment)
    assert await process.wait() == 0


async def reload(node: CitusNode) -> None:
    """Let a server read pg_hba.conf again."""
    assert node.pid is not None
    os.kill(node.pid, signal.SIGHUP)

    async def asks_for_passwords() -> bool:
        try:
            await (await asyncpg.connect(node.superuser_url, password="wrong")).close()
        except asyncpg.InvalidPasswordError:
            return True
        return False

    await until(asks_for_passwords)
