"""Ledgers: a new one has the tables of main, and migrations bring all of them up to date."""

import asyncio
import hashlib
from typing import Any

import pytest

from tests.conftest import Database
from tests.support.truth import row_count
from transferd.config import ConfigurationError, Limits
from transferd.domain.ledger import MAIN, Ledger
from transferd.ledger.audit import audit
from transferd.ledger.ledgers import batches
from transferd.ledger.migrate import assert_migrated, create_ledger, migrate
from transferd.ledger.steps import Migration, MigrationError, ledger_migrations, migrations
from transferd.ledger.store.currencies import read_currencies
from transferd.ledger.store.database import Database as Store
from transferd.ledger.store.errors import Rejected

pytestmark = pytest.mark.needs_configuration("main", why="these tests make all other ledgers")

# What PostgreSQL knows about the tables of the schema $1. NOT VALID is left out: main has not
# checked its old rows again.
CATALOGS = {
    "columns": """
        SELECT c.relname, a.attnum - (SELECT count(*) FROM pg_attribute d WHERE d.attrelid = c.oid
                   AND d.attnum > 0 AND d.attnum < a.attnum AND d.attisdropped),
               a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,
               a.attstorage, a.attcompression, pg_get_expr(d.adbin, d.adrelid)
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
        LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
        WHERE c.relnamespace = $1::regnamespace AND c.relkind = 'r' AND a.attnum > 0
          AND NOT a.attisdropped
        ORDER BY 1, 2""",
    "constraints": """
        SELECT conrelid::regclass::text, conname,
               replace(pg_get_constraintdef(oid), ' NOT VALID', '')
        FROM pg_constraint WHERE connamespace = $1::regnamespace ORDER BY 1, 2""",
    "indexes": "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = $1 ORDER BY 1",
    "options": """
        SELECT c.relname, c.relkind, c.reloptions, t.reloptions AS of_toast
        FROM pg_class c LEFT JOIN pg_class t ON t.oid = c.reltoastrelid
        WHERE c.relnamespace = $1::regnamespace ORDER BY 1""",
    "privileges": """
        SELECT relname, privilege_type, grantee::regrole::text
        FROM pg_class CROSS JOIN aclexplode(coalesce(relacl, acldefault('r', relowner)))
        WHERE relnamespace = $1::regnamespace AND relkind = 'r' ORDER BY 1, 2""",
}


async def catalogs_of(database: Database, ledger: Ledger) -> dict[str, list[list[Any]]]:
    found = {}
    for name, sql in CATALOGS.items():
        rows = await database.fetch(sql, ledger.schema)
        found[name] = [
            [
                value.replace(f"{ledger.schema}.", "") if isinstance(value, str) else value
                for value in row
            ]
            for row in rows
        ]
    return found


def migration(name: str, sql: str) -> Migration:
    return Migration(name, sql, hashlib.sha256(sql.encode()).hexdigest())


async def new_ledger(database: Database, name: str, number: int | None = None) -> Ledger:
    return await create_ledger(database.settings(), Limits(), name, number)


async def bring_up(database: Database, *more: Migration) -> list[str]:
    return await migrate(database.settings(), Limits(), for_ledgers=[*ledger_migrations(), *more])


async def test_a_new_ledger_has_the_tables_of_main(database: Database) -> None:
    ledger = await new_ledger(database, "shop", 4095)
    assert ledger == Ledger(4095, "shop", "ledger_4095")
    main, new = [await catalogs_of(database, each) for each in (MAIN, ledger)]
    assert all(len(rows) > 10 for rows in main.values())
    for name, rows in main.items():
        assert new[name] == rows, name


async def test_a_new_ledger_has_funding_wallets_of_its_own(database: Database) -> None:
    ledger = await new_ledger(database, "shop")
    async with Store(database.settings(), Limits(), 1) as store:
        main, new = [await read_currencies(store.of(each)) for each in (MAIN, ledger)]
        assert await audit(store.of(ledger), lambda *_: None) == []
    assert [each.code for each in new] == [each.code for each in main]
    numbers = {int(each.funding_wallet_id[15:18], 16) for each in new}
    assert numbers == {ledger.number}
    assert 1 <= ledger.number <= 4095
    leases = await database.fetch(f"SELECT ledger FROM {ledger.schema}.relay_leases ORDER BY 1")
    assert [row["ledger"] for row in leases] == [ledger.schema, f"{ledger.schema}/expiry"]


async def test_ledgers_that_are_made_at_once_have_different_numbers(database: Database) -> None:
    names = [f"shop-{n}" for n in range(4)]
    made = await asyncio.gather(*(new_ledger(database, name) for name in names))
    assert len({ledger.number for ledger in made}) == len(names)
    assert await row_count(database, "transferd.ledgers") == 1 + len(names)


@pytest.mark.parametrize("name", ["main", "", "Shop", "a.b", "1a", "x" * 41])
async def test_a_name_is_one_word_that_no_other_ledger_has(database: Database, name: str) -> None:
    with pytest.raises((MigrationError, Rejected)):
        await new_ledger(database, name)
    assert await row_count(database, "transferd.ledgers") == 1


async def test_no_ledger_is_made_by_another_release_than_the_last(database: Database) -> None:
    await migrate(
        database.settings(), Limits(), [*migrations(), migration("9000_later.sql", "SELECT 1")]
    )
    with pytest.raises(MigrationError, match="was applied by a newer release"):
        await new_ledger(database, "shop")


async def test_every_ledger_gets_a_new_migration_once(database: Database) -> None:
    assert await bring_up(database) == []
    await new_ledger(database, "shop")
    later = migration("9000_later.sql", "CREATE TABLE later (id integer)")
    both = await asyncio.gather(*(bring_up(database, later) for _ in range(2)))
    assert sorted(both) == [[], ["9000_later.sql (ledgers: 2)"]]
    assert await bring_up(database, later) == []
    # The next release has a change that this one does not know.
    with pytest.raises(MigrationError, match="the ledger main is not up to date: 9000_later"):
        await bring_up(database)


async def test_a_ledger_that_fails_does_not_stop_the_others(database: Database) -> None:
    bad, good = [await new_ledger(database, name) for name in ("bad", "good")]
    await database.fetch(f"CREATE TABLE {bad.schema}.later (id integer)")
    later = migration("9000_later.sql", "CREATE TABLE later (id integer)")
    with pytest.raises(MigrationError, match='the ledger bad is not up to date: relation "later"'):
        await bring_up(database, later)
    for ledger, count in ((MAIN, 2), (bad, 1), (good, 2)):
        assert await row_count(database, f"{ledger.schema}.migrations") == count
    await database.fetch(f"DROP TABLE {bad.schema}.later")
    assert await bring_up(database, later) == ["9000_later.sql (ledgers: 1)"]


async def test_a_ledger_without_its_schema_is_reported(database: Database) -> None:
    ledger = await new_ledger(database, "lost")
    await database.fetch(f"DROP SCHEMA {ledger.schema} CASCADE")
    with pytest.raises(MigrationError, match="the ledger lost is not up to date"):
        await bring_up(database)


async def test_nothing_starts_before_main_is_up_to_date(database: Database) -> None:
    await database.fetch(f"DELETE FROM {MAIN.schema}.migrations")
    async with Store(database.settings(), Limits(), 1) as store:
        with pytest.raises(ConfigurationError, match="0001_tables"):
            await assert_migrated(store)
        assert await bring_up(database) == []
        await assert_migrated(store)


def test_a_transaction_has_few_ledgers() -> None:
    assert [len(batch) for batch in batches(range(40))] == [16, 16, 8]


async def test_main_skips_only_the_migration_whose_tables_it_has(database: Database) -> None:
    await database.fetch(f"DROP TABLE {MAIN.schema}.migrations")
    later = migration("9000_later.sql", "CREATE TABLE later (id integer)")
    assert await bring_up(database, later) == ["9000_later.sql (ledgers: 1)"]
    assert await row_count(database, f"{MAIN.schema}.later") == 0


async def test_a_ledger_that_cannot_be_read_is_reported(database: Database) -> None:
    # As after a restore by a superuser who did not keep the owner.
    lost, _ = [await new_ledger(database, name) for name in ("lost", "good")]
    await database.fetch(f"ALTER TABLE {lost.schema}.migrations OWNER TO postgres")
    later = migration("9000_later.sql", "CREATE TABLE later (id integer)")
    with pytest.raises(
        MigrationError, match=r"the ledger lost is not up to date: (permission|must be owner)"
    ):
        await bring_up(database, later)
    assert await row_count(database, f"{MAIN.schema}.later") == 0
