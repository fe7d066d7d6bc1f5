"""A migration of many ledgers: its speed, its progress, two at once, and one that is killed."""

import asyncio
import hashlib
import math
import sys
import time
from collections import Counter

import asyncpg
import pytest

from tests.conftest import Database
from tests.support.command import running
from transferd.config import Limits
from transferd.domain.ledger import Ledger
from transferd.ledger.migrate import create_ledger, migrate
from transferd.ledger.steps import Migration, ledger_migrations

pytestmark = pytest.mark.needs_configuration("main", why="these tests make all other ledgers")

# Reports after every transaction.
EVERY_BATCH = Limits(migrate_report_s=1e-9)
# Runs a migration that is not part of this release, and prints its progress.
MIGRATING = """
import asyncio, sys
from transferd.config import Limits, load_settings
from transferd.ledger.migrate import migrate
from transferd.ledger.steps import Migration, ledger_migrations
later = Migration(*sys.argv[1:])
asyncio.run(migrate(load_settings(), Limits(migrate_report_s=1e-9, migrate_lock_pause_s=0.01),
    report=lambda line: print(line, flush=True), for_ledgers=[*ledger_migrations(), later]))
"""


def adding_column(number: int) -> Migration:
    sql = f"ALTER TABLE wallets ADD COLUMN later_{number} integer"
    return Migration(f"9{number:03d}_later.sql", sql, hashlib.sha256(sql.encode()).hexdigest())


async def with_ledgers(database: Database, count: int) -> list[Ledger]:
    """Make ledgers until there are `count` with main; returns those that were made."""
    [[present]] = await database.fetch("SELECT count(*) FROM transferd.ledgers")
    return [
        await create_ledger(database.settings(), Limits(), f"shop-{n}", n)
        for n in range(present, count)
    ]


async def migrated(database: Database) -> dict[str, bool]:
    """Whether each ledger has its first later column, by schema."""
    rows = await database.fetch(
        "SELECT schema, EXISTS (SELECT FROM pg_attribute WHERE attname = 'later_0'"
        " AND attrelid = to_regclass(schema || '.wallets')) FROM transferd.ledgers ORDER BY number"
    )
    return dict(map(tuple, rows))


@pytest.mark.timeout(180)
async def test_the_time_of_a_migration_grows_less_than_the_number_of_ledgers(
    database: Database,
) -> None:
    # Over 1,000 ledgers at most 60 times the time for ten: 0.6 of the factor between the numbers.
    settings, steps = database.settings(), ledger_migrations()

    async def least_s(count: int, times: int, enough_s: float = 0.0) -> float:
        """The least of some times, because other work on the machine can only add to it."""
        nonlocal steps
        await with_ledgers(database, count)
        await migrate(settings, Limits(), for_ledgers=steps)
        least_s = math.inf
        for _ in range(times):
            steps = [*steps, adding_column(len(steps))]
            started = time.perf_counter()
            assert await migrate(settings, Limits(), for_ledgers=steps) == [
                f"{steps[-1].name} (ledgers: {count})"
            ]
            least_s = min(least_s, time.perf_counter() - started)
            if least_s <= enough_s:
                break
        return least_s

    bound_s = 0.6 * 20 * await least_s(10, 4)
    assert await least_s(200, 20, bound_s) <= bound_s


async def test_a_long_migration_reports_its_progress(database: Database) -> None:
    await with_ledgers(database, 20)
    steps, said = [*ledger_migrations(), adding_column(0)], list[str]()
    await migrate(database.settings(), EVERY_BATCH, report=said.append, for_ledgers=steps)
    assert said == ["ledgers: 16 of 20", "ledgers: 20 of 20"]
    said.clear()
    await migrate(database.settings(), Limits(), report=said.append, for_ledgers=steps)
    assert said == []


async def test_two_migrations_at_once_share_the_ledgers(database: Database) -> None:
    await with_ledgers(database, 40)
    later = adding_column(0)
    both = await asyncio.gather(
        *(
            migrate(database.settings(), Limits(), for_ledgers=[*ledger_migrations(), later])
            for _ in range(2)
        )
    )
    counts = Counter[str]()
    for line in (line for lines in both for line in lines):
        name, _, count = line.removesuffix(")").partition(" (ledgers: ")
        counts[name] += int(count)
    assert counts == {later.name: 40}
    assert all((await migrated(database)).values())


async def test_a_killed_migration_is_continued_by_the_next_one(database: Database) -> None:
    ledgers = await with_ledgers(database, 40)
    later = adding_column(0)
    last = ledgers[-1]
    connection = await asyncpg.connect(database.settings().required("database_url"))
    try:
        # It cannot come to its end: the table of the last ledger is locked.
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(f"LOCK TABLE {last.schema}.wallets IN ACCESS SHARE MODE")
        async with running(
            *("-c", MIGRATING, later.name, later.sql, later.sha256),
            settings=database.variables(),
            program=(sys.executable,),
        ) as process:
            await process.says(f"waiting for process {connection.get_server_pid()}, in a transac")
            await process.kill()
        assert "ledgers: 32 of 40" in process.output
        has_it = await migrated(database)
        assert Counter(has_it.values()) == {True: 32, False: 8}
        await transaction.rollback()
    finally:
        await connection.close()
    steps = [*ledger_migrations(), later]
    assert await migrate(database.settings(), Limits(), for_ledgers=steps) == [
        f"{later.name} (ledgers: 8)"
    ]
    assert all((await migrated(database)).values())
