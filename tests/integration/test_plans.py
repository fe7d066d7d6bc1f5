"""Queries stay fast as data grows: lists follow an index and never sort, locks are cheap."""

import asyncio
import time

import asyncpg
import pytest

from tests.conftest import Database
from tests.support.pressure import until_waiting
from transferd.domain.ledger import MAIN
from transferd.ledger.store.queries import query

_WALLETS = 20_000


@pytest.fixture
async def large(database: Database) -> Database:
    """A database with enough wallets, users and transfers for PostgreSQL to prefer an index."""
    await database.fetch(
        "INSERT INTO ledger_00.users (id, name, metadata, created_at)"
        " SELECT gen_random_uuid(), NULL, '{}', now() FROM generate_series(1, $1)",
        _WALLETS,
    )
    await database.fetch(
        "INSERT INTO ledger_00.wallets (id, user_id, balance, held, overdraft_limit, version,"
        " created_at, updated_at, status, funding, currency, metadata)"
        " SELECT gen_random_uuid(), id, 0, 0, 0, 0, now(), now(), 0, false, 'USD', '{}'"
        " FROM ledger_00.users"
    )
    await database.fetch(
        "INSERT INTO ledger_00.transfers (id, source_wallet_id, destination_wallet_id, amount,"
        " source_version, source_balance_after, destination_version, destination_balance_after,"
        " created_at, kind, currency)"
        " SELECT gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 1, 1, 0, 1, 0, now(), 0,"
        " 'USD' FROM generate_series(1, $1)",
        _WALLETS,
    )
    for table in ("ledger_00.users", "ledger_00.wallets", "ledger_00.transfers"):
        await database.fetch(f"ANALYZE {table}")
    return database


_UNKNOWN = "'ffffffff-ffff-7fff-bfff-ffffffffffff'"


async def plan_of(database: Database, file: str, name: str, arguments: list[str]) -> str:
    """How PostgreSQL executes a query with these arguments."""
    sql = query(MAIN.schema, name, file)
    for number in range(len(arguments), 0, -1):
        sql = sql.replace(f"${number}", arguments[number - 1])
    return "\n".join(row[0] for row in await database.fetch(f"EXPLAIN {sql}"))


async def test_a_page_follows_an_index(large: Database, subtests: pytest.Subtests) -> None:
    for file, name, arguments in (
        ("queries.sql", "list_wallets", ["NULL", "NULL", _UNKNOWN, "51"]),
        ("queries.sql", "list_wallets", [_UNKNOWN, "NULL", "NULL", "51"]),
        ("queries.sql", "list_users", [_UNKNOWN, "51"]),
        ("queries.sql", "statement", [_UNKNOWN, "0", "100", "51"]),
        ("queries.sql", "list_transfers", [_UNKNOWN, "100", "51"]),
        ("queries.sql", "read_transfers", [f"ARRAY[{_UNKNOWN}]"]),
        ("audit.sql", "wallets_page", ["'00000000-0000-7000-8000-000000000000'", "2000"]),
        ("audit.sql", "transfers_page", ["'00000000-0000-7000-8000-000000000000'", "2000"]),
    ):
        with subtests.test(file=file, name=name, arguments=arguments):
            plan = await plan_of(large, file, name, arguments)
            assert "Index" in plan, plan
            assert "Seq Scan" not in plan, plan


_LOCKED = 1_000


async def test_locks_of_many_wallets_cost_little_after_a_wait(large: Database) -> None:
    # PostgreSQL checks the condition again for each row that another transaction has changed.
    rows = await large.fetch("SELECT id::text FROM ledger_00.wallets LIMIT $1", _LOCKED)
    ids = [row["id"] for row in rows]
    sql = query(MAIN.schema, "lock_and_look_up")
    url = large.servers.database_url(large.name, superuser=True)
    one, other = await asyncpg.connect(url), await asyncpg.connect(url)

    async def lock() -> None:
        assert len(await one.fetch(sql, ids, [], "{}", [])) == len(ids) + 1

    async def after_a_wait_s() -> float:
        async with other.transaction():
            await other.execute(
                "UPDATE ledger_00.wallets SET version = version + 1 WHERE id = ANY ($1)", ids
            )
            locking = asyncio.create_task(lock())
            await until_waiting(large, one.get_server_pid())
            began = time.perf_counter()
        await locking
        return time.perf_counter() - began

    async def at_once_s() -> float:
        began = time.perf_counter()
        await lock()
        return time.perf_counter() - began

    try:
        at_once = min([await at_once_s() for _ in range(3)])
        after_a_wait = min([await after_a_wait_s() for _ in range(3)])
    finally:
        await one.close()
        await other.close()
    # Twice the time, and a hundred times if the ids have to be parsed again for each row.
    assert after_a_wait < 20 * at_once


async def test_the_relay_reads_the_oldest_rows_of_the_outbox_by_an_index(
    database: Database,
) -> None:
    await database.fetch(
        "INSERT INTO ledger_00.outbox (created_at, event_count, events)"
        " SELECT now() + n * interval '1 second', 1, '[]' FROM generate_series(1, 20000) AS n"
    )
    await database.fetch("ANALYZE ledger_00.outbox")
    plan = await plan_of(database, "queries.sql", "read_outbox", ["500"])
    assert "using outbox_in_order on outbox" in plan, plan
    assert "Sort" not in plan, plan


_ENDPOINTS = 100
_ENDPOINT = "'00000000-0000-0000-0000-000000000001'::uuid"


@pytest.fixture
async def logged(database: Database) -> Database:
    """A database with enough deliveries, of which half wait, for PostgreSQL to prefer an index."""
    await database.fetch(
        "INSERT INTO ledger_00.deliveries (id, number, endpoint_id, event_id, event_type, status,"
        " attempts, next_attempt_at, event, created_at, updated_at) SELECT gen_random_uuid(), n,"
        " ('00000000-0000-0000-0000-' || lpad((n % $2)::text, 12, '0'))::uuid, n,"
        " 'transfer.posted', CASE WHEN n / $2 % 2 = 0 THEN 2 ELSE 1 END, 1,"
        " CASE WHEN n / $2 % 4 = 0 THEN now() END, '{}', now(), now()"
        " FROM generate_series(1, $1) AS n",
        500 * _ENDPOINTS,
        _ENDPOINTS,
    )
    await database.fetch("ANALYZE ledger_00.deliveries")
    return database


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        (
            "read_waiting",
            [f"ARRAY[{_ENDPOINT}]", "ARRAY[256]", f"ARRAY[{_ENDPOINT}]", "ARRAY['1']"],
        ),
        ("endpoints_waiting", []),
    ],
)
async def test_waiting_deliveries_are_found_by_their_own_index(
    name: str, arguments: list[str], logged: Database
) -> None:
    plan = await plan_of(logged, "queries.sql", name, arguments)
    reads = [line for line in plan.splitlines() if " on deliveries" in line]
    assert len(reads) >= 2, plan
    assert all("using deliveries_waiting on" in line for line in reads), plan
    # The index is in the order of the attempts, so no more is read than there is room for.
    assert "Sort" not in plan, plan
