"""Ledgers on Citus: each on a node, found again after a move, and not harmed by another node."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial

import asyncpg
import pytest

from tests.conftest import Database, Replicas
from tests.support.command import TRANSFERD, Finished, environment, transferd
from tests.support.configurations import CONFIGURATIONS
from tests.support.load import Load
from tests.support.memory import memory_directory
from tests.support.servers import Servers, running_servers
from tests.support.truth import faults_in, row_count
from tests.support.waiting import until
from transferd.config import Limits
from transferd.devstack import CitusNode
from transferd.devstack.process import process_tree
from transferd.domain.ledger import MAIN, Ledger
from transferd.ledger.citus import placements, rights_too_many, sizes
from transferd.ledger.migrate import create_ledger, migrate
from transferd.ledger.moves import Moved, opened
from transferd.ledger.steps import Migration, MigrationError, ledger_migrations
from transferd.ledger.store.currencies import read_currencies
from transferd.ledger.store.database import Database as Store
from transferd.ledger.store.database import LedgerDatabase
from transferd.ledger.store.errors import ConnectionFailure, StoreError
from transferd.ledger.store.placement import Node

pytestmark = [
    pytest.mark.needs_configuration("Citus", why="no PostgreSQL of this machine has the extension"),
    pytest.mark.needs_configuration(
        "no other configuration", why="these tests start their own servers"
    ),
]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """A coordinator and two workers, for the fixtures of every test here."""
    directory = tmp_path_factory.mktemp("citus")
    with (
        memory_directory(otherwise=directory) as place,
        running_servers(place, CONFIGURATIONS["citus"]) as running,
    ):
        yield running


@pytest.fixture
async def store(database: Database) -> AsyncIterator[Store]:
    """A pool of four connections for each node."""
    async with Store(database.settings(), Limits(), 4) as opened_store:
        yield opened_store


@pytest.fixture
async def shop(database: Database) -> Ledger:
    """A second ledger: Citus places it on the node that main is not on."""
    return await create_ledger(database.settings(), Limits(), "shop")


@pytest.fixture
async def exits() -> AsyncIterator[AsyncExitStack]:
    """What ends with the test at the latest."""
    async with AsyncExitStack() as stack:
        yield stack


async def not_placed(*_: object) -> None:
    """Leaves a new ledger on the coordinator."""


async def command(database: Database, *arguments: str) -> Finished:
    """A run of `transferd ledgers`."""
    url = database.settings().required("database_url")
    return await transferd("ledgers", *arguments, database_url=url)


def worker_of(database: Database, node: Node | None) -> CitusNode:
    """The server of a node."""
    assert node is not None
    cluster = database.servers.cluster
    assert cluster is not None
    [found] = [each for each in cluster.workers if each.port == node.port]
    return found


def other_node(database: Database, node: Node | None) -> Node:
    """The worker that a ledger is not on."""
    cluster = database.servers.cluster
    assert cluster is not None
    assert node is not None
    [found] = [each for each in cluster.workers if each.port != node.port]
    return Node("127.0.0.1", found.port)


async def move(database: Database, name: str, node: str, *, block_writes: bool = False) -> Moved:
    """Move a ledger as the command does."""
    async with opened(database.settings(), Limits()) as mover:
        plan = await mover.plan(name, node)
        return await mover.run(plan, block_writes=block_writes, report=lambda *_: None)


def is_on(ledger: LedgerDatabase, node: Node | None) -> bool:
    """Whether the next connection for the ledger is one to this node."""
    return ledger.node == node


async def rights(ledger: LedgerDatabase) -> list[str]:
    """Rights that the service must not have, on the node that holds the ledger."""
    return await rights_too_many(ledger, query_timeout_s=10)


async def limits_of_role(database: Database) -> list[str]:
    """The settings of the role for this database."""
    rows = await database.fetch(
        "SELECT unnest(setconfig) AS setting FROM pg_db_role_setting"
        " JOIN pg_database ON pg_database.oid = setdatabase WHERE datname = current_database()"
    )
    return sorted(row["setting"] for row in rows)


@asynccontextmanager
async def stopped(node: CitusNode) -> AsyncIterator[None]:
    """A node that hangs: it takes connections, and none of its processes runs."""
    assert node.pid is not None
    processes = process_tree(node.pid)
    for process in processes:
        os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            os.kill(process.pid, signal.SIGCONT)


async def test_a_new_ledger_is_placed_and_its_history_stays_unchangeable(
    database: Database, store: Store, shop: Ledger
) -> None:
    main, other = store.of(MAIN), store.of(shop)
    # The new ledger is not in the placement that the store has read, so it is found at the next.
    async with Store(database.settings(), Limits(), 1) as fresh:
        assert {MAIN.schema: main.node, shop.schema: fresh.of(shop).node} == await placements(fresh)
        assert None not in {main.node, fresh.of(shop).node}
        assert main.node != fresh.of(shop).node
        assert (await sizes(fresh)).keys() == {MAIN.schema, shop.schema}
        assert fresh.by_node([MAIN, shop]) == [[MAIN], [shop]]
        for ledger in (MAIN, shop):
            sql = f"SELECT count(*) FROM {ledger.schema}.currencies"
            [row] = await fresh.read_beside(ledger, sql)
            assert row["count"] == len(await read_currencies(other)) > 100
            assert await rights(fresh.of(ledger)) == []
            worker = worker_of(database, fresh.of(ledger).node)
            connection = await asyncpg.connect(
                f"{worker.url.rpartition('/')[0]}/{database.name}",
                server_settings={"application_name": "transferd"},
            )
            try:
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(f"UPDATE {ledger.schema}.transfers SET amount = 1")
                options = await connection.fetch(
                    "SELECT toast.reloptions FROM pg_class JOIN pg_class AS toast"
                    " ON toast.oid = pg_class.reltoastrelid"
                    " WHERE pg_class.relnamespace = $1::text::regnamespace"
                    " AND pg_class.relname ~ '^outbox_[0-9]+$'",
                    ledger.schema,
                )
                assert [len(row["reloptions"]) for row in options] == [2]
            finally:
                await connection.close()
    # The coordinator keeps no copy.
    copies = await database.fetch(
        "SELECT relname FROM pg_class JOIN pg_dist_partition ON logicalrelid = pg_class.oid"
        " WHERE pg_relation_size(pg_class.oid) > 0"
    )
    assert copies == []


async def test_list_and_show_name_the_node_and_measure_there(
    database: Database, store: Store, shop: Ledger
) -> None:
    async with Store(database.settings(), Limits(), 1) as fresh:
        nodes = {each.name: str(fresh.of(each).node) for each in (MAIN, shop)}
        measured = await sizes(fresh)
    await database.fetch("ANALYZE ledger_00.currencies")
    views = [
        json.loads(line)
        for line in (await command(database, "list", "--json")).out.split("\n")[:-1]
    ]
    assert {each["name"]: each["node"] for each in views} == nodes
    assert {each["schema"]: each["bytes_about"] for each in views} == measured
    listed = (await command(database, "list")).out
    assert all(node in listed for node in nodes.values())
    shown = json.loads((await command(database, "show", "main")).out)
    assert shown["node"] == nodes["main"]
    tables = {each["name"]: each for each in shown["tables"]}
    # No table twice, and those of the node.
    assert len(tables) == len(shown["tables"]) > 10
    assert not [name for name in tables if name[-1].isdigit()]
    assert tables["currencies"]["rows_about"] == len(await read_currencies(store.of(MAIN)))
    assert 0 < sum(each["bytes"] for each in tables.values()) <= 1.1 * measured[MAIN.schema]

    # A node that is down hides nothing but its ledgers.
    worker = worker_of(database, store.of(MAIN).node)
    await worker.kill()
    try:
        ended = await command(database, "list", "--json")
        main, other = map(json.loads, ended.out.split("\n")[:-1])
        assert (main["node"], main["missing_migrations"], main["bytes_about"]) == (
            nodes["main"],
            None,
            None,
        )
        assert (other["missing_migrations"], other["bytes_about"]) == ([], measured[shop.schema])
        assert "unreadable" in (await command(database, "list")).out
    finally:
        await worker.start()


async def test_a_migration_reaches_ledgers_on_all_nodes(database: Database, shop: Ledger) -> None:
    sql = (
        "-- A comment; with a semicolon.\n"
        "ALTER TABLE users ADD COLUMN nickname text;\n"
        "ALTER TABLE users ADD CONSTRAINT nickname_check CHECK (nickname <> ';');\n"
        "CREATE TABLE labels (id uuid PRIMARY KEY, label text NOT NULL DEFAULT ';');\n"
    )
    later = [*ledger_migrations(), Migration("9999_later.sql", sql, "0")]
    settings = database.settings()
    assert await migrate(settings, Limits(), for_ledgers=later) == ["9999_later.sql (ledgers: 2)"]
    assert await migrate(settings, Limits(), for_ledgers=later) == []
    for ledger in (MAIN, shop):
        await database.fetch(f"INSERT INTO {ledger.schema}.labels (id) VALUES (gen_random_uuid())")
        async with Store(settings, Limits(), 1) as fresh:
            [row] = await fresh.read_beside(
                ledger,
                f"SELECT label, (SELECT count(nickname) FROM {ledger.schema}.users)"
                f" FROM {ledger.schema}.labels",
            )
        assert tuple(row) == (";", 0)


async def test_a_ledger_moved_under_load_loses_and_doubles_nothing(
    database: Database, replicas: Replicas, exits: AsyncExitStack
) -> None:
    api = await replicas.start(replace(Limits(), placement_s=0.2))
    ada, bob = await api.wallet(10_000), await api.wallet()
    ledger = (await replicas.opened[0].context.ledgers.of(MAIN)).database
    old, before = ledger.node, await limits_of_role(database)
    loads = [
        Load(api, ada, bob, name="there", repeats=True),
        Load(api, bob, ada, name="back", repeats=True),
    ]
    for load in loads:
        load.start(workers=4)
        exits.push_async_callback(load.stop)
        await load.until_acknowledged(20)
    for target, block_writes in ((other_node(database, old), False), (old, True)):
        moved = await move(database, "main", str(target), block_writes=block_writes)
        assert 0 < moved.write_waited_s <= moved.took_s
        # The replica connects to the new node, and has the rights there that it had before.
        await until(partial(is_on, ledger, target))
        assert await rights(ledger) == []
        for load in loads:
            await load.until_acknowledged(20)
    await exits.aclose()
    for load in loads:
        await load.settle(api)
        await load.assert_each_once(database)
    assert await row_count(database, "ledger_00.transfers") == 1 + sum(
        len(load.acknowledged | load.unknown) for load in loads
    )
    assert await faults_in(database) == []
    assert await limits_of_role(database) == before


async def test_a_move_by_other_means_is_found_and_repaired(database: Database) -> None:
    settings = database.settings()
    async with Store(settings, Limits(), 1) as store:
        node = store.of(MAIN).node
    # As a rebalance would: Citus gives the owner all rights on the new node.
    target = other_node(database, node)
    await database.fetch(
        f"SELECT citus_schema_move('ledger_00', '{target.host}', {target.port}, 'block_writes')"
    )
    async with Store(settings, Limits(), 1) as store:
        ledger = store.of(MAIN)
        assert ledger.node == target
        assert any(each.startswith("UPDATE on transfers_") for each in await rights(ledger))
        await migrate(settings, Limits())
        assert await rights(ledger) == []


async def test_a_killed_node_stops_its_own_ledgers_only(database: Database, shop: Ledger) -> None:
    async with Store(database.settings(), Limits(), 4) as store:
        main, other = store.of(MAIN), store.of(shop)
        assert await read_currencies(main)
        worker = worker_of(database, main.node)
        await worker.kill()
        try:
            with pytest.raises(ConnectionFailure):
                await read_currencies(main)
            assert await read_currencies(other)
            async with other.transaction() as transaction:
                assert await transaction.fetch("read_currencies")
            await store.ping()
        finally:
            await worker.start()

        async def answers() -> bool:
            try:
                return bool(await read_currencies(main))
            except StoreError:
                return False

        await until(answers)


async def test_a_node_that_hangs_keeps_no_connection_of_other_ledgers(
    database: Database, shop: Ledger
) -> None:
    async with Store(database.settings(), Limits(placement_s=0.1), 4) as store:
        main, other = store.of(MAIN), store.of(shop)
        assert await read_currencies(main)
        async with stopped(worker_of(database, main.node)):
            hanging = [asyncio.create_task(read_currencies(main)) for _ in range(20)]
            while not all(each.done() for each in hanging):
                assert await read_currencies(other)
                await store.ping()
            answers = await asyncio.gather(*hanging, return_exceptions=True)
            assert all(isinstance(each, StoreError) for each in answers)
        assert await read_currencies(main)


@pytest.mark.parametrize(
    ("name", "node", "error"),
    [
        ("nowhere", "{other}", "there is no ledger nowhere"),
        ("main", "mars:5432", "mars:5432 is not the name of one node; there are 127.0.0.1:"),
        ("main", "127.0.0.1", "127.0.0.1 is not the name of one node"),
        ("main", "{own}", "the ledger main is on 127.0.0.1:"),
    ],
)
async def test_a_move_that_cannot_begin_says_why(
    database: Database, store: Store, name: str, node: str, error: str
) -> None:
    own = store.of(MAIN).node
    wanted = node.format(own=own, other=other_node(database, own))
    async with opened(database.settings(), Limits()) as mover:
        with pytest.raises(MigrationError) as caught:
            await mover.plan(name, wanted)
    assert error in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_two_moves_do_not_run_at_once(database: Database, store: Store) -> None:
    target = str(other_node(database, store.of(MAIN).node))
    async with (
        opened(database.settings(), Limits()) as first,
        opened(database.settings(), Limits()) as second,
    ):
        await first.plan("main", target)
        with pytest.raises(MigrationError, match="another move is running"):
            await second.plan("main", target)


async def test_the_command_says_what_a_move_costs_and_what_it_took(
    database: Database, store: Store
) -> None:
    target = other_node(database, store.of(MAIN).node)
    process = await asyncio.create_subprocess_exec(
        *(TRANSFERD, "ledgers", "move", "main", str(target)),
        env=environment(database.variables()),
        stdout=asyncio.subprocess.PIPE,
    )
    output = (await process.communicate())[0].decode()
    assert process.returncode == 0
    costs, took = output.splitlines()
    assert costs.startswith("moving the ledger main (")
    assert "its writes go on, and wait for about a second at the end" in costs
    assert took.startswith(f"the ledger main is on {target}: the move took ")
    assert "a write waited for at most " in took


async def test_a_move_that_is_interrupted_leaves_limits_and_rights_as_they_were(
    database: Database, store: Store
) -> None:
    ledger = store.of(MAIN)
    node, before = ledger.node, await limits_of_role(database)
    moving = asyncio.create_task(move(database, "main", str(other_node(database, node))))

    async def is_copying() -> bool:
        [row] = await database.fetch("SELECT count(*) FROM pg_dist_cleanup")
        return moving.done() or row["count"] > 0

    await until(is_copying)
    moving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await moving
    assert await limits_of_role(database) == before
    async with Store(database.settings(), Limits(), 1) as fresh:
        assert fresh.of(MAIN).node == node
        assert await rights(fresh.of(MAIN)) == []
    # Nothing of the move is in the way of the next one.
    target = other_node(database, node)
    await move(database, "main", str(target))
    async with Store(database.settings(), Limits(), 1) as fresh:
        assert fresh.of(MAIN).node == target


async def test_a_ledger_that_cannot_be_placed_keeps_no_other_from_its_node(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As after two restores: Citus holds neither, and the role does not own the tables of one.
    monkeypatch.setattr("transferd.ledger.citus.distribute_new", not_placed)
    lost, good = [await create_ledger(database.settings(), Limits(), n) for n in ("lost", "good")]
    await database.fetch(f"ALTER TABLE {lost.schema}.users OWNER TO postgres")
    with pytest.raises(MigrationError, match="Citus does not place the ledger lost"):
        await migrate(database.settings(), Limits())
    async with Store(database.settings(), Limits(), 1) as fresh:
        assert fresh.of(lost).node is None
        assert fresh.of(good).node is not None
        assert await rights(fresh.of(good)) == []
