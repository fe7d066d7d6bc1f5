"""The statements of one group commit, in their order: lock, look up, write."""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from transferd.domain.hold import Hold
from transferd.domain.key import Key
from transferd.domain.wallet import Wallet
from transferd.ledger.store.database import Transaction
from transferd.ledger.store.errors import SerializationFailure
from transferd.ledger.store.group_rows import (
    GroupResult,
    array_literal,
    change_parameters,
    group_parameters,
)
from transferd.ledger.store.holds import locked_hold_of
from transferd.ledger.store.outcomes import StoredOutcome, outcome_of
from transferd.ledger.store.wallets import wallet_of


class Locked(NamedTuple):
    """The result of `lock_and_look_up`.

    `contended` are ids that another transaction has locked (only with `skip_locked`), `outcomes`
    are the outcomes that the keys already have, `at` is the time in UTC.
    """

    wallets: dict[str, Wallet]
    holds: dict[str, Hold]
    contended: set[str]
    outcomes: dict[Key, StoredOutcome]
    at: datetime


async def lock_and_look_up(
    transaction: Transaction,
    ids: Collection[str],
    hold_ids: Collection[str],
    keys: Sequence[Key],
    *,
    skip_locked: bool,
) -> Locked:
    """Lock the wallets and these holds of them until the transaction ends, then look up the
    outcomes of the keys. Unknown ids are missing.

    Waits for a row that another transaction has locked (LockTimeout), or leaves it out with
    `skip_locked`.
    """
    name = "lock_and_look_up_skipping" if skip_locked else "lock_and_look_up"
    clients = array_literal([str(client_id) for client_id, _ in keys])
    texts = [text for _, text in keys]
    rows = await transaction.fetch(name, list(ids), list(hold_ids), clients, texts)
    wallets: dict[str, Wallet] = {}
    holds: dict[str, Hold] = {}
    outcomes: dict[Key, StoredOutcome] = {}
    for row in rows[:-1]:
        if row[0] is None:
            key, outcome = outcome_of(row)
            outcomes[key] = outcome
        elif row["version"] is None:
            holds[row[0]] = locked_hold_of(row)
        else:
            wallets[row[0]] = wallet_of(row)
    missing = [id for id in ids if id not in wallets] if skip_locked else []
    contended: set[str] = set()
    if missing:
        contended = {row["id"] for row in await transaction.fetch("existing_wallets", missing)}
    at = time_of_group(rows[-1]["at"], wallets.values())
    return Locked(wallets, holds, contended, outcomes, at)


def time_of_group(now: datetime, wallets: Iterable[Wallet]) -> datetime:
    """The time of a group: the database's clock, but never before the times of its wallets.

    The clock of the database may have been set back. Answers about the past of a wallet rely on
    times that never decrease.
    """
    return max([now, *(wallet.updated_at for wallet in wallets)])


async def reversed_sums(transaction: Transaction, ids: Sequence[str]) -> dict[str, int]:
    """The sum of the reversals of each transfer, in minor units; a sum of 0 is missing."""
    rows = await transaction.fetch("reversed_sums", ids)
    return {row["id"]: row["amount"] for row in rows}


async def existing_users(transaction: Transaction, ids: Sequence[str]) -> dict[str, datetime]:
    """The existing ones of these users, with the time of their creation."""
    rows = await transaction.fetch("existing_users", ids)
    return {row["id"]: row["created_at"] for row in rows}


async def write(
    transaction: Transaction, result: GroupResult, *, outbox_row_events_max: int
) -> None:
    """Write the result. Raises SerializationFailure if it conflicts with another transaction."""
    if result.users:
        await _insert_users(transaction, result)
    if result.created_wallets:
        await _insert_wallets(transaction, result)
    await _write_group(transaction, result, outbox_row_events_max)


async def _write_group(transaction: Transaction, result: GroupResult, row_events_max: int) -> None:
    wallets = result.wallets_to_update()
    parameters = group_parameters(result, wallets, row_events_max)._asdict()
    name = "write_group"
    if result.set_wallets or result.changes:
        name = "write_group_and_changes"
        parameters |= change_parameters(result, wallets)._asdict()
    [row] = await transaction.fetch_named(name, parameters)
    if row["wallets"] != len(wallets):
        raise SerializationFailure("the version of a wallet has moved under its lock")
    if row["outcomes"] != len(result.outcomes):
        raise SerializationFailure("another replica was faster with a key")
    if row["holds"] != len(result.holds) - len(result.created_holds):
        raise SerializationFailure("a hold has ended under the lock of its wallet")


async def _insert_users(transaction: Transaction, result: GroupResult) -> None:
    # A user that an earlier attempt has stored has the time of that attempt.
    users = [user for user in result.users if user.created_at == result.at]
    rows = await transaction.fetch(
        "insert_users",
        result.at,
        [u.id for u in users],
        [u.name for u in users],
        [u.metadata for u in users],
    )
    if len(rows) != len(users):
        raise SerializationFailure("an earlier COMMIT of these users was still in flight")


async def _insert_wallets(transaction: Transaction, result: GroupResult) -> None:
    wallets = result.created_wallets
    rows = await transaction.fetch(
        "insert_wallets",
        result.at,
        [w.id for w in wallets],
        [w.user_id for w in wallets],
        [w.currency for w in wallets],
        [w.overdraft_limit_minor for w in wallets],
        [w.metadata for w in wallets],
    )
    if len(rows) != len(wallets):
        raise SerializationFailure("an earlier COMMIT of these wallets was still in flight")
