"""Migrations that the database has; `ledger.migrate` applies them."""

from collections.abc import Sequence

from transferd.domain.ledger import Ledger
from transferd.ledger.store.database import Database, LedgerDatabase
from transferd.ledger.store.errors import Rejected
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
    if len(ledgers) > _LEDGERS_PER_QUERY:
        return await _halves(database, ledgers)
    try:
        rows = await database.read(
            " UNION ALL ".join(query(each.schema, "applied_to_ledger") for each in ledgers), ()
        )
    except Rejected:
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
    return await applied_to_ledgers(database, first) | await applied_to_ledgers(database, second)
