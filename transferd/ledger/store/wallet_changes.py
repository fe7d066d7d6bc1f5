"""Reading the changes of wallets that are not transfers."""

from typing import NamedTuple

from transferd.domain.wallet import WalletChange
from transferd.ledger.ids import ledger_of
from transferd.ledger.store.database import Database
from transferd.ledger.store.numbers import CHANGE_KINDS, WALLET_STATUSES


class OwnedChange(NamedTuple):
    """A change of a wallet, with the wallet's user and currency."""

    user_id: str | None
    currency: str
    change: WalletChange


async def changes_after(
    database: Database, wallet_id: str, *, after_version: int, limit: int
) -> list[OwnedChange]:
    """The wallet's changes that are not transfers, above a version, oldest first."""
    rows = await database.fetch(
        "changes_after", wallet_id, after_version, limit, ledger=ledger_of(wallet_id)
    )
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
            ),
        )
        for row in rows
    ]
