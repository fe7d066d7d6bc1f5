"""The list of ledgers."""

from datetime import datetime
from typing import NamedTuple

from transferd.config import ConfigurationError, Limits
from transferd.domain.ledger import Ledger
from transferd.ledger.store.database import Database
from transferd.ledger.store.errors import LockTimeout, Rejected


class ListedLedger(NamedTuple):
    """A ledger with its clients, its usable API keys, and about how many bytes it takes."""

    ledger: Ledger
    created_at: datetime
    clients: int
    usable_keys: int
    bytes_about: int


class TableSize(NamedTuple):
    """A table with its bytes, indexes included. `rows_about` is None if it was never counted."""

    name: str
    bytes: int
    rows_about: int | None


class Waiting(NamedTuple):
    """What waits in a ledger, in rows."""

    outbox_rows: int
    deliveries_waiting: int
    active_holds: int


async def read_ledger(database: Database, name: str) -> Ledger:
    """The ledger with that name. Raises ConfigurationError if there is none, and StoreError."""
    rows = await database.fetch("read_ledger", name)
    if not rows:
        raise _unknown(name)
    return Ledger(*rows[0])


async def read_ledgers(database: Database) -> list[Ledger]:
    """All ledgers, by number. Raises StoreError."""
    return [Ledger(*row) for row in await database.fetch("read_ledgers")]


async def list_ledgers(database: Database, name: str | None = None) -> list[ListedLedger]:
    """All ledgers by number, or the one with that name. Raises as `read_ledger` does."""
    rows = await database.fetch("list_ledgers", name)
    if name is not None and not rows:
        raise _unknown(name)
    return [ListedLedger(Ledger(*row[:4]), *row[4:]) for row in rows]


async def table_sizes(database: Database, ledger: Ledger) -> list[TableSize]:
    """The tables of a ledger, the largest first; none if its schema is missing."""
    rows = await database.of(ledger).fetch("table_sizes")
    return [TableSize(*row) for row in rows]


async def read_waiting(database: Database, limits: Limits, ledger: Ledger) -> Waiting | None:
    """What waits in the ledger; None if its tables cannot be read. Raises StoreError."""
    # It counts rows, so the time limits of requests do not apply.
    snapshot = database.of(ledger).snapshot(
        file="queries.sql", query_timeout_s=limits.audit_query_timeout_s
    )
    try:
        async with snapshot as view:
            [row] = await view.fetch("ledger_counts")
    except (Rejected, LockTimeout):
        return None
    return Waiting(*row)


async def raise_cache_generation(database: Database, name: str) -> Ledger:
    """Let replicas forget what Redis has of the ledger. Raises as `read_ledger` does."""
    async with database.transaction() as transaction:
        rows = await transaction.fetch("raise_cache_generation", name)
    if not rows:
        raise _unknown(name)
    return Ledger(*rows[0])


def _unknown(name: str) -> ConfigurationError:
    return ConfigurationError(
        f"there is no ledger {name}: make it with `transferd ledgers create {name}`"
    )
