"""An upgrade to the version with ledgers: no row moves, clients notice nothing, and replicas of the
version before run on through views."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import pytest

from tests.conftest import Database, Replicas
from tests.support.api import Api
from tests.support.deliveries import logged_delivery
from tests.support.servers import Servers
from tests.support.truth import faults_in
from tests.support.version_before_ledgers import (
    OF_WORKERS,
    statements_before,
    use_statements_before,
)
from tests.support.waiting import until
from transferd.config import Limits
from transferd.domain.ledger import MAIN
from transferd.ledger.migrate import migrate
from transferd.ledger.steps import migrations
from transferd.ledger.store.errors import LockTimeout
from transferd.ledger.store.queries import query

pytestmark = [
    pytest.mark.needs_configuration("main", why="the version before has one ledger"),
    pytest.mark.needs_configuration(
        "one server", why="versions before ledgers do not place them on nodes"
    ),
]

LEDGERS = "0007_ledgers.sql"
MOVED = (
    *("users", "outcomes", "webhooks", "webhooks_version", "deliveries", "relay_leases"),
    "dead_letters",
)
QUICK = Limits(migrate_lock_pause_s=0.01)


@pytest.fixture
async def old(servers: Servers) -> AsyncIterator[Database]:
    """A database of the version before ledgers."""
    name, redis_number = await servers.new_database(template="template1")
    database = Database(name, redis_number, servers)
    older = [migration for migration in migrations() if migration.name < LEDGERS]
    await migrate(database.settings(), Limits(), older)
    yield database
    await servers.drop_database(name)


async def upgrade(database: Database, limits: Limits = QUICK) -> list[str]:
    """Apply the migration; what it has reported."""
    reports: list[str] = []
    applied = await migrate(database.settings(), limits, report=reports.append)
    assert applied == [each.name for each in migrations() if each.name >= LEDGERS]
    return reports


async def service(database: Database, exits: AsyncExitStack) -> Any:
    """A session of its own with the rights of the service; PgBouncer would share it."""
    server = database.servers.postgres.url.rpartition("/")[0]
    connection = await asyncpg.connect(f"{server}/{database.name}")
    exits.push_async_callback(connection.close)
    return connection


async def stored(database: Database, schema: str) -> dict[str, Any]:
    """Place, options, privileges, indexes, constraints and rows of each table that moves."""
    found: dict[str, Any] = {}
    for table in MOVED:
        name = f"{schema}.{table}"
        found[table] = (
            await database.fetch(
                "SELECT relfilenode, reloptions, relacl::text, reltoastrelid FROM pg_class"
                " WHERE oid = $1::text::regclass",
                name,
            ),
            await database.fetch(
                "SELECT indexrelid, i.relfilenode FROM pg_index JOIN pg_class i"
                " ON i.oid = indexrelid WHERE indrelid = $1::text::regclass ORDER BY 1",
                name,
            ),
            await database.fetch(
                "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint"
                " WHERE conrelid = $1::text::regclass ORDER BY 1",
                name,
            ),
            # The lease gets a column.
            await database.fetch(
                f"SELECT ctid, {'ledger' if table == 'relay_leases' else f'xmin, {table}::text'}"
                f" FROM {name} ORDER BY ctid DESC"
            ),
        )
    return found


async def test_tables_move_and_no_row_does(old: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    async with AsyncExitStack() as exits:
        use_statements_before(monkeypatch)
        api = await Replicas(old, exits).start()
        ada, bob = await api.wallet(100), await api.wallet()
        assert (await api.transfer(ada, bob, 30)).status == 201
        await api.post("/webhooks", {"url": "https://example.com/", "events": ["*"]}, key="hook")
    before = await stored(old, "transferd")
    before.pop("relay_leases")
    await old.fetch("SELECT setval('transferd.delivery_numbers', 4711)")
    await upgrade(old)
    after = await stored(old, "ledger_00")
    after.pop("relay_leases")
    assert after == before
    [[number]] = await old.fetch(
        "SELECT delivery_number FROM ledger_00.relay_leases WHERE ledger = 'ledger_00'"
    )
    assert number == 4711
    rows = await old.fetch("SELECT number, name, schema, cache_generation FROM transferd.ledgers")
    assert [tuple(row) for row in rows] == [MAIN]
    [[client]] = await old.fetch("SELECT ledger_number FROM transferd.clients")
    assert client == MAIN.number


# Replicas of the version before


async def test_statements_of_the_version_before_are_accepted(database: Database) -> None:
    async with AsyncExitStack() as exits:
        connection = await service(database, exits)
        refused = set[str]()
        for name, sql in statements_before().items():
            try:
                await connection.execute(f"PREPARE {name} AS {sql}")
            except asyncpg.UndefinedColumnError:
                refused.add(name)
    # A view has no ctid. Only a worker deletes old rows, and it tries again later.
    assert refused == {"prune_deliveries"}


async def exercise(api: Api, database: Database) -> None:
    """Requests that run every statement of a replica."""
    ada, bob = await api.wallet(100), await api.wallet()
    user = await api.user()
    assert (await api.patch(f"/users/{user}", {"name": "Eve"})).json["name"] == "Eve"
    assert (await api.get(f"/users/{user}")).json["name"] == "Eve"
    assert user in [each["id"] for each in (await api.get("/users")).json["data"]]
    assert (await api.post("/users", {"name": "Bob"}, key="user")).status == 201
    paid = await api.transfer(ada, bob, 30, key="rent")
    assert (paid.status, await api.balance(bob)) == (201, 30)
    assert (await api.transfer(ada, bob, 30, key="rent")).body == paid.body
    assert (await api.transfer(ada, bob, 31, key="rent")).code == "idempotency-key-reused"
    assert (await api.transfer(ada, bob, 71, key="more")).code == "insufficient-funds"
    assert (await api.get("/idempotency-keys/rent")).json["answer"] == paid.json
    hold = await api.hold(ada, 5, key="hold")
    assert (await api.about_hold(hold.json["id"], "release", key="over")).status == 200
    body = {"url": "https://example.com/", "events": ["*"]}
    hook = (await api.post("/webhooks", body, key="hook")).json["id"]
    assert (await api.get(f"/webhooks/{hook}")).status == 200
    assert len((await api.get("/webhooks")).json["data"]) == 1
    assert (await api.patch(f"/webhooks/{hook}", {"events": ["transfer.posted"]})).status == 200
    assert (await api.post(f"/webhooks/{hook}/rotate", key="rotate")).status == 200
    delivery = await logged_delivery(database, hook, status="delivered")
    log = (await api.get(f"/webhooks/{hook}/deliveries")).json["data"]
    assert [each["id"] for each in log] == [delivery]
    again = await api.post(f"/webhooks/{hook}/deliveries/{delivery}/redeliver")
    assert again.status == 202
    assert (await api.call("DELETE", f"/webhooks/{hook}")).status == 204


async def test_a_replica_of_the_version_before_serves_the_new_database(
    replicas: Replicas, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        used = use_statements_before(patch)
        # Without Redis every statement runs, and every repetition is found in PostgreSQL.
        api = await replicas.start(Limits(expiry_sweep_s=0.01), cache=False)
        await exercise(api, database)
        due = await api.wallet(10)
        await api.hold(due, 5, expires_in_s=1)
        await until(lambda: "take_lease" in used())
        missing = statements_before().keys() - used() - OF_WORKERS
        assert missing <= {"lock_and_look_up_skipping"}
        first = await api.get("/idempotency-keys/rent")
    api = await replicas.start(cache=False)
    assert (await api.get("/idempotency-keys/rent")).body == first.body
    assert await faults_in(database) == []


async def test_both_versions_have_one_lease(database: Database) -> None:
    async with AsyncExitStack() as exits:
        before, after = [await service(database, exits) for _ in range(2)]
        for name in (MAIN.schema, f"{MAIN.schema}/expiry"):
            async with before.transaction():
                assert await before.fetch(statements_before()["take_lease"], name)
                assert not await after.fetch(query(MAIN.schema, "take_lease"), name)
            async with after.transaction():
                assert await after.fetch(query(MAIN.schema, "take_lease"), name)
                assert not await before.fetch(statements_before()["take_lease"], name)


async def test_a_view_gives_no_further_rights(database: Database) -> None:
    async with AsyncExitStack() as exits:
        connection = await service(database, exits)
        for sql in ("UPDATE {} SET status = 200", "DELETE FROM {}"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(sql.format("transferd.outcomes"))


async def test_replicas_of_the_version_before_serve_clients_during_an_upgrade(
    old: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    statuses: list[int] = []
    done = asyncio.Event()

    async def pay(api: Api, source: str, destination: str) -> None:
        while not done.is_set():
            statuses.append((await api.transfer(source, destination, 1)).status)
            statuses.append((await api.patch(f"/users/{await api.user()}", {"name": "x"})).status)

    async with AsyncExitStack() as exits:
        use_statements_before(monkeypatch)
        replicas = Replicas(old, exits)
        apis = [await replicas.start(cache=False) for _ in range(2)]
        ada, bob = await apis[0].wallet(10_000), await apis[0].wallet(10_000)
        async with asyncio.TaskGroup() as group:
            for api in apis:
                group.create_task(pay(api, ada, bob))
                group.create_task(pay(api, bob, ada))
            await until(lambda: len(statuses) >= 40)
            await upgrade(old)
            then = len(statuses)
            await until(lambda: len(statuses) >= then + 40)
            done.set()
    monkeypatch.undo()
    assert set(statuses) == {200, 201}
    assert await faults_in(old) == []


# Locks


async def test_a_migration_steps_back_from_a_long_transaction(
    old: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An audit reads for hours. Requests must not wait behind a migration that waits for it."""
    async with AsyncExitStack() as exits:
        use_statements_before(monkeypatch)
        api = await Replicas(old, exits).start(cache=False)
        ada, bob = await api.wallet(100), await api.wallet()
        audit = await service(old, exits)
        await audit.execute("SET idle_in_transaction_session_timeout = 0")
        reading = audit.transaction()
        await reading.start()
        await audit.fetch("SELECT FROM transferd.outcomes LIMIT 1")
        pid = audit.get_server_pid()
        with pytest.raises(LockTimeout):
            await upgrade(old, Limits(migrate_lock_wait_max_s=0.0))
        upgrading = asyncio.create_task(upgrade(old))
        for _ in range(20):
            assert (await api.transfer(ada, bob, 1)).status == 201
        await reading.commit()
        reports = await upgrading
    assert reports[0].startswith(f"waiting for process {pid}, in a transaction for ")
