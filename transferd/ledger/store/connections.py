"""The connections for one schema: reads, scripts and transactions on its node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import asyncpg

from transferd.ledger.store.errors import (
    CONNECTION_ERRORS,
    ConnectionFailure,
    NoConnectionFree,
    SerializationFailure,
    StoreError,
    translated,
)
from transferd.ledger.store.placement import Node, Placement
from transferd.ledger.store.pools import Pool, PooledConnection, Pools, Row, drop, give_back, used

Made = TypeVar("Made")


class Connections:
    """Takes connections for one schema, of the node that holds it when each use begins.

    `placement` is None without Citus. At most `at_most` connections are used at a time; None: all
    of the pool. Further uses wait, each for up to `pool_acquire_timeout_s` for its turn, and for as
    long for a connection.
    """

    def __init__(
        self,
        pools: Pools,
        placement: Placement | None,
        schema: str,
        at_most: int | None = None,
    ) -> None:
        self._pools = pools
        self._placement = placement
        self._schema = schema
        self._share = None if at_most is None else asyncio.Semaphore(at_most)
        self._waiting_reads = 0

    def __repr__(self) -> str:
        return f"<Connections for {self._schema} on {self.node or 'the own server'}>"

    @property
    def node(self) -> Node | None:
        """The node that holds the schema; None: the server at the address in the settings."""
        return None if self._placement is None else self._placement.node_of(self._schema)

    async def read(self, sql: str, arguments: Sequence[object]) -> Sequence[Row]:
        """Run one read. Raises StoreError; does it again after a dead connection or a conflict."""
        if self._waiting_reads >= self._pools.limits.waiting_reads_max:
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
        pool, connection = await self._take()
        try:
            with translated():
                status = await connection.execute(script)
        finally:
            await self._give_back(pool, connection)
        return int(status.rpartition(" ")[2])

    @asynccontextmanager
    async def begun(
        self, begin: str, made: Callable[[PooledConnection], Made]
    ) -> AsyncIterator[Made]:
        """COMMIT at the end, ROLLBACK on an exception. Raises StoreError.

        A ConnectionFailure during COMMIT is `in_doubt`: the transaction may have been committed.
        """
        try:
            pool, connection = await self._take()
        except NoConnectionFree as error:
            raise ConnectionFailure(str(error)) from error
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
            await _abandon(connection, error)
            raise
        finally:
            await self._give_back(pool, connection)

    async def _fetch(
        self, sql: str, arguments: Sequence[object], *, read_committed: bool = False
    ) -> Sequence[Row]:
        pool, connection = await self._take()
        try:
            with translated():
                if self._pools.settings.prepared_statements and not read_committed:
                    return await connection.fetch(sql, *arguments)
                # PgBouncer may give every message of ours to another server, but a transaction, and
                # with it the unnamed statement and its execution, to one.
                async with connection.transaction(isolation="read_committed"):
                    return await connection.fetch(sql, *arguments)
        finally:
            await self._give_back(pool, connection)

    async def _take(self) -> tuple[Pool, PooledConnection]:
        """A connection of the node, and its pool. Raises StoreError."""
        # A node that does not answer is never replaced by the coordinator, whose sessions hang as
        # soon as they use that node, and then are missing for other ledgers.
        placement, share = self._placement, self._share
        node = None if placement is None else placement.node_of(self._schema)
        pool = self._pools.own if node is None else await self._pools.of(node)
        timeout_s = self._pools.limits.pool_acquire_timeout_s
        with translated():
            try:
                if share is not None:
                    await _enter(share, timeout_s)
                try:
                    return pool, await pool.acquire(timeout=timeout_s)
                except BaseException:
                    self._leave()
                    raise
            except TimeoutError:
                if used(pool) == pool.get_max_size() or (share is not None and share.locked()):
                    raise NoConnectionFree("no connection became free in time") from None
                raise

    async def _give_back(self, pool: Pool, connection: PooledConnection) -> None:
        try:
            await give_back(pool, connection)
        finally:
            self._leave()

    def _leave(self) -> None:
        if self._share is not None:
            self._share.release()


async def _enter(share: asyncio.Semaphore, timeout_s: float) -> None:
    """Raises TimeoutError."""
    if share.locked():
        async with asyncio.timeout(timeout_s):
            await share.acquire()
    else:
        # Without a wait a timer would cost more than all the rest.
        await share.acquire()


async def _abandon(connection: PooledConnection, error: BaseException) -> None:
    """ROLLBACK where the server still listens; else drop the connection: same effect."""
    try:
        if isinstance(error, ConnectionFailure) or not isinstance(error, Exception):
            drop(connection)
        else:
            await connection.execute("ROLLBACK")
    except (asyncpg.PostgresError, *CONNECTION_ERRORS):
        drop(connection)
