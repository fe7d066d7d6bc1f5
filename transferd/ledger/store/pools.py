"""The pools of connections, one for each PostgreSQL."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TypeAlias

import asyncpg

from transferd.config import Limits, Settings
from transferd.ledger.store.errors import CONNECTION_ERRORS, ConnectionFailure, translated
from transferd.ledger.store.placement import Node

Row = asyncpg.Record
Pool: TypeAlias = "asyncpg.Pool[Row]"
PooledConnection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[Row]"

# With Citus the driver's query for types takes seconds unless Citus hides its tables from programs
# of this name, which `transferd.ledger.citus` asks it to do.
APPLICATION_NAME = "transferd"


class Pools:
    """A pool for the address in the settings, and one for each node that Citus names.

    A node that hangs keeps the connections to it busy, and no others. Opens with `async with`.
    """

    def __init__(self, settings: Settings, limits: Limits, connections: int) -> None:
        self.settings = settings
        self.limits = limits
        self._connections = connections
        self._own: Pool | None = None
        self._of_nodes: dict[Node, Pool] = {}

    def __repr__(self) -> str:
        if self._own is None:
            return "<Pools closed>"
        return f"<Pools {self.in_use} of {self.size} connections in use>"

    async def __aenter__(self) -> Pools:
        with translated():
            self._own = await self._made(None)
        return self

    async def __aexit__(self, *_: object) -> None:
        pools = [self._own, *self._of_nodes.values()]
        self._own, self._of_nodes = None, {}
        await asyncio.gather(*(self._close(pool) for pool in pools if pool is not None))

    @property
    def in_use(self) -> int:
        """How many connections are at work now."""
        own = 0 if self._own is None else used(self._own)
        return own + sum(used(pool) for pool in self._of_nodes.values())

    @property
    def size(self) -> int:
        """How many connections there can be."""
        return self._connections * (1 + len(self._of_nodes))

    @property
    def own(self) -> Pool:
        """The pool of the address in the settings. Raises ConnectionFailure if it is closed."""
        if self._own is None:
            raise _closed()
        return self._own

    async def of(self, node: Node) -> Pool:
        """The pool of a node; its first use connects. Raises ConnectionFailure if it is closed."""
        if self._own is None:
            raise _closed()
        pool = self._of_nodes.get(node)
        if pool is None:
            # Without connections to make at once, this is done before any other task runs.
            pool = self._of_nodes[node] = await self._made(node)
        return pool

    def _made(self, node: Node | None) -> Pool:
        password = self.settings.database_password
        return asyncpg.create_pool(
            self.settings.required("database_url"),
            host=node.host if node else None,
            port=node.port if node else None,
            password=password.get_secret_value() if password else None,
            min_size=0 if node else 1,
            max_size=self._connections,
            command_timeout=self.limits.command_timeout_s,
            timeout=self.limits.pool_acquire_timeout_s,
            statement_cache_size=100 if self.settings.prepared_statements else 0,
            # No query of ours leaves session state behind, so the driver's reset query after
            # each use would be a round trip for nothing.
            reset=_no_reset,
            server_settings={"application_name": APPLICATION_NAME},
        )

    async def _close(self, pool: Pool) -> None:
        try:
            await asyncio.wait_for(pool.close(), self.limits.command_timeout_s)
        except TimeoutError:
            pool.terminate()


def _closed() -> ConnectionFailure:
    return ConnectionFailure("The database is closed.")


def used(pool: Pool) -> int:
    """How many connections of the pool are at work now."""
    return pool.get_size() - pool.get_idle_size()


async def give_back(pool: Pool, connection: PooledConnection) -> None:
    """Return a connection to its pool, or drop it if it is lost."""
    try:
        await pool.release(connection)
    except CONNECTION_ERRORS:
        drop(connection)


def drop(connection: PooledConnection) -> None:
    """Close a connection at once."""
    # A connection that was lost has left the pool by itself, and then nothing may be asked of it.
    with suppress(asyncpg.InterfaceError):
        connection.terminate()


async def _no_reset(_: object) -> None:
    return None
