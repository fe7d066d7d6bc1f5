"""An upgrade to the version with holds: nothing is rewritten, and replicas of the version before
write on until the last of them has stopped."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import pytest

from tests.conftest import Database, Replicas
from tests.support.api import Api
from tests.support.contract import time_of
from tests.support.past import at, clock_of, entries
from tests.support.servers import Servers
from tests.support.truth import faults_in
from tests.support.version_before_holds import (
    ACTIVE,
    FREEZE,
    FROZEN,
    UNFREEZE,
    UPDATE,
    Refused,
    replica_before,
)
from tests.support.waiting import until
from transferd.config import Limits
from transferd.ledger.migrate import migrate
from transferd.ledger.steps import migrations

pytestmark = [
    pytest.mark.needs_configuration("main", why="the version before has one ledger"),
    pytest.mark.needs_configuration(
        "one server", why="versions before ledgers do not place them on nodes"
    ),
]

HOLDS = "0005_holds.sql"
# Without a sweep only commands write the end of a hold that is due.
UNSWEPT = Limits(expiry_sweep_s=3_600.0)
# What the version before stores of a row, and where PostgreSQL keeps the row: a row that was
# rewritten has moved.
ROWS = {
    "wallets": "id, user_id, balance, held, overdraft_limit, version, created_at, updated_at,"
    " status, funding, currency, metadata::text",
    "transfers": "id, source_wallet_id, destination_wallet_id, amount, source_version,"
    " source_balance_after, destination_version, destination_balance_after, created_at, kind,"
    " currency, reference, metadata::text, reverses_transfer_id",
    "wallet_changes": "wallet_id, version, created_at, balance_after, overdraft_limit, kind,"
    " status",
}


@pytest.fixture
async def old(servers: Servers) -> AsyncIterator[Database]:
    """A database of the version before holds."""
    name, redis_number = await servers.new_database(template="template1")
    database = Database(name, redis_number, servers)
    older = [migration for migration in migrations() if migration.name < HOLDS]
    await migrate(database.settings(), Limits(), older)
    yield database
    await servers.drop_database(name)


@pytest.fixture
async def api(old: Database) -> AsyncIterator[Api]:
    """A client of a replica of this version on the upgraded database."""
    await upgrade(old)
    async with AsyncExitStack() as exits:
        yield await Replicas(old, exits).start(UNSWEPT)


async def upgrade(database: Database) -> None:
    applied = await migrate(database.settings(), Limits())
    assert applied == [each.name for each in migrations() if each.name >= HOLDS]


async def stored(database: Database) -> dict[str, list[asyncpg.Record]]:
    """All rows of the version before, the places of their tables and the places of the rows."""
    return {
        table: await database.fetch(
            f"SELECT pg_relation_filenode('ledger_00.{table}'), ctid, xmin, {columns}"
            f" FROM ledger_00.{table} ORDER BY ctid"
        )
        for table, columns in ROWS.items()
    }


def shown(statement: list[dict[str, Any]]) -> list[tuple[str, int, int, int]]:
    """Kind, amount, balance and what is held of each entry, oldest first."""
    return [
        (entry["kind"], entry["amount"], entry["balance_after"], entry["held_after"])
        for entry in reversed(statement)
    ]


async def money_at(api: Api, wallet: str, instant: datetime) -> tuple[int, int, int]:
    """version, balance and held of a wallet before an instant."""
    reply = await at(api, wallet, instant)
    assert reply.status == 200, reply
    return reply.json["version"], reply.json["balance"], reply.json["held"]


async def money_now(api: Api, wallet: str, version: int) -> tuple[int, int, int]:
    """version, balance and held of a wallet, of which the cache may have an older version."""
    reply = await api.get(f"/wallets/{wallet}?min_version={version}")
    assert reply.status == 200, reply
    return reply.json["version"], reply.json["balance"], reply.json["held"]


async def test_an_upgrade_rewrites_nothing_and_reads_old_rows_as_before(old: Database) -> None:
    async with replica_before(old) as before:
        ada, bob = await before.create_wallet(100), await before.create_wallet()
        first = await before.transfer(ada, bob, 30)
        await before.change(bob, FREEZE, status=FROZEN)
        await before.change(bob, UNFREEZE, status=ACTIVE)
        last = await before.change(ada, UPDATE, overdraft_limit=50)
    rows = await stored(old)
    await upgrade(old)
    assert await stored(old) == rows
    async with AsyncExitStack() as exits:
        api = await Replicas(old, exits).start(UNSWEPT)
        assert await api.money(ada) == (70, 0, 120)
        assert shown(await entries(api, ada)) == [
            ("transfer", 100, 100, 0),
            ("transfer", -30, 70, 0),
            ("update", 0, 70, 0),
        ]
        assert await money_at(api, ada, first) == (1, 100, 0)
        assert await money_at(api, ada, last) == (2, 70, 0)
        assert await faults_in(old) == []
        hold = await api.hold(ada, 120, destination_wallet_id=bob)
        assert hold.status == 201
        assert await money_at(api, ada, last) == (2, 70, 0)
        paid = await api.about_hold(hold.json["id"], "capture", {"amount": 20})
        assert paid.status == 201
        assert await api.money(ada) == (50, 0, 100)
        assert await faults_in(old) == []


async def until_due(database: Database, expires_at: str) -> None:
    """Wait until the clock of the database has reached the expiry of a hold."""

    async def is_due() -> bool:
        return await clock_of(database) >= time_of(expires_at)

    await until(is_due)


async def test_a_replica_of_the_version_before_writes_wallets_with_holds(
    old: Database, api: Api
) -> None:
    async with replica_before(old) as before:
        ada, bob = await before.create_wallet(100, overdraft_limit=10), await before.create_wallet()
        await before.transfer(ada, bob, 10)
        held = (await api.hold(ada, 60, destination_wallet_id=bob)).json
        times = [
            await before.transfer(ada, bob, 5),
            await before.change(ada, FREEZE, status=FROZEN, overdraft_limit=10),
            await before.change(ada, UNFREEZE, status=ACTIVE, overdraft_limit=10),
            await before.transfer(bob, ada, 1),
            await before.change(ada, UPDATE, overdraft_limit=20),
        ]
        # What is held is part of its check of the funds, as it was before there were holds.
        with pytest.raises(Refused):
            await before.transfer(ada, bob, 47)
        assert await money_now(api, ada, 8) == (8, 86, 60)
        assert (await api.about_hold(held["id"], "capture", {"amount": 50})).status == 201
        times.append(await before.transfer(ada, bob, 2))
    assert await money_now(api, ada, 11) == (11, 34, 0)
    assert shown(await entries(api, ada)) == [
        ("transfer", 100, 100, 0),
        ("transfer", -10, 90, 0),
        ("hold_create", 0, 90, 60),
        ("transfer", -5, 85, 60),
        ("freeze", 0, 85, 60),
        ("unfreeze", 0, 85, 60),
        ("transfer", 1, 86, 60),
        ("update", 0, 86, 60),
        ("hold_capture", 0, 86, 0),
        ("capture", -50, 36, 0),
        ("transfer", -2, 34, 0),
    ]
    before_each = [(3, 90, 60), (4, 85, 60), (5, 85, 60), (6, 85, 60), (7, 86, 60), (10, 36, 0)]
    assert [await money_at(api, ada, time) for time in times] == before_each
    assert await faults_in(old) == []


async def test_an_expiry_is_exact_also_if_the_version_before_pays_first(
    old: Database, api: Api
) -> None:
    """It locks the wallet of a hold that is due, and does not write its end."""
    async with replica_before(old) as before:
        ada, bob = await before.create_wallet(100), await before.create_wallet()
        hold = (await api.hold(ada, 60, expires_in_s=1)).json
        last = time_of(hold["expires_at"])
        await until_due(old, hold["expires_at"])
        paid = await before.transfer(ada, bob, 10)
        changed = await before.change(ada, UPDATE, overdraft_limit=5)
        assert await money_now(api, ada, 4) == (4, 90, 0)
        instants = {
            last - timedelta(microseconds=1): (2, 100, 60),
            last: (2, 100, 0),
            paid: (2, 100, 0),
            paid + timedelta(microseconds=1): (3, 90, 0),
            changed + timedelta(microseconds=1): (4, 90, 0),
        }
        assert {each: await money_at(api, ada, each) for each in instants} == instants
        # Written later, the end of the hold changes no answer about the past.
        assert (await api.transfer(ada, bob, 95)).status == 201
        assert {each: await money_at(api, ada, each) for each in instants} == instants
    assert shown(await entries(api, ada))[1:] == [
        ("hold_create", 0, 100, 60),
        ("transfer", -10, 90, 60),
        ("update", 0, 90, 60),
        ("hold_expire", 0, 90, 0),
        ("transfer", -95, -5, 0),
    ]
    assert await faults_in(old) == []


async def test_groups_of_the_version_before_go_on_beside_an_upgrade(old: Database) -> None:
    payments, done = [0, 0], asyncio.Event()

    async def pay(number: int, source: str, destination: str) -> None:
        async with replica_before(old) as before:
            while not done.is_set():
                # A replica repeats a group that has had a conflict.
                with suppress(asyncpg.SerializationError):
                    await before.transfer(source, destination, 1)
                    await before.change(source, UPDATE, overdraft_limit=payments[number] % 7)
                    payments[number] += 1

    async with replica_before(old) as before:
        ada, bob = await before.create_wallet(10_000), await before.create_wallet(10_000)
    async with asyncio.TaskGroup() as group:
        group.create_task(pay(0, ada, bob))
        group.create_task(pay(1, bob, ada))
        await until(lambda: min(payments) >= 10)
        await upgrade(old)
        then = list(payments)
        await until(lambda: payments[0] >= then[0] + 10 and payments[1] >= then[1] + 10)
        done.set()
    assert await faults_in(old) == []


async def is_waiting(database: Database, query: str) -> bool:
    """Whether a statement that begins like this waits for a lock."""
    rows = await database.fetch(
        "SELECT 1 FROM pg_stat_activity WHERE datname = current_database()"
        " AND wait_event_type = 'Lock' AND ltrim(query, E'\\n ') LIKE $1 || '%'",
        query,
    )
    return bool(rows)


async def test_an_event_stream_of_the_version_before_does_not_stop_an_upgrade(
    old: Database,
) -> None:
    """It locks wallet_changes before wallets, the upgrade the other way round."""
    async with AsyncExitStack() as exits:
        before = await exits.enter_async_context(replica_before(old))
        ada = await before.create_wallet(100)
        url = old.servers.database_url(old.name, superuser=True)
        reader = await asyncpg.connect(url)
        exits.push_async_callback(reader.close)
        # The upgrade has locked the wallets and waits for this read of transfers.
        transaction = reader.transaction()
        await transaction.start()
        await reader.fetch("SELECT FROM ledger_00.transfers LIMIT 1")
        upgrading = asyncio.create_task(upgrade(old))
        await until(lambda: is_waiting(old, "-- Holds"))
        # The upgrade gives up before the stream does, and begins again.
        assert await before.changes_after(ada, -1) == 1
        await transaction.commit()
        await upgrading
        assert await before.changes_after(ada, -1) == 1
    assert await faults_in(old) == []
