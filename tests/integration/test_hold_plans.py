"""Queries about holds follow an index, and read little for a wallet that has had many holds."""

import re
from datetime import UTC, datetime
from itertools import product

import asyncpg
import pytest

from tests.conftest import Database
from transferd.domain.hold import Hold, HoldStatus
from transferd.domain.ledger import MAIN
from transferd.domain.wallet import ChangeKind, WalletChange, WalletStatus
from transferd.ledger.ids import new_id
from transferd.ledger.store.group_rows import GroupResult, change_parameters, group_parameters
from transferd.ledger.store.queries import query, values

BUSY = "'00000000-0000-7000-8000-00000000000b'::uuid"
NO_WALLET = "'ffffffff-ffff-7fff-bfff-ffffffffffff'::uuid"
ACTIVE, RELEASED, EXPIRED = 0, 2, 3
# The busy wallet has the most active holds that the limits allow, many that have ended, and as
# many changes.
OPEN, DUE, ENDED, CHANGES = 1_000, 20, 20_000, 40_000
# A page of 50 looks at so many holds at most.
LOOKED_AT = 500
PAGE = f"51, {LOOKED_AT}"
_OF_WALLET = "list_holds_of_wallet"
PAST = "now() - n * interval '1 second'"
_HOLDS = (
    "INSERT INTO ledger_00.holds (id, source_wallet_id, amount, captured, released, created_at,"
    " updated_at, expires_at, status, currency, metadata)"
    " SELECT gen_random_uuid(), wallet, 1, 0, {released}, now(), now(), {expires_at}, {status},"
    " 'USD', '{{}}' FROM {wallets}"
)


def wallets(of_busy: int, of_others: int) -> str:
    """Rows (wallet, n) for so many holds of the busy wallet, and of a wallet each."""
    return (
        f"(SELECT {BUSY} AS wallet, n FROM generate_series(1, {of_busy}) AS n UNION ALL"
        f" SELECT gen_random_uuid(), n % {OPEN} + 1 FROM generate_series(1, {of_others}) AS n) w"
    )


@pytest.fixture
async def held(database: Database) -> Database:
    """A database with enough holds and changes for PostgreSQL to prefer an index."""
    hours = f"now() + (n - {DUE} - 0.5) * interval '1 hour'"
    for sql in (
        _HOLDS.format(
            released=0, expires_at=hours, status=ACTIVE, wallets=wallets(OPEN, 20 * OPEN)
        ),
        _HOLDS.format(released=1, expires_at=PAST, status=RELEASED, wallets=wallets(ENDED, ENDED)),
        "INSERT INTO ledger_00.wallets (id, user_id, balance, held, overdraft_limit, version,"
        " created_at, updated_at, status, funding, currency, metadata, hold_expires_at, open_holds)"
        f" SELECT {BUSY}, gen_random_uuid(), {OPEN}, {OPEN}, 0, 0, now(), now(), 0, false, 'USD',"
        f" '{{}}'::json, now(), {OPEN} UNION ALL SELECT gen_random_uuid(), gen_random_uuid(), 0, 0,"
        " 0, 0, now(), now(), 0, false, 'USD', '{}'::json, NULL, 0"
        f" FROM generate_series(1, {ENDED})",
        # Each of these changes is an expiry, so they seem to follow each other without an end.
        "INSERT INTO ledger_00.wallet_changes (wallet_id, version, created_at, balance_after,"
        " overdraft_limit, kind, status, held_after, hold_id, hold_expires_at)"
        f" SELECT {BUSY}, n, now(), 0, 0, 9, 0, 1, {BUSY}, now() + n * interval '1 hour'"
        f" FROM generate_series(0, {CHANGES}) AS n",
        "ANALYZE ledger_00.holds",
        "ANALYZE ledger_00.wallets",
        "ANALYZE ledger_00.wallet_changes",
    ):
        await database.fetch(sql)
    return database


async def plan_of(
    database: Database, name: str, arguments: str, mode: str = "auto"
) -> tuple[str, int]:
    """The plan of a query that has run often, and the number of pages that it reads.

    mode: the setting plan_cache_mode.
    """
    sql = query(MAIN.schema, name)
    call = f"EXECUTE query ({arguments})" if arguments else "EXECUTE query"
    url = database.servers.database_url(database.name, superuser=True)
    connection = await asyncpg.connect(url, statement_cache_size=0)
    try:
        await connection.execute(f"SET plan_cache_mode = {mode}")
        await connection.execute(f"PREPARE query AS {sql}")
        # After five times PostgreSQL may choose a plan for all arguments.
        for _ in range(6):
            await connection.execute(call)
        rows = await connection.fetch(f"EXPLAIN (ANALYZE, BUFFERS, COSTS OFF) {call}")
    finally:
        await connection.close()
    plan = "\n".join(row[0] for row in rows)
    # The first node includes the pages of the others.
    found = re.search(r"Buffers: shared(?: hit=(\d+))?(?: read=(\d+))?", plan)
    assert found is not None, plan
    return plan, sum(int(pages) for pages in found.groups() if pages)


async def test_a_query_about_holds_reads_little_by_an_index(
    held: Database, subtests: pytest.Subtests
) -> None:
    for name, arguments in (
        ("list_holds", f"NULL, NULL, NULL, {PAGE}"),
        ("list_holds", f"NULL, NULL, {NO_WALLET}, {PAGE}"),
        ("list_holds", f"{RELEASED}, NULL, NULL, {PAGE}"),
        ("list_holds", f"NULL, now(), NULL, {PAGE}"),
        ("list_holds_of_wallet", f"{BUSY}, NULL, NULL, NULL, {PAGE}"),
        ("list_holds_of_wallet", f"{BUSY}, {RELEASED}, NULL, {NO_WALLET}, {PAGE}"),
        ("list_active_holds", "now() + interval '1 hour', NULL, 51, 100"),
        ("holds_now_by_id", f"ARRAY[{NO_WALLET}]"),
        ("lock_and_look_up", f"'{{}}', ARRAY[{NO_WALLET}], '{{}}', '{{}}'"),
        ("due_holds", f"ARRAY[{BUSY}], now(), 2001"),
        ("due_wallets", f"20, ARRAY[{NO_WALLET}]"),
        ("has_due_holds", ""),
        ("read_wallets", f"ARRAY[{BUSY}]"),
        ("list_wallets", f"{NO_WALLET}, NULL, NULL, 51"),
        ("statement", f"{BUSY}, 1000, 2000, 51"),
        ("state_at_version", f"{BUSY}, 1000, now()"),
        ("state_at_version", f"{BUSY}, 1000, now() + {1_000 + DUE} * interval '1 hour'"),
    ):
        with subtests.test(name=name, arguments=arguments):
            plan, pages = await plan_of(held, name, arguments)
            assert "Index" in plan, plan
            assert "Seq Scan" not in plan, plan
            # The holds alone have more than a thousand.
            assert pages < 300, plan


async def test_a_page_of_holds_reads_little_where_few_or_none_match(
    held: Database, subtests: pytest.Subtests
) -> None:
    """Every combination of filters, at the beginning and in the middle of the list."""
    # All holds of the busy wallet are older than those of the others.
    await held.fetch(
        "UPDATE ledger_00.holds SET id = ('00000000' || substr(id::text, 9))::uuid"
        f" WHERE source_wallet_id = {BUSY}"
    )
    await held.fetch("VACUUM (FULL, ANALYZE) ledger_00.holds")
    [[middle]] = await held.fetch("SELECT id FROM ledger_00.holds ORDER BY id OFFSET 10000 LIMIT 1")
    for wallet, status, before, cursor, mode in product(
        (None, BUSY, NO_WALLET),
        ("NULL", ACTIVE, RELEASED, EXPIRED),
        ("NULL", "'1970-01-01'", "now() + interval '1 hour'"),
        ("NULL", f"'{middle}'"),
        ("auto", "force_generic_plan"),
    ):
        name, first = ("list_holds", "") if wallet is None else (_OF_WALLET, f"{wallet}, ")
        arguments = f"{first}{status}, {before}, {cursor}, {PAGE}"
        with subtests.test(name=name, arguments=arguments, mode=mode):
            plan, pages = await plan_of(held, name, arguments, mode)
            assert "Seq Scan" not in plan, plan
            index = "holds_pkey" if wallet is None else "holds_by_wallet"
            assert f"using {index} on holds" in plan, plan
            # The ids are in a random order here, so each hold that is looked at may be on a page of
            # its own; beside it are the pages of the index.
            assert pages < 2 * LOOKED_AT, plan


async def test_a_page_without_a_filter_reads_its_own_holds_only(held: Database) -> None:
    for name, first in (("list_holds", ""), (_OF_WALLET, f"{BUSY}, ")):
        plan, pages = await plan_of(held, name, f"{first}NULL, NULL, NULL, {PAGE}")
        assert pages < 2 * 51, plan


async def test_a_page_of_active_holds_reads_no_more_of_them_than_it_looks_at(
    held: Database, subtests: pytest.Subtests
) -> None:
    for before, cursor, looked_at, mode in product(
        ("NULL", "now() + interval '5 hours'"),
        ("NULL", NO_WALLET),
        (LOOKED_AT, 10 * LOOKED_AT),
        ("auto", "force_generic_plan"),
    ):
        arguments = f"{before}, {cursor}, 51, {looked_at}"
        with subtests.test(arguments=arguments, mode=mode):
            plan, pages = await plan_of(held, "list_active_holds", arguments, mode)
            assert "using holds_active on holds" in plan, plan
            assert pages < 2 * looked_at, plan


async def test_the_active_holds_of_a_wallet_are_found_behind_newer_ones_that_have_ended(
    held: Database,
) -> None:
    await held.fetch(
        "UPDATE ledger_00.holds SET id = ('00000000' || substr(id::text, 9))::uuid WHERE status = 0"
    )
    await held.fetch("ANALYZE ledger_00.holds")
    for arguments in (
        f"{BUSY}, NULL, NULL, 51",
        f"{BUSY}, now() + interval '5 hours', {NO_WALLET}, 51",
        f"{NO_WALLET}, now(), NULL, 51",
    ):
        plan, pages = await plan_of(held, "list_active_holds_of_wallet", arguments)
        assert "using holds_active_by_wallet on holds" in plan, plan
        # About a page for each of its active holds, and not one for each that has ended.
        assert pages < 2 * OPEN, plan


async def test_a_sweep_that_finds_nothing_reads_one_row(held: Database) -> None:
    await held.fetch(
        "UPDATE ledger_00.holds SET expires_at = now() + interval '1 hour'"
        " WHERE status = 0 AND expires_at < now()"
    )
    await held.fetch("ANALYZE ledger_00.holds")
    for name, arguments in (("has_due_holds", ""), ("due_wallets", f"20, ARRAY[{NO_WALLET}]")):
        plan, pages = await plan_of(held, name, arguments)
        assert "using holds_active on holds" in plan, plan
        assert pages < 50, plan


async def test_the_next_expiry_reads_the_active_holds_of_the_wallet_only(held: Database) -> None:
    plan, pages = await plan_of(held, "next_expiries", f"ARRAY[{BUSY}], now()")
    assert "using holds_active" in plan, plan
    assert pages < 300, plan


async def test_a_change_of_a_hold_finds_its_row_by_its_id(held: Database) -> None:
    now = datetime.now(UTC)
    wallet, id = "00000000-0000-7000-8000-00000000000b", new_id(MAIN)
    hold = Hold(
        id, wallet, None, "USD", 1, 0, 1, HoldStatus.RELEASED, now, None, None, "{}", now, now
    )
    change = WalletChange(
        wallet, 2, ChangeKind.HOLD_RELEASE, WalletStatus.ACTIVE, 0, 0, now, 0, hold
    )
    result = GroupResult(now, {}, changes=[change], holds={id: hold})
    parameters = group_parameters(result, [], 1)._asdict() | change_parameters(result, [])._asdict()
    url = held.servers.database_url(held.name, superuser=True)
    async with (
        asyncpg.create_pool(url, min_size=1, max_size=1) as pool,
        pool.acquire() as connection,
    ):
        name = "write_group_and_changes"
        sql = f"EXPLAIN {query(MAIN.schema, name)}"
        rows = await connection.fetch(sql, *values(name)(parameters))
    reads = [row[0] for row in rows if " on holds h" in row[0] and "Update" not in row[0]]
    assert len(reads) == 1
    assert "using holds_pkey" in reads[0]
