"""Migrations that the database has; `ledger.migrate` applies them."""

from transferd.ledger.store.database import Database


async def applied_migrations(database: Database) -> set[str]:
    """Their names. Raises Rejected where none was ever applied."""
    return {row["name"] for row in await database.fetch("applied_migrations")}
