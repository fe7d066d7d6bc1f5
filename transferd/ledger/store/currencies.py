"""Reading currencies."""

from collections.abc import Sequence
from dataclasses import dataclass

from transferd.ledger.store.database import LedgerDatabase


@dataclass(frozen=True, slots=True)
class Currency:
    """An ISO 4217 currency; `exponent` is the number of decimal places of its minor unit."""

    code: str
    name: str
    exponent: int
    funding_wallet_id: str


async def read_currencies(database: LedgerDatabase) -> Sequence[Currency]:
    """All currencies, by code."""
    rows = await database.fetch("read_currencies")
    return [Currency(*row) for row in rows]
