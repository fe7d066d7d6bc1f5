"""Reading wallets: snapshots, lists and points in time."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from transferd.domain.wallet import Wallet
from transferd.ledger.store.database import LedgerDatabase, Row, Transaction
from transferd.ledger.store.numbers import WALLET_STATUSES

WALLET_COLUMNS = 14


def wallet_of(row: Row | tuple[Any, ...]) -> Wallet:
    """The columns of a wallet, which come in the same order from every query."""
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
        hold_expires_at,
        open_holds,
    ) = row[:WALLET_COLUMNS]
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
        hold_expires_at,
        open_holds,
    )


async def read_wallets(
    source: LedgerDatabase | Transaction, ids: Iterable[str]
) -> dict[str, Wallet]:
    """Committed wallets by id, without what is due of their holds; unknown ids are missing."""
    return {row["id"]: wallet_of(row) for row in await source.fetch("read_wallets", list(ids))}


async def read_wallets_and_clock(
    database: LedgerDatabase, ids: Iterable[str]
) -> tuple[dict[str, Wallet], datetime]:
    """As `read_wallets`, with the time of the database at which the holds were judged."""
    rows = await database.fetch("read_wallets", list(ids))
    now = rows[0]["now"] if rows else datetime.now(UTC)
    return {row["id"]: wallet_of(row) for row in rows}, now


async def list_wallets(
    database: LedgerDatabase,
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
    database: LedgerDatabase, wallet_id: str
) -> tuple[Wallet, datetime] | None:
    """The committed wallet and the database's time, which is read later; None: unknown id."""
    rows = await database.fetch("read_wallets", [wallet_id])
    return (wallet_of(rows[0]), rows[0]["now"]) if rows else None


async def is_unlocked(database: LedgerDatabase, wallet_id: str) -> bool:
    """Whether no transaction has the wallet's row locked for a change."""
    script = "lock_shared_skipping"
    return await database.run_script(script, wallet_id) == 1


async def wait_for_writers(database: LedgerDatabase, wallet_id: str) -> None:
    """Return when each transaction has ended that had the wallet's row locked for a change.

    Raises LockTimeout, or another StoreError.
    """
    await database.run_script("lock_shared", wallet_id)


async def version_before(database: LedgerDatabase, wallet_id: str, instant: datetime) -> int | None:
    """The last committed version with a time before the instant; None: not created before it.

    Another one may still be committed unless the instant is settled (`Past`).
    """
    rows = await database.fetch("version_before", wallet_id, instant)
    return rows[0]["version"] if rows else None


async def wallet_at_version(
    database: LedgerDatabase, wallet: Wallet, version: int, instant: datetime
) -> Wallet:
    """The wallet at a settled instant, whose last version before it is `version`.

    It has the metadata of `wallet`. Holds that were due at the instant reserve nothing.
    """
    [row] = await database.fetch("state_at_version", wallet.id, version, instant)
    return replace(
        wallet,
        balance_minor=row["balance_after"],
        held_minor=row["held"],
        overdraft_limit_minor=row["overdraft_limit"],
        status=WALLET_STATUSES[row["status"]],
        version=version,
        updated_at=row["created_at"],
    )


async def wallet_versions(database: LedgerDatabase, ids: Sequence[str]) -> dict[str, int]:
    """The present versions of wallets; unknown ids are missing."""
    return {row["id"]: row["version"] for row in await database.fetch("wallet_versions", ids)}
