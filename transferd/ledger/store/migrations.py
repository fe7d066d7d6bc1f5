"""Migrations that the database has; `ledger.migrate` applies them."""

from transferd.ledger.store.database import Database, LedgerDatabase


async def applied_migrations(database: Database) -> set[str]:
    """Names of those of what ledgers share. Raises Rejected where none was ever applied."""
    return {row["name"] for row in await database.fetch("applied_migrations")}


async def applied_to_ledger(database: LedgerDatabase) -> set[str]:
    """Names of those of a ledger. Raises Rejected where none was ever applied."""
    return {row["name"] for row in await database.fetch("applied_to_ledger")}
