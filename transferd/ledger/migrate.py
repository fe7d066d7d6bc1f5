"""Applies the migrations, once each; then adds currencies and sets the role's time limits."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources

import asyncpg
from iso4217 import Currency

from transferd.config import ConfigurationError, Limits, Settings
from transferd.domain.ledger import MAIN
from transferd.domain.wallet import ChangeKind, WalletStatus
from transferd.ledger.ids import new_id
from transferd.ledger.store.database import Database
from transferd.ledger.store.errors import Rejected, translated
from transferd.ledger.store.migrations import applied_migrations
from transferd.ledger.store.numbers import CHANGE_KIND_NUMBERS, WALLET_STATUS_NUMBERS

# Any number that is the same in every release: concurrent migrations run one after the other.
_LOCK = 7_310_423_085


class MigrationError(Exception):
    """The database does not fit the migrations of this release; the message says how."""


@dataclass(frozen=True, slots=True)
class Migration:
    """A file NNNN_name.sql and the SHA-256 of its text."""

    name: str
    sql: str
    sha256: str


def migrations() -> list[Migration]:
    """All migrations of this release, in order."""
    directory = resources.files("transferd.ledger").joinpath("migrations")
    found = []
    for file in sorted(directory.iterdir(), key=lambda entry: entry.name):
        if file.name.endswith(".sql"):
            sql = file.read_text()
            found.append(Migration(file.name, sql, hashlib.sha256(sql.encode()).hexdigest()))
    return found


async def migrate(
    settings: Settings,
    limits: Limits,
    available: Sequence[Migration] | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> list[str]:
    """Apply the missing migrations; returns their names.

    Safe when several start at once. While a transaction has a table locked it tries again, and
    reports which one. Raises MigrationError, and StoreError if PostgreSQL does not do what it is
    asked; then nothing of it is kept.
    """
    known = migrations() if available is None else list(available)
    password = settings.database_password
    give_up_at = time.monotonic() + limits.migrate_lock_wait_max_s
    with translated():
        connection = await asyncpg.connect(
            settings.required("database_url"),
            password=password.get_secret_value() if password else None,
            timeout=limits.command_timeout_s,
            statement_cache_size=0,
        )
        try:
            while True:
                try:
                    return await _migrate_once(connection, limits, known)
                except asyncpg.LockNotAvailableError:
                    if time.monotonic() > give_up_at:
                        raise
                    report(await _obstacle(connection))
                await asyncio.sleep(limits.migrate_lock_pause_s)
        finally:
            await connection.close(timeout=limits.command_timeout_s)


async def _migrate_once(
    connection: asyncpg.Connection[asyncpg.Record], limits: Limits, known: Sequence[Migration]
) -> list[str]:
    async with connection.transaction(isolation="read_committed"):
        # The timeouts of the role are for short transactions; a migration may take longer.
        await connection.execute(
            "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0;"
            "SET LOCAL idle_in_transaction_session_timeout = 0"
        )
        # Another process may apply migrations while this one waits for the lock.
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        # All requests about a table wait behind a migration that waits for its lock.
        lock_timeout_ms = int(limits.lock_timeout_s / 2 * 1000)
        await connection.execute(f"SET LOCAL lock_timeout = {lock_timeout_ms}")
        applied = await _apply(connection, known)
        await _add_currencies(connection)
        await _limit_role(connection, limits)
    return applied


async def _obstacle(connection: asyncpg.Connection[asyncpg.Record]) -> str:
    """A sentence about the oldest transaction that has a table locked."""
    row = await connection.fetchrow(
        "SELECT pid, extract(epoch FROM clock_timestamp() - xact_start)::integer AS age_s"
        " FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND pid IN ("
        "  SELECT l.pid FROM pg_locks l JOIN pg_class c ON c.oid = l.relation"
        "  JOIN pg_namespace n ON n.oid = c.relnamespace"
        "  WHERE l.granted AND c.relkind = 'r' AND n.nspname IN ('transferd', $1)"
        "  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()))"
        " ORDER BY xact_start LIMIT 1",
        MAIN.schema,
    )
    if row is None:
        return "a table was locked: trying again"
    # The age is null for sessions of other roles.
    age = "" if row["age_s"] is None else f", in a transaction for {row['age_s']} s"
    return f"waiting for process {row['pid']}{age}"


async def assert_migrated(database: Database) -> None:
    """Raise ConfigurationError unless all migrations of this release are applied; newer ones may
    be. Raises StoreError."""
    try:
        applied = await applied_migrations(database)
    except Rejected as error:
        raise ConfigurationError(
            f"the database has no ledger yet ({error}): run `transferd migrate`"
        ) from error
    missing = [migration.name for migration in migrations() if migration.name not in applied]
    if missing:
        raise ConfigurationError(
            f"the database is not up to date ({missing[0]} is not applied): run `transferd migrate`"
        )


async def _apply(
    connection: asyncpg.Connection[asyncpg.Record], known: Sequence[Migration]
) -> list[str]:
    await connection.execute("CREATE SCHEMA IF NOT EXISTS transferd")
    await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {MAIN.schema}")
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS transferd.schema_migrations ("
        " name text PRIMARY KEY, sha256 text NOT NULL,"
        " applied_at timestamptz NOT NULL DEFAULT now())"
    )
    rows = await connection.fetch("SELECT name, sha256 FROM transferd.schema_migrations")
    done = {row["name"]: row["sha256"] for row in rows}
    for name in sorted(done.keys() - {migration.name for migration in known}):
        raise MigrationError(
            f"{name} was applied by a newer release: use that release, or restore a backup"
        )
    applied = []
    for migration in known:
        if migration.name not in done:
            await connection.execute(migration.sql)
            await connection.execute(
                "INSERT INTO transferd.schema_migrations (name, sha256) VALUES ($1, $2)",
                migration.name,
                migration.sha256,
            )
            applied.append(migration.name)
        elif done[migration.name] != migration.sha256:
            raise MigrationError(
                f"{migration.name} has changed since it was applied: undo the change and put it"
                " into a new migration"
            )
    return applied


async def _add_currencies(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Every ISO 4217 currency that has minor units, with its funding wallet at version 0."""
    # As SET LOCAL, but with the name as a parameter.
    await connection.execute("SELECT set_config('search_path', $1, true)", MAIN.schema)
    rows = await connection.fetch("SELECT code FROM currencies")
    present = {row["code"] for row in rows}
    missing = [
        (currency.code, currency.currency_name, currency.exponent, new_id(MAIN))
        for currency in Currency
        if currency.exponent is not None and currency.code not in present
    ]
    await connection.executemany(
        "INSERT INTO currencies (code, name, exponent, funding_wallet_id) VALUES ($1, $2, $3, $4)",
        missing,
    )
    await connection.executemany(
        "WITH wallet AS (INSERT INTO wallets (id, balance, held, overdraft_limit,"
        " version, created_at, updated_at, status, funding, currency, metadata)"
        " VALUES ($1, 0, 0, 0, 0, now(), now(), $3, true, $2, '{}') RETURNING id, created_at)"
        " INSERT INTO wallet_changes (wallet_id, version, created_at, balance_after,"
        " overdraft_limit, kind, status) SELECT id, 0, created_at, 0, 0, $4::smallint, $3"
        " FROM wallet",
        [
            (
                wallet_id,
                code,
                WALLET_STATUS_NUMBERS[WalletStatus.ACTIVE],
                CHANGE_KIND_NUMBERS[ChangeKind.CREATED],
            )
            for code, _, _, wallet_id in missing
        ],
    )


async def _limit_role(connection: asyncpg.Connection[asyncpg.Record], limits: Limits) -> None:
    """Time limits on the role, for this database: a session's own SET is lost behind PgBouncer."""
    values = {
        "statement_timeout": limits.statement_timeout_s,
        "idle_in_transaction_session_timeout": limits.idle_in_transaction_timeout_s,
        "lock_timeout": limits.lock_timeout_s,
    }
    for name, seconds in values.items():
        command = await connection.fetchval(
            "SELECT format('ALTER ROLE %I IN DATABASE %I SET ' || $1 || ' = %L',"
            " current_user, current_database(), $2::text)",
            name,
            f"{int(seconds * 1000)}ms",
        )
        await connection.execute(command)
    # Compiling a plan takes longer than running any of these statements.
    command = await connection.fetchval(
        "SELECT format('ALTER ROLE %I IN DATABASE %I SET jit = off', current_user,"
        " current_database())"
    )
    await connection.execute(command)
