"""Reading holds: under the lock of their wallet, and as they are now."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from transferd.domain.hold import Hold, HoldStatus
from transferd.ledger.store.database import LedgerDatabase, Row, Transaction
from transferd.ledger.store.numbers import HOLD_STATUS_NUMBERS, HOLD_STATUSES

# The question of a watch over ledgers.
HAS_DUE_HOLDS = "has_due_holds"

_COLUMNS = len(Hold._fields)


class DueWallet(NamedTuple):
    """A wallet with holds that are due, and their number."""

    wallet_id: str
    holds: int


def _hold_of(row: Row) -> Hold:
    """The columns of a hold, which come first and in the same order from every query."""
    values = list(row)[:_COLUMNS]
    values[7] = HOLD_STATUSES[values[7]]
    return Hold(*values)


def locked_hold_of(row: Row) -> Hold:
    """The hold of `lock_and_look_up`, which comes in the columns of a wallet."""
    return Hold(
        row["id"],
        row["user_id"],
        row["destination_wallet_id"],
        row["currency"],
        row["balance"],
        row["held"],
        row["overdraft_limit"],
        HOLD_STATUSES[row["status"]],
        row["hold_expires_at"],
        row["final_transfer_id"],
        row["reference"],
        row["metadata"],
        row["created_at"],
        row["updated_at"],
    )


class HoldPage(NamedTuple):
    """A page of holds, newest first. Further pages have ids below `end`; None: there are none."""

    holds: list[Hold]
    end: str | None


class ActiveHolds(NamedTuple):
    """The number of active holds, and how many seconds ago the oldest of them was due."""

    holds: int
    overdue_s: float


async def due_holds(
    transaction: Transaction, wallet_ids: Sequence[str], at: datetime, *, holds_max: int
) -> list[Hold]:
    """The active holds of locked wallets that are due, by wallet, in the order of their expiry."""
    rows = await transaction.fetch("due_holds", wallet_ids, at, holds_max)
    return [_hold_of(row) for row in rows]


async def next_expiries(
    transaction: Transaction, wallet_ids: Sequence[str], at: datetime
) -> dict[str, datetime]:
    """The earliest expiry after `at` of each of these wallets that has one."""
    rows = await transaction.fetch("next_expiries", wallet_ids, at)
    return {row["wallet_id"]: row["expires_at"] for row in rows}


async def holds_now(database: LedgerDatabase, ids: Iterable[str]) -> dict[str, Hold]:
    """Holds by id as they are now; unknown ids are missing."""
    return {row["id"]: _hold_of(row) for row in await database.fetch("holds_now_by_id", list(ids))}


async def list_holds(
    database: LedgerDatabase,
    *,
    wallet_id: str | None,
    status: HoldStatus | None,
    expires_before: datetime | None,
    before_id: str | None,
    limit: int,
    looked_at_max: int,
) -> HoldPage:
    """At most `limit` holds with ids below `before_id`; `wallet_id` is the wallet that pays.

    A page looks at `looked_at_max` holds and may have fewer than `limit`, or none, and an `end`.
    """
    if status is HoldStatus.ACTIVE and wallet_id is not None:
        rows = await database.fetch(
            "list_active_holds_of_wallet", wallet_id, expires_before, before_id, limit + 1
        )
        return _page(rows, limit)
    number = None if status is None else HOLD_STATUS_NUMBERS[status]
    filters = (number, expires_before, before_id, limit + 1, looked_at_max)
    if wallet_id is None:
        rows = await database.fetch("list_holds", *filters)
    else:
        rows = await database.fetch("list_holds_of_wallet", wallet_id, *filters)
    matching = [row for row in rows if row["matches"]]
    if len(matching) > limit or not (rows and rows[-1]["is_end"]):
        return _page(matching, limit)
    if status is HoldStatus.ACTIVE:
        # The others lie behind many that have ended. Their own index finds them if they are few.
        active = await database.fetch(
            "list_active_holds", expires_before, before_id, limit + 1, looked_at_max
        )
        if active[0]["found"] <= looked_at_max:
            return _page([row for row in active if row["id"] is not None], limit)
    return HoldPage([_hold_of(row) for row in matching], rows[-1]["id"])


def _page(rows: Sequence[Row], limit: int) -> HoldPage:
    """A page of rows of which one beyond `limit` means that there is a next page."""
    holds = [_hold_of(row) for row in rows[:limit]]
    return HoldPage(holds, holds[-1].id if len(rows) > limit else None)


async def due_wallets(
    transaction: Transaction, excluded: Sequence[str], *, holds_max: int
) -> list[DueWallet]:
    """The wallets of the `holds_max` holds that have been due for the longest time.

    Without the `excluded` wallets.
    """
    rows = await transaction.fetch("due_wallets", holds_max, excluded)
    return [DueWallet(*row) for row in rows]


async def measure_holds(database: LedgerDatabase, *, holds_max: int) -> ActiveHolds:
    """The active holds; at most `holds_max` are counted."""
    [row] = await database.fetch("measure_holds", holds_max)
    return ActiveHolds(*row)
