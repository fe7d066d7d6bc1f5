"""Reading statements."""

from dataclasses import dataclass
from datetime import datetime

from transferd.ledger.store.database import LedgerDatabase, Row
from transferd.ledger.store.numbers import CHANGE_KINDS, TRANSFER_KINDS


@dataclass(frozen=True, slots=True)
class StatementEntry:
    """One change of a wallet; `amount_minor` is signed and 0 for changes that move no money.

    `held_after_minor` is what the wallet holds after it.
    """

    transfer_id: str | None
    kind: str
    amount_minor: int
    balance_after_minor: int
    version: int
    counterparty_wallet_id: str | None
    reference: str | None
    created_at: datetime
    metadata: str
    hold_id: str | None
    held_after_minor: int


async def statement(
    database: LedgerDatabase, wallet_id: str, *, after_version: int, to_version: int, limit: int
) -> list[StatementEntry]:
    """Entries with after_version < version <= to_version, newest first."""
    rows = await database.fetch("statement", wallet_id, after_version, to_version, limit)
    held_minor = rows[-1]["held_before"] or 0 if rows else 0
    entries: list[StatementEntry] = []
    # From the oldest on: an entry that does not change what is held has the value before it.
    for row in reversed(rows):
        if row["held"] is not None:
            held_minor = row["held"]
        entries.append(_entry_of(row, held_minor))
    return entries[::-1]


def _entry_of(row: Row, held_minor: int) -> StatementEntry:
    return StatementEntry(
        row["transfer_id"],
        _kind_of_entry(row["transfer_kind"], row["change_kind"]),
        row["amount"],
        row["balance_after"],
        row["version"],
        row["counterparty_wallet_id"],
        row["reference"],
        row["created_at"],
        row["metadata"] or "{}",
        row["hold_id"],
        held_minor,
    )


def _kind_of_entry(transfer_kind: int | None, change_kind: int) -> str:
    if transfer_kind is None:
        return CHANGE_KINDS[change_kind]
    return TRANSFER_KINDS[transfer_kind]
