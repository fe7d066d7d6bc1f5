"""Reading wallets: snapshots, lists, points in time, statements, currencies."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple

from transferd.domain.wallet import Wallet, WalletChange
from transferd.ledger.ids import LEDGERS, ledger_of
from transferd.ledger.store.database import Database, Row, Transaction
from transferd.ledger.store.numbers import CHANGE_KINDS, TRANSFER_KINDS, WALLET_STATUSES


@dataclass(frozen=True, slots=True)
class Currency:
    """An ISO 4217 currency; `exponent` is the number of decimal places of its minor unit."""

    code: str
    name: str
    exponent: int
    funding_wallet_id: str


@dataclass(frozen=True, slots=True)
class StatementEntry:
    """One change of a wallet; `amount_minor` is signed and 0 for changes that move no money."""

    transfer_id: str | None
    kind: str
    amount_minor: int
    balance_after_minor: int
    version: int
    counterparty_wallet_id: str | None
    reference: str | None
    created_at: datetime
    metadata: str


class WalletNews(NamedTuple):
    """A change of a wallet, with whose it is."""

    user_id: str | None
    currency: str
    change: WalletChange


def wallet_of(row: Row | tuple[Any, ...]) -> Wallet:
    """The twelve columns of a wallet, which come in the same order from every query."""
    (
        id,
        user_id,
        currency,
        balance,
        held,
        overdraft_limit,
        status,
        funding,
        version,
        metadata,
        created_at,
        updated_at,
    ) = row
    return Wallet(
        id,
        user_id,
        currency,
        balance,
        held,
        overdraft_limit,
        WALLET_STATUSES[status],
        funding,
        version,
        metadata,
        created_at,
        updated_at,
    )


async def read_wallets(source: Database | Transaction, ids: Iterable[str]) -> dict[str, Wallet]:
    """Committed snapshots by id; unknown ids are missing."""
    return {row["id"]: wallet_of(row) for row in await source.fetch("read_wallets", list(ids))}


async def list_wallets(
    database: Database,
    *,
    user_id: str | None,
    currency: str | None,
    before_id: str | None,
    limit: int,
) -> list[Wallet]:
    """Newest first, those with an id below `before_id`."""
    rows = await database.fetch("list_wallets", user_id, currency, before_id, limit)
    return [wallet_of(row) for row in rows]


async def read_wallet_and_clock(
    database: Database, wallet_id: str
) -> tuple[Wallet, datetime] | None:
    """The committed wallet, and the database's time after that; None for an unknown id."""
    rows = await database.fetch("read_wallet_and_clock", wallet_id, ledger=ledger_of(wallet_id))
    return (wallet_of(rows[0][:12]), rows[0]["now"]) if rows else None


async def is_unlocked(database: Database, wallet_id: str) -> bool:
    """Whether no transaction has the wallet's row locked for a change."""
    script = "lock_shared_skipping"
    return await database.run_script(script, wallet_id, ledger=ledger_of(wallet_id)) == 1


async def wait_for_writers(database: Database, wallet_id: str) -> None:
    """Return when each transaction has ended that had the wallet's row locked for a change.

    Raises LockTimeout, or another StoreError.
    """
    await database.run_script("lock_shared", wallet_id, ledger=ledger_of(wallet_id))


async def version_before(database: Database, wallet_id: str, instant: datetime) -> int | None:
    """The last committed version with a time before the instant; None: not created before it.

    Another one may still be committed unless the instant is settled (`Past`).
    """
    rows = await database.fetch("version_before", wallet_id, instant, ledger=ledger_of(wallet_id))
    return rows[0]["version"] if rows else None


async def wallet_at_version(database: Database, wallet: Wallet, version: int) -> Wallet:
    """The wallet as it was right after a version of its past; its metadata as in `wallet`."""
    [row] = await database.fetch(
        "state_at_version", wallet.id, version, ledger=ledger_of(wallet.id)
    )
    return replace(
        wallet,
        balance_minor=row["balance_after"],
        held_minor=0,
        overdraft_limit_minor=row["overdraft_limit"],
        status=WALLET_STATUSES[row["status"]],
        version=version,
        updated_at=row["created_at"],
    )


async def statement(
    database: Database, wallet_id: str, *, after_version: int, to_version: int, limit: int
) -> list[StatementEntry]:
    """Entries with after_version < version <= to_version, newest first."""
    rows = await database.fetch(
        "statement", wallet_id, after_version, to_version, limit, ledger=ledger_of(wallet_id)
    )
    return [
        StatementEntry(
            row["transfer_id"],
            _kind_of_entry(row["transfer_kind"], row["change_kind"]),
            row["amount"],
            row["balance_after"],
            row["version"],
            row["counterparty_wallet_id"],
            row["reference"],
            row["created_at"],
            row["metadata"] or "{}",
        )
        for row in rows
    ]


def _kind_of_entry(transfer_kind: int | None, change_kind: int) -> str:
    if transfer_kind is None:
        return CHANGE_KINDS[change_kind]
    return TRANSFER_KINDS[transfer_kind]


async def read_currencies(database: Database) -> Sequence[Currency]:
    """All currencies, by code."""
    rows = await database.fetch("read_currencies", ledger=LEDGERS[0])
    return [Currency(*row) for row in rows]


async def changes_after(
    database: Database, wallet_id: str, *, after_version: int, limit: int
) -> list[WalletNews]:
    """The wallet's changes that are not transfers, above a version, oldest first."""
    rows = await database.fetch(
        "changes_after", wallet_id, after_version, limit, ledger=ledger_of(wallet_id)
    )
    return [
        WalletNews(
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


async def wallet_versions(database: Database, ids: Sequence[str]) -> dict[str, int]:
    """The versions that wallets have now; unknown ids are missing."""
    return {row["id"]: row["version"] for row in await database.fetch("wallet_versions", ids)}
