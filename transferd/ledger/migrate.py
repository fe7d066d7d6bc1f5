"""Applies the migrations, once each; makes ledgers; sets the role's time limits."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

import asyncpg

from transferd.config import ConfigurationError, Limits, Settings
from transferd.domain.ledger import MAIN, Ledger
from transferd.ledger import citus
from transferd.ledger.ledgers import (
    Connection,
    add_currencies,
    batches,
    insert_ledger,
    ledger_numbers,
    migrate_batch,
)
from transferd.ledger.steps import (
    LOCK,
    Migration,
    MigrationError,
    ledger_migrations,
    migrations,
    missing,
)
from transferd.ledger.store.database import Database, LedgerDatabase
from transferd.ledger.store.errors import Rejected, translated
from transferd.ledger.store.migrations import applied_migrations, applied_to_ledger
from transferd.ledger.store.pools import APPLICATION_NAME

Result = TypeVar("Result")


async def migrate(
    settings: Settings,
    limits: Limits,
    available: Sequence[Migration] | None = None,
    report: Callable[[str], None] = lambda _: None,
    *,
    for_ledgers: Sequence[Migration] | None = None,
) -> list[str]:
    """Apply the missing migrations; returns their names, and for ledgers how many got each.

    Safe when several start at once, and when one is killed: the next one continues. While a
    transaction has a table locked it tries again and reports which one; if it takes some seconds it
    reports how many ledgers are done. Raises MigrationError, also if some ledgers could not be
    migrated; and StoreError if PostgreSQL does not do what it is asked. Then nothing of the
    transaction is kept: one for each migration that ledgers share, and one for some ledgers at a
    time.
    """
    known = migrations() if available is None else list(available)
    steps = ledger_migrations() if for_ledgers is None else list(for_ledgers)
    applied: Counter[str] = Counter()
    failures: list[str] = []
    async with _alone(settings, limits, report) as alone:
        shared = await _migrate_shared(alone, limits, known)
        ledgers = _Progress(await alone.run(ledger_numbers), limits, report)
        for numbers in ledgers.batches():
            done, failed = await alone.run(partial(migrate_batch, numbers=numbers, known=steps))
            applied += done
            failures += failed
        for work in await alone.run(citus.work_to_do):
            try:
                await alone.run(work)
            except MigrationError as error:
                failures.append(str(error))
    if failures:
        raise MigrationError("; ".join(failures))
    return shared + [f"{name} (ledgers: {count})" for name, count in applied.items()]


async def create_ledger(
    settings: Settings, limits: Limits, name: str, number: int | None = None
) -> Ledger:
    """A new ledger with its tables and currencies; without a number it gets a random one.

    Raises MigrationError, also if a newer release has migrated the database, and StoreError.
    """

    async def create(connection: Connection) -> Ledger:
        if missing(migrations(), await _applied(connection)):
            raise MigrationError("the database is not up to date: run `transferd migrate`")
        ledger = await insert_ledger(connection, name, number)
        await citus.distribute_new(connection, ledger)
        return ledger

    async with _alone(settings, limits, lambda _: None) as alone:
        return await alone.run(create)


class _Progress:
    """Reports how many ledgers are done, at most once in `migrate_report_s`."""

    def __init__(
        self, numbers: Sequence[int], limits: Limits, report: Callable[[str], None]
    ) -> None:
        self._numbers = numbers
        self._limits = limits
        self._report = report

    def batches(self) -> Iterator[Sequence[int]]:
        """The numbers of the ledgers of each transaction."""
        done, reported_at = 0, time.monotonic()
        for numbers in batches(self._numbers):
            yield numbers
            done += len(numbers)
            if time.monotonic() - reported_at >= self._limits.migrate_report_s:
                self._report(f"ledgers: {done:,} of {len(self._numbers):,}")
                reported_at = time.monotonic()


class _Alone:
    """Runs transactions in which no other process migrates."""

    def __init__(
        self, connection: Connection, limits: Limits, report: Callable[[str], None]
    ) -> None:
        self._connection = connection
        self._limits = limits
        self._report = report

    async def run(self, work: Callable[[Connection], Awaitable[Result]]) -> Result:
        """One transaction; again for a while if it cannot lock a table."""
        give_up_at = time.monotonic() + self._limits.migrate_lock_wait_max_s
        while True:
            try:
                return await self._run(work)
            except asyncpg.LockNotAvailableError:
                if time.monotonic() > give_up_at:
                    raise
                self._report(await _obstacle(self._connection))
            await asyncio.sleep(self._limits.migrate_lock_pause_s)

    async def _run(self, work: Callable[[Connection], Awaitable[Result]]) -> Result:
        async with self._connection.transaction(isolation="read_committed"):
            # The timeouts of the role are for short transactions; a migration may take longer.
            await citus.lift_limits(self._connection)
            # Another process may apply migrations while this one waits for the lock.
            await self._connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
            # All requests about a table wait behind a migration that waits for its lock.
            lock_timeout_ms = int(self._limits.lock_timeout_s / 2 * 1000)
            await self._connection.execute(f"SET LOCAL lock_timeout = {lock_timeout_ms}")
            return await work(self._connection)


@asynccontextmanager
async def _alone(
    settings: Settings, limits: Limits, report: Callable[[str], None]
) -> AsyncIterator[_Alone]:
    password = settings.database_password
    with translated():
        connection = await asyncpg.connect(
            settings.required("database_url"),
            password=password.get_secret_value() if password else None,
            timeout=limits.command_timeout_s,
            statement_cache_size=0,
            server_settings={"application_name": APPLICATION_NAME},
        )
        try:
            yield _Alone(connection, limits, report)
        finally:
            await connection.close(timeout=limits.command_timeout_s)


async def _obstacle(connection: Connection) -> str:
    """A sentence about the oldest transaction that has a table locked."""
    row = await connection.fetchrow(
        "SELECT pid, extract(epoch FROM clock_timestamp() - xact_start)::integer AS age_s"
        " FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND pid IN ("
        "  SELECT l.pid FROM pg_locks l JOIN pg_class c ON c.oid = l.relation"
        "  JOIN pg_namespace n ON n.oid = c.relnamespace"
        "  WHERE l.granted AND c.relkind = 'r'"
        "  AND (n.nspname = 'transferd' OR n.nspname ~ '^ledger_[0-9]+$')"
        "  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()))"
        " ORDER BY xact_start LIMIT 1"
    )
    if row is None:
        return "a table was locked: trying again"
    # The age is null for sessions of other roles.
    age = "" if row["age_s"] is None else f", in a transaction for {row['age_s']} s"
    return f"waiting for process {row['pid']}{age}"


async def assert_migrated(database: Database, ledger: Ledger = MAIN) -> None:
    """Raise ConfigurationError unless all migrations of this release are applied to what ledgers
    share and to this one; newer ones may be. Raises StoreError."""
    try:
        applied = await applied_migrations(database)
        absent = [each.name for each in migrations() if each.name not in applied]
        absent = absent or await absent_from(database.of(ledger))
    except Rejected as error:
        raise ConfigurationError(
            f"the database has no ledger yet ({error}): run `transferd migrate`"
        ) from error
    if absent:
        raise ConfigurationError(
            f"the database is not up to date ({absent[0]} is not applied): run `transferd migrate`"
        )


async def absent_from(database: LedgerDatabase) -> list[str]:
    """The migrations of this release that a ledger lacks. Raises Rejected if it has no tables."""
    applied = await applied_to_ledger(database)
    return [each.name for each in ledger_migrations() if each.name not in applied]


async def _migrate_shared(alone: _Alone, limits: Limits, known: Sequence[Migration]) -> list[str]:
    """A transaction for each migration: together they would lock tables in another order than the
    groups do."""
    await alone.run(_prepare)
    applied = []
    while name := await alone.run(partial(_apply_next, known=known)):
        applied.append(name)
    await alone.run(partial(_finish, limits=limits))
    return applied


async def _prepare(connection: Connection) -> None:
    await connection.execute("CREATE SCHEMA IF NOT EXISTS transferd")
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS transferd.schema_migrations ("
        " name text PRIMARY KEY, sha256 text NOT NULL,"
        " applied_at timestamptz NOT NULL DEFAULT now())"
    )
    # Later, a missing schema is one that is being restored.
    if not await ledger_numbers(connection):
        await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {MAIN.schema}")


async def _apply_next(connection: Connection, known: Sequence[Migration]) -> str | None:
    """Apply the first missing migration; returns its name, or None if none is missing."""
    for migration in missing(known, await _applied(connection)):
        await citus.apply(connection, migration)
        await connection.execute(
            "INSERT INTO transferd.schema_migrations (name, sha256) VALUES ($1, $2)",
            migration.name,
            migration.sha256,
        )
        return migration.name
    return None


async def _finish(connection: Connection, limits: Limits) -> None:
    if await connection.fetchval(f"SELECT to_regclass('{MAIN.schema}.currencies')") is None:
        raise MigrationError(
            f"the tables of the ledger main are missing: restore the schema {MAIN.schema} first"
        )
    await add_currencies(connection, MAIN)
    await _limit_role(connection, limits)


async def _applied(connection: Connection) -> dict[str, str]:
    """The shared migrations that are applied, by name, with their SHA-256."""
    rows = await connection.fetch("SELECT name, sha256 FROM transferd.schema_migrations")
    return {row["name"]: row["sha256"] for row in rows}


async def _limit_role(connection: Connection, limits: Limits) -> None:
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
