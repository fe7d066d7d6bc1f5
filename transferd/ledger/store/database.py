"""The database of a process, with the queries of what ledgers share and of each ledger."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from uuid import UUID

import asyncpg

from transferd.config import Limits, Settings
from transferd.domain.ledger import Ledger
from transferd.ledger.store.connections import Connections
from transferd.ledger.store.errors import ConnectionFailure, translated
from transferd.ledger.store.placement import Node, Placement
from transferd.ledger.store.pools import PooledConnection, Pools
from transferd.ledger.store.queries import query, values

Row = asyncpg.Record

# The tables that belong to no ledger, and the queries about them.
_SHARED, _SHARED_FILE = "transferd", "shared.sql"
_LEDGER_FILE = "queries.sql"
_CITUS_FILE = "citus.sql"

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
    """The tables that ledgers share, and the ledgers. Opens with `async with`.

    Without Citus there is one pool, of `connections`. With Citus there is one for each node, and
    the tables that ledgers share are on the coordinator. A ledger uses at most `of_one_ledger`
    connections at a time; None: all of its pool.
    """

    def __init__(
        self,
        settings: Settings,
        limits: Limits,
        connections: int,
        *,
        of_one_ledger: int | None = None,
    ) -> None:
        self._limits = limits
        self._of_one_ledger = of_one_ledger
        self._pools = Pools(settings, limits, connections)
        self._placement: Placement | None = None
        self._shared = Connections(self._pools, None, _SHARED)
        self._exits = AsyncExitStack()

    def __repr__(self) -> str:
        return f"<Database {self._pools!r}>"

    async def __aenter__(self) -> Database:
        async with AsyncExitStack() as opened:
            await opened.enter_async_context(self._pools)
            [row] = await self._shared.read(query(_SHARED, "has_citus", _CITUS_FILE), ())
            if row["found"]:
                sql = query(_SHARED, "placements", _CITUS_FILE)
                placement = Placement(lambda: self._shared.read(sql, ()), self._limits)
                await placement.read()
                opened.push_async_callback(placement.close)
                self._placement = placement
            self._exits = opened.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._exits.aclose()

    @property
    def connections_in_use(self) -> int:
        """How many connections are at work now."""
        return self._pools.in_use

    @property
    def connections_max(self) -> int:
        """How many there can be."""
        return self._pools.size

    def of(self, ledger: Ledger) -> LedgerDatabase:
        """The tables of a ledger. The limit on its connections counts for this object."""
        return LedgerDatabase(ledger, self._connections_of(ledger, self._of_one_ledger))

    def by_node(self, ledgers: Iterable[Ledger]) -> list[list[Ledger]]:
        """The ledgers in groups: those of a group are on the same node now."""
        groups: defaultdict[Node | None, list[Ledger]] = defaultdict(list)
        for ledger in ledgers:
            node = self._placement.node_of(ledger.schema) if self._placement else None
            groups[node].append(ledger)
        return list(groups.values())

    async def read_beside(
        self, ledger: Ledger, sql: str, arguments: Sequence[object] = ()
    ) -> Sequence[Row]:
        """Run one read on the node that holds `ledger`, about some ledgers of one `by_node` group.

        Raises as `read` does.
        """
        return await self._connections_of(ledger, None).read(sql, arguments)

    async def fetch(self, name: str, *arguments: object) -> Sequence[Row]:
        """Run one read in the shared schema. Raises as `read` does."""
        return await self.read(query(_SHARED, name, _SHARED_FILE), arguments)

    async def read(self, sql: str, arguments: Sequence[object]) -> Sequence[Row]:
        """Run one read. Raises StoreError; does it again after a dead connection or a conflict."""
        return await self._shared.read(sql, arguments)

    def transaction(self) -> AbstractAsyncContextManager[SchemaTransaction]:
        """A transaction in the shared schema, at READ COMMITTED. Raises as `Connections.begun`."""
        return self._shared.begun(
            _BEGIN_READ_COMMITTED,
            lambda connection: SchemaTransaction(connection, _SHARED, _SHARED_FILE),
        )

    async def ping(self) -> None:
        """Raise StoreError unless PostgreSQL answers."""
        await self.fetch("ping")

    def _connections_of(self, ledger: Ledger, at_most: int | None) -> Connections:
        return Connections(self._pools, self._placement, ledger.schema, at_most)


class LedgerDatabase:
    """The tables of one ledger; made by `Database.of`. No query can reach another ledger."""

    def __init__(self, ledger: Ledger, connections: Connections) -> None:
        self.ledger = ledger
        self._connections = connections

    def __repr__(self) -> str:
        return f"<LedgerDatabase {self.ledger.name} by {self._connections!r}>"

    @property
    def node(self) -> Node | None:
        """The node that holds the ledger now; always None without Citus."""
        return self._connections.node

    async def fetch(self, name: str, *arguments: object) -> Sequence[Row]:
        """Run one read. Raises StoreError; does it again after a dead connection or a conflict."""
        return await self._connections.read(query(self.ledger.schema, name), arguments)

    async def run_script(self, name: str, id: str) -> int:
        """Run the statements of `name` about the row `id` as one message. Raises StoreError.

        They are a whole transaction, which never waits for the service. Runs them again after a
        dead connection. The number of rows of the last statement.
        """
        # The simple query protocol has no parameters. A UUID that was read as one needs no quoting.
        script = query(self.ledger.schema, name).replace("{id}", str(UUID(id)))
        try:
            return await self._connections.execute(script)
        except ConnectionFailure:
            return await self._connections.execute(script)

    def transaction(self, *, is_retried: bool = False) -> AbstractAsyncContextManager[Transaction]:
        """A transaction in the ledger. Raises as `Connections.begun` does.

        is_retried: the caller runs the transaction again after a SerializationFailure, so it has
        the default isolation of the database. All others run at READ COMMITTED, which raises none.
        """
        begin = "BEGIN" if is_retried else _BEGIN_READ_COMMITTED
        return self._connections.begun(
            begin, lambda connection: Transaction(connection, self.ledger, _LEDGER_FILE, None)
        )

    def snapshot(
        self, *, file: str, query_timeout_s: float
    ) -> AbstractAsyncContextManager[Transaction]:
        """A read-only transaction with the queries of `file`. Raises StoreError.

        Each of its queries sees the data of the moment at which the first one began.
        """
        return self._connections.begun(
            BEGIN_SNAPSHOT,
            lambda connection: Transaction(connection, self.ledger, file, query_timeout_s),
        )
