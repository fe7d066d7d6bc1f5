"""Reading transfers, one by one and as a wallet's list."""

from collections.abc import Iterable

from transferd.domain.transfer import PostedTransfer
from transferd.ledger.store.database import LedgerDatabase, Row, Transaction
from transferd.ledger.store.numbers import TRANSFER_KINDS


def transfer_of(row: Row) -> PostedTransfer:
    """A row of `read_transfers` or `list_transfers`."""
    return PostedTransfer(
        id=row["id"],
        kind=TRANSFER_KINDS[row["kind"]],
        source_wallet_id=row["source_wallet_id"],
        destination_wallet_id=row["destination_wallet_id"],
        amount_minor=row["amount"],
        currency=row["currency"],
        reference=row["reference"],
        metadata=row["metadata"] or "{}",
        source_version=row["source_version"],
        source_balance_after_minor=row["source_balance_after"],
        destination_version=row["destination_version"],
        destination_balance_after_minor=row["destination_balance_after"],
        reverses_transfer_id=row["reverses_transfer_id"],
        created_at=row["created_at"],
        hold_id=row["hold_id"],
    )


async def read_transfers(
    source: LedgerDatabase | Transaction, ids: Iterable[str]
) -> dict[str, PostedTransfer]:
    """Transfers by id; unknown ids are missing."""
    return {row["id"]: transfer_of(row) for row in await source.fetch("read_transfers", list(ids))}


async def read_transfer(database: LedgerDatabase, id: str) -> PostedTransfer | None:
    """One transfer, or None."""
    rows = await database.fetch("read_transfers", [id])
    return transfer_of(rows[0]) if rows else None


async def list_transfers(
    database: LedgerDatabase, wallet_id: str, *, before_version: int, limit: int
) -> list[tuple[int, PostedTransfer]]:
    """The wallet's (version, transfer) pairs below `before_version`, newest first."""
    rows = await database.fetch("list_transfers", wallet_id, before_version, limit)
    return [(row["wallet_version"], transfer_of(row)) for row in rows]


async def transfers_after(
    database: LedgerDatabase, wallet_id: str, *, after_version: int, limit: int
) -> list[tuple[int, PostedTransfer]]:
    """The wallet's (version, transfer) pairs above `after_version`, oldest first."""
    rows = await database.fetch("transfers_after", wallet_id, after_version, limit)
    return [(row["wallet_version"], transfer_of(row)) for row in rows]
