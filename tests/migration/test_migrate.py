"""Migrations: each is applied once, wholly or not at all, also concurrently; upgrades keep data."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import count
from typing import Any

import asyncpg
import pytest
from iso4217 import Currency

from tests.conftest import Database
from tests.support.api import Api
from tests.support.command import run, transferd
from tests.support.damage import make_traffic
from tests.support.outbox import transfer_event
from tests.support.servers import Servers
from tests.support.store import open_main
from transferd.commit.events import cloud_event
from transferd.config import Limits
from transferd.domain.ledger import MAIN
from transferd.domain.webhook import DeliveryStatus
from transferd.ledger.ids import new_id
from transferd.ledger.migrate import migrate
from transferd.ledger.steps import Migration, MigrationError, migrations
from transferd.ledger.store.dead_letters import Filter, fold_dead_letters, list_dead_letters
from transferd.ledger.store.deliveries import (
    LOG,
    EventText,
    NewDelivery,
    insert_deliveries,
    list_deliveries,
    read_waiting,
)
from transferd.ledger.store.errors import StoreError
from transferd.ledger.store.webhooks import lock_webhook

_OF_MAIN = pytest.mark.needs_configuration("main", why="an older database has one ledger")

EVERYTHING = [migration.name for migration in migrations()]


def migration(name: str, sql: str) -> Migration:
    return Migration(name, sql, hashlib.sha256(sql.encode()).hexdigest())


@pytest.fixture
async def blank(servers: Servers) -> AsyncIterator[Database]:
    """A database without migrations."""
    name, redis_number = await servers.new_database(template="template1")
    yield Database(name, redis_number, servers)
    await servers.drop_database(name)


async def bring_up(database: Database, *more: Migration) -> list[str]:
    return await migrate(database.settings(), Limits(), [*migrations(), *more])


class Apart:
    """A different number at each use, so it is no lock."""

    def __init__(self) -> None:
        self._numbers = count()

    def __int__(self) -> int:
        return next(self._numbers)


_WITHOUT_NODES = pytest.mark.needs_configuration(
    "one server", why="versions before ledgers do not place them on nodes"
)


async def time_limits_in(database: Database) -> dict[str, str]:
    """The settings of the service's role for this database only."""
    rows = await database.fetch(
        "SELECT unnest(setconfig) AS setting FROM pg_db_role_setting"
        " WHERE setrole = 'transferd'::regrole"
        " AND setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    # Another one of the role is about Citus.
    rows = [row for row in rows if not row["setting"].startswith("citus.")]
    return dict(row["setting"].split("=") for row in rows)


async def as_service(database: Database, sql: str) -> list[asyncpg.Record]:
    """Run one statement with the rights of the service."""
    connection = await asyncpg.connect(database.settings().required("database_url"))
    try:
        rows: list[asyncpg.Record] = await connection.fetch(database.in_ledger(sql))
        return rows
    finally:
        await connection.close()


# Applying


@_OF_MAIN
async def test_a_new_database_gets_every_migration_and_then_none(blank: Database) -> None:
    assert await migrate(blank.settings(), Limits()) == EVERYTHING
    before = await blank.fetch("SELECT * FROM ledger_00.wallets ORDER BY id")
    assert await migrate(blank.settings(), Limits()) == []
    assert await blank.fetch("SELECT * FROM ledger_00.wallets ORDER BY id") == before
    rows = await blank.fetch("SELECT name, sha256 FROM transferd.schema_migrations ORDER BY name")
    assert [tuple(row) for row in rows] == [(each.name, each.sha256) for each in migrations()]


async def test_only_new_migrations_are_applied_to_a_used_ledger(
    database: Database, api: Api
) -> None:
    await make_traffic(api)
    before = await database.fetch("SELECT * FROM ledger_00.wallets ORDER BY id")
    later = migration("9000_later.sql", "CREATE TABLE transferd.later (id integer)")
    assert await bring_up(database, later) == ["9000_later.sql"]
    assert await bring_up(database, later) == []
    assert await database.fetch("SELECT * FROM ledger_00.wallets ORDER BY id") == before


async def test_a_changed_file_is_refused(database: Database) -> None:
    first, *rest = migrations()
    changed = [replace(first, sha256="0" * 64), *rest]
    with pytest.raises(MigrationError, match=f"{first.name} has changed"):
        await migrate(database.settings(), Limits(), changed)


async def test_a_database_of_a_newer_release_is_refused_in_one_line(database: Database) -> None:
    await bring_up(database, migration("9000_later.sql", "SELECT 1"))
    ended = await transferd("migrate", database_url=database.settings().required("database_url"))
    assert "9000_later.sql was applied by a newer release" in ended.complaint


@pytest.mark.parametrize("level", ["read committed", "serializable"])
@_OF_MAIN
async def test_concurrent_migrations_run_one_after_the_other(blank: Database, level: str) -> None:
    await blank.isolate(level)
    applied = await asyncio.gather(*(bring_up(blank) for _ in range(8)))
    assert sorted(name for names in applied for name in names) == EVERYTHING
    [[currencies]] = await blank.fetch("SELECT count(*) FROM ledger_00.currencies")
    [[wallets]] = await blank.fetch("SELECT count(*) FROM ledger_00.wallets")
    assert wallets == currencies > 0


async def test_without_the_lock_concurrent_migrations_conflict(
    blank: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transferd.ledger.migrate.LOCK", Apart())
    results = await asyncio.gather(*(bring_up(blank) for _ in range(8)), return_exceptions=True)
    assert any(isinstance(result, StoreError) for result in results)


async def test_nothing_of_a_failing_migration_is_kept(blank: Database) -> None:
    fine = migration("9000_fine.sql", "CREATE TABLE transferd.fine (id integer)")
    wrong = migration("9001_wrong.sql", "CREATE TABLE transferd.half (id integer); SELECT 1 / 0")
    with pytest.raises(StoreError, match="division by zero"):
        await bring_up(blank, fine, wrong)
    [[half]] = await blank.fetch("SELECT to_regclass('transferd.half')")
    assert half is None
    # Those before it are kept: each has a transaction of its own.
    rows = await blank.fetch("SELECT name FROM transferd.schema_migrations ORDER BY name")
    assert [row["name"] for row in rows] == [*EVERYTHING, "9000_fine.sql"]
    assert await bring_up(blank, fine) == []
    assert await time_limits_in(blank) != {}


# Upgrades

WEBHOOKS_KEEP_PROMISES = "0003_webhooks.sql"
HOOK = "019a0000-0000-7000-8000-00000000000a"
IDLE_HOOK = "019a0000-0000-7000-8000-00000000000b"
NEW_HOOK = "019a0000-0000-7000-8000-00000000000c"


async def version_before(database: Database, name: str) -> None:
    """The database as it was before this migration."""
    older = [migration for migration in migrations() if migration.name < name]
    assert await migrate(database.settings(), Limits(), older) == [each.name for each in older]


async def webhook_of_the_version_before(
    database: Database, id: str, secret: str, previous: str | None, until: str | None
) -> None:
    await database.fetch(
        "INSERT INTO transferd.webhooks (id, client_id, url, events, secret, previous_secret,"
        " previous_secret_until, status, created_at, updated_at)"
        " VALUES ($1, 1, 'https://example.com/', '{*}', $2, $3, now() + $4::text::interval, 0,"
        " now(), now())",
        id,
        secret,
        previous,
        until,
    )


async def signing(database: Database, id: str) -> list[str]:
    """The secrets of a webhook that sign now."""
    async with open_main(database.settings()) as store, store.transaction() as transaction:
        locked = await lock_webhook(transaction, id)
    assert locked is not None
    webhook, now = locked
    return [webhook.secret, *(old.secret for old in webhook.promised(now))]


@_WITHOUT_NODES
@_OF_MAIN
async def test_rotated_secrets_still_sign_after_an_upgrade(
    blank: Database,
) -> None:
    await version_before(blank, WEBHOOKS_KEEP_PROMISES)
    await webhook_of_the_version_before(blank, HOOK, "whsec_b", "whsec_a", "1 hour")
    await webhook_of_the_version_before(blank, IDLE_HOOK, "whsec_d", "whsec_c", "-1 hour")
    await webhook_of_the_version_before(blank, NEW_HOOK, "whsec_e", None, None)
    rows = "SELECT id, secret, previous_secret, previous_secret_until FROM transferd.webhooks"
    before = await blank.fetch(rows + " ORDER BY id")
    assert WEBHOOKS_KEEP_PROMISES in await bring_up(blank)
    assert await blank.fetch(rows + " ORDER BY id") == before
    assert await signing(blank, HOOK) == ["whsec_b", "whsec_a"]
    assert await signing(blank, IDLE_HOOK) == ["whsec_d"]
    assert await signing(blank, NEW_HOOK) == ["whsec_e"]
    # A replica of the version before still runs and does not write the new column.
    await blank.fetch(
        "UPDATE transferd.webhooks SET previous_secret = secret, secret = 'whsec_new',"
        " previous_secret_until = now() + interval '1 day'"
    )
    assert await signing(blank, HOOK) == ["whsec_new", "whsec_b", "whsec_a"]
    assert await signing(blank, IDLE_HOOK) == ["whsec_new", "whsec_d"]
    assert await signing(blank, NEW_HOOK) == ["whsec_new", "whsec_e"]


ROWS_OWN_STATE = "0004_deliveries.sql"
# The statements with which a notifier of the version before writes results and dead letters.
RECORDS_OF_THE_VERSION_BEFORE = """
INSERT INTO transferd.deliveries AS d (
    id, event_id, endpoint_id, event_type, status, attempts, response_status, error,
    response_excerpt, event, next_attempt_at, created_at, updated_at)
SELECT id, event_id, endpoint_id, event_type, status, attempts, response_status, error, excerpt,
       event::json, now() + make_interval(secs => wait_s), now(), now()
FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::text[], $5::smallint[], $6::integer[],
            $7::smallint[], $8::text[], $9::text[], $10::text[], $11::float8[])
    AS r (id, event_id, endpoint_id, event_type, status, attempts, response_status, error, excerpt,
          event, wait_s)
ON CONFLICT (event_id, endpoint_id) DO UPDATE
SET status = excluded.status, attempts = d.attempts + excluded.attempts,
    response_status = excluded.response_status, error = excluded.error,
    response_excerpt = excluded.response_excerpt, next_attempt_at = excluded.next_attempt_at,
    updated_at = excluded.updated_at
WHERE d.status <> 1 AND excluded.status <> -1
"""
LETTERS_OF_THE_VERSION_BEFORE = """
INSERT INTO transferd.dead_letters (
    id, endpoint_id, event_id, event_type, reason, detail, attempts, body, died_at)
SELECT id, endpoint_id, event_id, event_type, reason, detail, attempts, body, now()
FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::integer[],
            $8::bytea[])
    AS l (id, endpoint_id, event_id, event_type, reason, detail, attempts, body)
ON CONFLICT DO NOTHING
"""
COLUMNS_OF_THE_VERSION_BEFORE = (
    "id, endpoint_id, created_at, updated_at, next_attempt_at, attempts, status, response_status,"
    " event_id, event_type, error, response_excerpt, event::text"
)


async def recorded_by_the_version_before(
    database: Database, endpoint: str, event: dict[str, Any], status: int
) -> None:
    """The result of an attempt; a retry waits for an hour."""
    columns = [new_id(MAIN), event["id"], endpoint, event["type"], status, 1]
    result = [None, None, None] if status == 1 else [500, "answered 500", "oh no"]
    # The log sink's rows have no event.
    text = None if endpoint == LOG else cloud_event(event, MAIN.name).decode()
    values = [*columns, *result, text, 3600.0 if status == 2 else None]
    await database.fetch(RECORDS_OF_THE_VERSION_BEFORE, *([value] for value in values))


async def buried_by_the_version_before(
    database: Database, endpoint: str | None, event: dict[str, Any] | None
) -> str:
    """The id of a dead letter: of an event, or of a message that is none."""
    id = new_id(MAIN)
    named = [None, None] if event is None else [event["id"], event["type"]]
    why = (
        ["attempts exhausted", "answered 500", 1]
        if endpoint
        else ["undeliverable", "given up by the broker", 0]
    )
    body = b"\xffno event" if event is None else cloud_event(event, MAIN.name)
    values = [id, endpoint, *named, *why, body]
    await database.fetch(LETTERS_OF_THE_VERSION_BEFORE, *([value] for value in values))
    return id


async def given_up_by_the_version_before(
    database: Database, endpoint: str, event: dict[str, Any]
) -> None:
    """The last result of a delivery, and its letter."""
    await recorded_by_the_version_before(database, endpoint, event, 3)
    await buried_by_the_version_before(database, endpoint, event)


@_WITHOUT_NODES
@_OF_MAIN
async def test_an_upgrade_keeps_rows_and_letters_of_the_version_before(blank: Database) -> None:
    await version_before(blank, ROWS_OWN_STATE)
    events = [transfer_event() for _ in range(5)]
    for status, event in enumerate(events[:3]):
        await recorded_by_the_version_before(blank, HOOK, event, status)
    await recorded_by_the_version_before(blank, LOG, events[0], 2)
    await given_up_by_the_version_before(blank, HOOK, events[3])
    await given_up_by_the_version_before(blank, LOG, events[4])
    # A letter whose row was deleted with its webhook or after its time.
    await buried_by_the_version_before(blank, IDLE_HOOK, events[4])
    unaddressed = await buried_by_the_version_before(blank, None, events[0])
    unreadable = await buried_by_the_version_before(blank, None, None)
    rows = f"SELECT {COLUMNS_OF_THE_VERSION_BEFORE} FROM transferd.deliveries ORDER BY id"
    letters = "SELECT * FROM transferd.dead_letters ORDER BY id"
    before = await blank.fetch(rows), await blank.fetch(letters)
    assert ROWS_OWN_STATE in await bring_up(blank)
    assert (await blank.fetch(rows), await blank.fetch(letters)) == before
    indexes = await blank.fetch(
        "SELECT indexrelid::regclass::text AS name FROM pg_index"
        " WHERE indrelid = 'ledger_00.deliveries'::regclass AND indisvalid"
    )
    assert {row["name"] for row in indexes} >= {
        "ledger_00.deliveries_waiting",
        "ledger_00.deliveries_dead",
    }
    async with open_main(blank.settings()) as store:
        await fold_dead_letters(store)
        found = await list_dead_letters(store, Filter(), after_id=None, limit=10)
    given_up = {(each.endpoint_id, each.event_id) for each in found}
    assert given_up == {
        (HOOK, events[3]["id"]),
        (LOG, events[4]["id"]),
        (IDLE_HOOK, events[4]["id"]),
        (None, events[0]["id"]),
        (None, None),
    }
    bodies = {each["id"]: cloud_event(each, MAIN.name) for each in events}
    for each in found:
        assert each.body == (bodies[each.event_id] if each.event_id else b"\xffno event")
    # A worker sends the letter that names no endpoint to those that want it; see Carryover.
    left = {str(row["id"]) for row in await blank.fetch(letters)}
    assert left == {unaddressed, unreadable}


@_WITHOUT_NODES
@_OF_MAIN
async def test_rows_that_a_worker_of_the_version_before_writes_later_are_taken_over(
    database: Database,
) -> None:
    failed, again, delivered, waiting = [transfer_event() for _ in range(4)]
    # The relay of this version writes these rows; a notifier of the version before gives one up.
    texts = [
        EventText(event["id"], event["type"], cloud_event(event, MAIN.name).decode())
        for event in (failed, delivered)
    ]
    async with open_main(database.settings()) as store:
        async with store.transaction() as transaction:
            pending = [NewDelivery(n, HOOK, DeliveryStatus.PENDING) for n in (1, 2)]
            await insert_deliveries(transaction, texts, pending)
        await given_up_by_the_version_before(database, HOOK, failed)
        await recorded_by_the_version_before(database, HOOK, delivered, 1)
        # For these the notifier of the version before writes the first row.
        await given_up_by_the_version_before(database, HOOK, again)
        await recorded_by_the_version_before(database, HOOK, waiting, 2)
        await fold_dead_letters(store)
        # Once more there is nothing to fold.
        await fold_dead_letters(store)
        found = await list_dead_letters(store, Filter(), after_id=None, limit=10)
        log = await list_deliveries(store, HOOK, status=None, before_id=None, limit=10)
        # The hour is over.
        await database.fetch(
            "UPDATE transferd.deliveries SET next_attempt_at = now()"
            " WHERE next_attempt_at IS NOT NULL"
        )
        due, _ = await read_waiting(store, {HOOK: 10}, [])
    assert {each.event_id: each.body for each in found} == {
        event["id"]: cloud_event(event, MAIN.name) for event in (failed, again)
    }
    for each in found:
        assert (each.endpoint_id, each.attempts) == (HOOK, 1)
        assert (each.reason, each.detail) == ("attempts exhausted", "answered 500")
    assert {row.event_id: row.status for row in log} == {
        failed["id"]: DeliveryStatus.DEAD,
        again["id"]: DeliveryStatus.DEAD,
        delivered["id"]: DeliveryStatus.DELIVERED,
        waiting["id"]: DeliveryStatus.RETRYING,
    }
    [retry] = due
    body = cloud_event(waiting, MAIN.name).decode()
    assert (retry.event_id, retry.event) == (waiting["id"], body)
    assert (retry.attempts, retry.failures) == (1, 0)
    assert await database.fetch("SELECT 1 FROM transferd.dead_letters") == []


@_WITHOUT_NODES
@_OF_MAIN
async def test_a_delivery_that_is_pending_or_delivered_meanwhile_has_no_letter(
    database: Database,
) -> None:
    pending, delivered = transfer_event(), transfer_event()
    for event in (pending, delivered):
        await given_up_by_the_version_before(database, HOOK, event)
    await database.fetch(
        "UPDATE transferd.deliveries SET status = CASE event_id WHEN $1 THEN 0 ELSE 1 END",
        pending["id"],
    )
    rows = "SELECT * FROM transferd.deliveries ORDER BY event_id"
    before = await database.fetch(rows)
    async with open_main(database.settings()) as store:
        await fold_dead_letters(store)
        assert await list_dead_letters(store, Filter(), after_id=None, limit=10) == []
    assert await database.fetch(rows) == before


@_WITHOUT_NODES
@_OF_MAIN
async def test_an_upgraded_log_accepts_skipped_deliveries(blank: Database) -> None:
    await version_before(blank, WEBHOOKS_KEEP_PROMISES)
    insert = (
        "INSERT INTO transferd.deliveries (id, event_id, endpoint_id, event_type, status, attempts,"
        " created_at, updated_at) VALUES ($1::uuid, $2, $1::uuid, 'user.created', $3, 1, now(),"
        " now())"
    )
    for number in range(4):
        await blank.fetch(insert, HOOK, f"event-{number}", number)
    with pytest.raises(asyncpg.CheckViolationError):
        await blank.fetch(insert, HOOK, "skipped", -1)
    rows = f"SELECT {COLUMNS_OF_THE_VERSION_BEFORE} FROM transferd.deliveries ORDER BY event_id"
    before = await blank.fetch(rows)
    await bring_up(blank)
    assert await blank.fetch(rows) == before
    await blank.fetch(insert, HOOK, "skipped", -1)
    with pytest.raises(asyncpg.CheckViolationError):
        await blank.fetch(insert, HOOK, "unknown", 4)
    async with open_main(blank.settings()) as store:
        log = await list_deliveries(store, HOOK, status=None, before_id=None, limit=10)
    assert {row.event_id: row.status for row in log} == dict(
        zip([*(f"event-{number}" for number in range(4)), "skipped"], DeliveryStatus, strict=True)
    )


# Privileges


@pytest.mark.needs_configuration(
    "connections of its own", why="PgBouncer keeps those to which the limits do not yet apply"
)
async def test_the_role_gets_time_limits_on_its_database(blank: Database) -> None:
    await bring_up(blank)
    assert await time_limits_in(blank) == {
        "statement_timeout": "3000ms",
        "idle_in_transaction_session_timeout": "2000ms",
        "lock_timeout": "1000ms",
        "jit": "off",
    }
    await migrate(blank.settings(), Limits(statement_timeout_s=2.5))
    [[shown]] = await as_service(blank, "SHOW statement_timeout")
    assert shown == "2500ms"


async def test_every_currency_with_minor_units_has_a_funding_wallet(database: Database) -> None:
    rows = await database.fetch(
        "SELECT c.code, c.exponent, w.funding, w.currency, w.balance, w.version"
        " FROM ledger_00.currencies c"
        " LEFT JOIN ledger_00.wallets w ON w.id = c.funding_wallet_id"
    )
    assert {row["code"]: row["exponent"] for row in rows} == {
        currency.code: currency.exponent for currency in Currency if currency.exponent is not None
    }
    for row in rows:
        assert tuple(row)[2:] == (True, row["code"], 0, 0)
    # XAU has no minor units.
    exponents = {row["code"]: row["exponent"] for row in rows}
    assert [exponents.get(code) for code in ("JPY", "USD", "KWD", "XAU")] == [0, 2, 3, None]


async def test_a_currency_of_a_newer_list_is_added(database: Database) -> None:
    await database.fetch(
        "DELETE FROM ledger_00.wallets WHERE funding AND currency = 'KWD'",
    )
    await database.fetch("DELETE FROM ledger_00.currencies WHERE code = 'KWD'")
    before = await database.fetch("SELECT * FROM ledger_00.currencies ORDER BY code")
    await bring_up(database)
    after = await database.fetch("SELECT * FROM ledger_00.currencies ORDER BY code")
    assert [row for row in after if row["code"] != "KWD"] == before
    [[version]] = await database.fetch(
        "SELECT version FROM ledger_00.wallets WHERE funding AND currency = 'KWD'"
    )
    assert version == 0


async def test_the_service_cannot_rewrite_history(
    database: Database, subtests: pytest.Subtests
) -> None:
    for sql in (
        *(
            statement.format(table)
            for table in (
                "ledger_00.transfers",
                "ledger_00.wallet_changes",
                "ledger_00.outcomes",
            )
            for statement in (
                "UPDATE {} SET created_at = created_at",
                "DELETE FROM {}",
                "TRUNCATE {}",
            )
        ),
        "DELETE FROM ledger_00.wallets",
        "TRUNCATE ledger_00.wallets",
        "DELETE FROM ledger_00.currencies",
        "TRUNCATE ledger_00.currencies",
    ):
        with subtests.test(sql=sql):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await as_service(database, sql)
            # Only the privilege is missing: the superuser can execute the statement.
            await database.fetch(sql)


async def test_no_statement_leaves_a_wallet_below_its_limit(database: Database, api: Api) -> None:
    wallet = await api.wallet(overdraft_limit=500)
    update = f"UPDATE ledger_00.wallets SET {{}} WHERE id = '{wallet}'"
    await as_service(database, update.format("balance = -500"))
    for below in ("balance = -501", "held = 1", "overdraft_limit = 499"):
        with pytest.raises(asyncpg.CheckViolationError, match="wallets_check1"):
            await as_service(database, update.format(below))
    with pytest.raises(asyncpg.CheckViolationError, match="wallets_check2"):
        await as_service(database, update.format("status = 2"))
    await as_service(database, "UPDATE ledger_00.wallets SET balance = -501 WHERE funding")


# The commands


async def test_the_command_lists_the_applied_migrations(blank: Database) -> None:
    url = blank.settings().required("database_url")
    first = await transferd("migrate", database_url=url)
    assert (first.code, first.out.splitlines(), first.err) == (
        0,
        [f"applied {name}" for name in EVERYTHING],
        "",
    )
    second = await transferd("migrate", database_url=url)
    assert (second.code, second.out, second.err) == (0, "the database is up to date\n", "")


@_WITHOUT_NODES
@pytest.mark.parametrize("command", ["serve", "worker"])
async def test_no_command_runs_before_all_migrations_are_applied(
    blank: Database, command: str
) -> None:
    *older, last = migrations()
    await migrate(blank.settings(), Limits(), older)
    code, output = await run(
        command, settings=blank.variables(TRANSFERD_AMQP_URL="amqp://127.0.0.1:1/")
    )
    assert code == 1
    complaint = output.splitlines()[-1]
    assert complaint.startswith("Error: ")
    assert complaint.endswith(
        f"not up to date ({last.name} is not applied): run `transferd migrate`"
    )
