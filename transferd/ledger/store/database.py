"""The pool of connections, and transactions on them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import TypeAlias, TypeVar
from uuid import UUID

import asyncpg

from transferd.config import Limits, Settings
from transferd.domain.ledger import Ledger
from transferd.ledger.store.errors import (
    ConnectionFailure,
    NoConnectionFree,
    SerializationFailure,
    StoreError,
    translated,
)
from transferd.ledger.store.queries import query, values

Row = asyncpg.Record
PooledConnection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[Row]"
Made = TypeVar("Made", bound="SchemaTransaction")

# The tables that belong to no ledger, and the queries about them.
_SHARED, _SHARED_FILE = "transferd", "shared.sql"
_LEDGER_FILE = "queries.sql"

_BEGIN_READ_COMMITTED = "BEGIN ISOLATION LEVEL READ COMMITTED"
# The time limits of the role are for short transactions; a snapshot is read for as long as the
# ledger is large.
BEGIN_SNAPSHOT = (
    "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY;"
    "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0"
)


class SchemaTransaction:
    """One transaction on one connection, with the queries of one file for one schema.

    `timeout_s` bounds each query; None stands for the timeout of the pool.
    """

    def __init__(
        self, connection: PooledConnection, schema: str, file: str, timeout_s: float | None = None
    ) -> None:
        self._connection = connection
        self._schema = schema
        self._file = file
        self._timeout_s = timeout_s

    async def fetch(self, name: str, *arguments: object) -> Sequence[Row]:
        """Run the query `name`. Raises StoreError."""
        with translated():
            return await self._connection.fetch(
                query(self._schema, name, self._file), *arguments, timeout=self._timeout_s
            )


class Transaction(SchemaTransaction):
    """A transaction in a ledger; made by `LedgerDatabase`."""

    def __init__(
        self, connection: PooledConnection, ledger: Ledger, file: str, timeout_s: float | None
    ) -> None:
        super().__init__(connection, ledger.schema, file, timeout_s)
        self.ledger = ledger

    async def fetch_named(self, name: str, parameters: Mapping[str, object]) -> Sequence[Row]:
        """Run the query `name`, whose parameters have names. Raises StoreError."""
        return await self.fetch(name, *values(name)(parameters))


class Database:
    """A pool of connections, with the queries of the shared schema. Opens with `async with`."""

    def __init__(self, settings: Settings, limits: Limits, connections: int) -> None:
        self._settings = settings
        self._limits = limits
        self._connections = connections
        self._pool: asyncpg.Pool[Row] | None = None
        self._waiting_reads = 0

    def __repr__(self) -> str:
        if self._pool is None:
            return "<Database closed>"
        used = self._pool.get_size() - self._pool.get_idle_size()
        return f"<Database {used} of {self._connections} connections in use>"

    async def __aenter__(self) -> Database:
        password = self._settings.database_password
        with translated():
            self._pool = await asyncpg.create_pool(
                self._settings.required("database_url"),
                password=password.get_secret_value() if password else None,
                min_size=1,
                max_size=self._connections,
                command_timeout=self._limits.command_timeout_s,
                timeout=self._limits.pool_acquire_timeout_s,
                statement_cache_size=100 if self._settings.prepared_statements else 0,
                # No query of ours leaves session state behind, so the driver's reset query after
                # each use would be a round trip for nothing.
                reset=_no_reset,
                server_settings={"application_name": "transferd"},
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._pool is not None:
            try:
                await asyncio.wait_for(self._pool.close(), self._limits.command_timeout_s)
            except TimeoutError:
                self._pool.terminate()
            self._pool = None

    @property
    def connections_in_use(self) -> int:
        """How many connections are at work now."""
        return self._pool.get_size() - self._pool.get_idle_size() if self._pool else 0

    @property
    def connections_max(self) -> int:
        """How many there can be."""
        return self._connections

    def of(self, ledger: Ledger) -> LedgerDatabase:
        """The tables of a ledger, over the same connections."""
        return LedgerDatabase(self, ledger)

    async def fetch(self, name: str, *arguments: object) -> Sequence[Row]:
        """Run one read in the shared schema. Raises as `read` does."""
        return await self.read(query(_SHARED, name, _SHARED_FILE), arguments)

    def transaction(self) -> AbstractAsyncContextManager[SchemaTransaction]:
        """A transaction in the shared schema, at READ COMMITTED. Raises as `begun` does."""
        return self.begun(
            _BEGIN_READ_COMMITTED,
            lambda connection: SchemaTransaction(connection, _SHARED, _SHARED_FILE),
        )

    async def ping(self) -> None:
        """Raise StoreError unless PostgreSQL answers."""
        await self.fetch("ping")

    async def read(self, sql: str, arguments: Sequence[object]) -> Sequence[Row]:
        """Run one read. Raises StoreError; does it again after a dead connection or a conflict."""
        if self._waiting_reads >= self._limits.waiting_reads_max:
            raise NoConnectionFree("too many reads wait for a connection")
        self._waiting_reads += 1
        try:
            return await self._fetch(sql, arguments)
        except ConnectionFailure:
            # The pool hands out connections that died while idle; the next one is new.
            return await self._fetch(sql, arguments)
        except SerializationFailure:
            # The database's default isolation is above READ COMMITTED, at which no read fails so.
            return await self._fetch(sql, arguments, read_committed=True)
        finally:
            self._waiting_reads -= 1

    async def execute(self, script: str) -> int:
        """Run statements as one message; the number of rows of the last one. Raises StoreError."""
        pool = self._open_pool()
        connection = await self._acquire(pool)
        try:
            with translated():
                status = await connection.execute(script)
        finally:
            await _give_back(pool, connection)
        return int(status.rpartition(" ")[2])

    async def _fetch(
        self, sql: str, arguments: Sequence[object], *, read_committed: bool = False
    ) -> Sequence[Row]:
        pool = self._open_pool()
        connection = await self._acquire(pool)
        try:
            with translated():
                if self._settings.prepared_statements and not read_committed:
                    return await connection.fetch(sql, *arguments)
                # PgBouncer may give every message of ours to another server, but a transaction, and
                # with it the unnamed statement and its execution, to one.
                async with connection.transaction(isolation="read_committed"):
                    return await connection.fetch(sql, *arguments)
        finally:
            await _give_back(pool, connection)

    async def _acquire(self, pool: asyncpg.Pool[Row]) -> PooledConnection:
        """A connection for a read. Raises StoreError."""
        with translated():
            try:
                return await pool.acquire(timeout=self._limits.pool_acquire_timeout_s)
            except TimeoutError:
                if self.connections_in_use == self._connections:
                    raise NoConnectionFree("no connection became free in time") from None
                raise

    @asynccontextmanager
    async def begun(
        self, begin: str, made: Callable[[PooledConnection], Made]
    ) -> AsyncIterator[Made]:
        """COMMIT at the end, ROLLBACK on an exception. Raises StoreError.

        A ConnectionFailure during COMMIT is `in_doubt`: the transaction may have been committed.
        """
        pool = self._open_pool()
        with translated():
            connection = await pool.acquire(timeout=self._limits.pool_acquire_timeout_s)
        try:
            with translated():
                await connection.execute(begin)
            yield made(connection)
            try:
                with translated():
                    status = await connection.execute("COMMIT")
            except ConnectionFailure as error:
                error.in_doubt = True
                raise
            if status != "COMMIT":
                raise StoreError(f"COMMIT was answered with {status}")
        except BaseException as error:
            await self._abandon(connection, error)
            raise
        finally:
            await _give_back(pool, connection)

    async def _abandon(self, connection: PooledConnection, error: BaseException) -> None:
        """ROLLBACK where the server still listens; else drop the connection: same effect."""
        try:
            if isinstance(error, ConnectionFailure) or not isinstance(error, Exception):
                _drop(connection)
            else:
                await connection.execute("ROLLBACK")
        except (TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            _drop(connection)

    def _open_pool(self) -> asyncpg.Pool[Row]:
        if self._pool is None:
            raise ConnectionFailure("The database is closed.")
        return self._pool


class LedgerDatabase:
    """The tables of one ledger; made by `Database.of`. No query can reach another ledger."""

    def __init__(self, database: Database, ledger: Ledger) -> None:
        self._database = database
        self.ledger = ledger

    def __repr__(self) -> str:
        return f"<LedgerDatabase {self.ledger.name} in {self._database!r}>"

    async def fetch(self, name: str, *arguments: object) -> Sequence[Row]:
        """Run one read. Raises StoreError; does it again after a dead connection or a conflict."""
        return await self._database.read(query(self.ledger.schema, name), arguments)

    async def run_script(self, name: str, id: str) -> int:
        """Run the statements of `name` about the row `id` as one message. Raises StoreError.

        They are a whole transaction, which never waits for the service. Runs them again after a
        dead connection. The number of rows of the last statement.
        """
        # The simple query protocol has no parameters. A UUID that was read as one needs no quoting.
        script = query(self.ledger.schema, name).replace("{id}", str(UUID(id)))
        try:
            return await self._database.execute(script)
        except ConnectionFailure:
            return await self._database.execute(script)

    def transaction(self, *, is_retried: bool = False) -> AbstractAsyncContextManager[Transaction]:
        """A transaction in the ledger. Raises as `Database.begun` does.

        is_retried: the caller runs the transaction again after a SerializationFailure, so it has
        the default isolation of the database. All others run at READ COMMITTED, which raises none.
        """
        begin = "BEGIN" if is_retried else _BEGIN_READ_COMMITTED
        return self._database.begun(
            begin, lambda connection: Transaction(connection, self.ledger, _LEDGER_FILE, None)
        )

    def snapshot(
        self, *, file: str, query_timeout_s: float
    ) -> AbstractAsyncContextManager[Transaction]:
        """A read-only transaction with the queries of `file`. Raises StoreError.

        Each of its queries sees the data of the moment at which the first one began.
        """
        return self._database.begun(
            BEGIN_SNAPSHOT,
            lambda connection: Transaction(connection, self.ledger, file, query_timeout_s),
        )


async def _no_reset(_: object) -> None:
    return None


async def _give_back(pool: asyncpg.Pool[Row], connection: PooledConnection) -> None:
    try:
        await pool.release(connection)
    except (asyncpg.InterfaceError, OSError):
        _drop(connection)


def _drop(connection: PooledConnection) -> None:
    # A connection that was lost has left the pool by itself, and then nothing may be asked of it.
    with suppress(asyncpg.InterfaceError):
        connection.terminate()
