"""A ledger standing still: one moment of it, for as long as the audit takes to read it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from transferd.config import Limits
from transferd.ledger.store.database import Database, Row, Transaction, queries
from transferd.ledger.store.errors import translated

# The limits of the role are for short transactions; this one takes as long as the ledger is large.
_BEGIN = (
    "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY;"
    "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0"
)


class Snapshot(Transaction):
    """A transaction that sees one moment and cannot write; it runs the queries of `audit.sql`."""

    def __init__(self, transaction: Transaction, ledger: str, limits: Limits) -> None:
        super().__init__(transaction._connection, ledger)  # noqa: SLF001 one of its own class
        self._sql = queries(ledger, "audit.sql")
        self._timeout_s = limits.audit_query_timeout_s

    async def begin(self) -> None:
        """Must come first: the moment is that of the next query."""
        with translated():
            await self._connection.execute(_BEGIN)

    async def fetch(self, name: str, *arguments: object) -> Sequence[Row]:
        """Run the query `name`, however long it takes. Raises StoreError."""
        with translated():
            return await self._connection.fetch(
                self._sql[name], *arguments, timeout=self._timeout_s
            )


@asynccontextmanager
async def snapshot(database: Database, ledger: str, limits: Limits) -> AsyncIterator[Snapshot]:
    """One moment of `ledger`. Raises StoreError."""
    async with database.transaction(ledger) as transaction:
        view = Snapshot(transaction, ledger, limits)
        await view.begin()
        yield view
