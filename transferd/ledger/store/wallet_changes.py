"""Reading the changes of wallets that are not transfers."""

from typing import NamedTuple

from transferd.domain.hold import Hold, HoldStatus
from transferd.domain.wallet import WalletChange
from transferd.ledger.store.database import LedgerDatabase, Row
from transferd.ledger.store.numbers import CHANGE_KINDS, HOLD_STATUSES, WALLET_STATUSES


class OwnedChange(NamedTuple):
    """A change of a wallet, with the wallet's user and currency."""

    user_id: str | None
    currency: str
    change: WalletChange


async def changes_after(
    database: LedgerDatabase, wallet_id: str, *, after_version: int, limit: int
) -> list[OwnedChange]:
    """The wallet's changes that are not transfers, above a version, oldest first."""
    rows = await database.fetch("changes_after", wallet_id, after_version, limit)
    return [
        OwnedChange(
            row["user_id"],
            row["currency"],
            WalletChange(
                row["wallet_id"],
                row["version"],
                CHANGE_KINDS[row["kind"]],
                WALLET_STATUSES[row["status"]],
                row["balance_after"],
                row["overdraft_limit"],
                row["created_at"],
                row["held_after"],
                None if row["hold_id"] is None else _hold_of(row),
            ),
        )
        for row in rows
    ]


def _hold_of(row: Row) -> Hold:
    """The hold right after a change of it."""
    status = HOLD_STATUSES[row["hold_status"]]
    return Hold(
        row["hold_id"],
        row["wallet_id"],
        row["destination_wallet_id"],
        row["currency"],
        row["hold_amount"],
        row["hold_captured"],
        row["hold_released"],
        status,
        row["hold_expires_at"],
        row["final_transfer_id"] if status is HoldStatus.CAPTURED else None,
        row["reference"],
        row["metadata"],
        row["hold_created_at"],
        row["created_at"],
    )
