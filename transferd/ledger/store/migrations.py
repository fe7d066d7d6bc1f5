"""Migrations that the database has; `ledger.migrate` applies them."""

from collections.abc import Sequence

from transferd.domain.ledger import Ledger
from transferd.ledger.store.database import Database, LedgerDatabase
from transferd.ledger.store.errors import ConnectionFailure, LockTimeout, Rejected
from transferd.ledger.store.queries import query

# Each takes two locks, and PostgreSQL by default has room for 6,400.
_LEDGERS_PER_QUERY = 128


async def applied_migrations(database: Database) -> set[str]:
    """Names of those of what ledgers share. Raises Rejected where none was ever applied."""
    return {row["name"] for row in await database.fetch("applied_migrations")}


async def applied_to_ledger(database: LedgerDatabase) -> set[str]:
    """Names of those of a ledger. Raises Rejected where none was ever applied."""
    return {row["name"] for row in await database.fetch("applied_to_ledger")}


async def applied_to_ledgers(
    database: Database, ledgers: Sequence[Ledger]
) -> dict[Ledger, set[str]]:
    """Names of those of some ledgers, without the ledgers that cannot be read."""
    names: dict[Ledger, set[str]] = {}
    for group in database.by_node(ledgers):
        names |= await _applied_on_node(database, group)
    return names


async def _applied_on_node(database: Database, ledgers: Sequence[Ledger]) -> dict[Ledger, set[str]]:
    if len(ledgers) > _LEDGERS_PER_QUERY:
        return await _halves(database, ledgers)
    try:
        rows = await database.read_beside(
            ledgers[0],
            " UNION ALL ".join(query(each.schema, "applied_to_ledger") for each in ledgers),
        )
    except ConnectionFailure:
        if database.of(ledgers[0]).node is None:
            raise
        return {}  # Other nodes answer.
    except (Rejected, LockTimeout):
        if len(ledgers) == 1:
            return {}
        return await _halves(database, ledgers)
    names: dict[str, set[str]] = {each.schema: set() for each in ledgers}
    for row in rows:
        names[row["schema"]].add(row["name"])
    return {each: names[each.schema] for each in ledgers}


async def _halves(database: Database, ledgers: Sequence[Ledger]) -> dict[Ledger, set[str]]:
    middle = len(ledgers) // 2
    first, second = ledgers[:middle], ledgers[middle:]
    return await _applied_on_node(database, first) | await _applied_on_node(database, second)
