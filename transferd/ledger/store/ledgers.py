"""The list of ledgers."""

from transferd.config import ConfigurationError
from transferd.domain.ledger import Ledger
from transferd.ledger.store.database import Database


async def read_ledger(database: Database, name: str) -> Ledger:
    """The ledger with that name. Raises ConfigurationError if there is none, and StoreError."""
    rows = await database.fetch("read_ledger", name)
    if not rows:
        raise ConfigurationError(f"there is no ledger {name}")
    return Ledger(*rows[0])


async def read_ledgers(database: Database) -> list[Ledger]:
    """All ledgers, by number. Raises StoreError."""
    return [Ledger(*row) for row in await database.fetch("read_ledgers")]
