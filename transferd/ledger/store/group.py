"""The statements of one group commit, in their order: lock, look up, write."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from transferd.domain.hold import Hold
from transferd.domain.key import Key
from transferd.domain.transfer import PostedTransfer
from transferd.domain.user import User
from transferd.domain.wallet import Wallet, WalletChange
from transferd.ledger.store.database import Transaction
from transferd.ledger.store.errors import SerializationFailure
from transferd.ledger.store.group_changes import change_parameters
from transferd.ledger.store.numbers import TRANSFER_KIND_NUMBERS
from transferd.ledger.store.outcomes import StoredOutcome, outcome_of
from transferd.ledger.store.wallets import wallet_of

_MOVED = "the version of a wallet has moved under its lock"


@dataclass(slots=True)
class GroupResult:
    """Everything a group changes. `wallets` is their state after, `versions_read` before."""

    at: datetime
    versions_read: dict[str, int]
    wallets: dict[str, Wallet] = field(default_factory=dict)
    transfers: list[PostedTransfer] = field(default_factory=list)
    created_wallets: list[Wallet] = field(default_factory=list)
    changes: list[WalletChange] = field(default_factory=list)
    # Ids of wallets in which more than balance and version has changed.
    set_wallets: set[str] = field(default_factory=set)
    # The last state of each hold that has changed, and the ids of the new ones.
    holds: dict[str, Hold] = field(default_factory=dict)
    created_holds: set[str] = field(default_factory=set)
    users: list[User] = field(default_factory=list)
    outcomes: list[tuple[Key, StoredOutcome]] = field(default_factory=list)
    events: list[bytes] = field(default_factory=list)

    def changed_wallets(self) -> list[Wallet]:
        """The wallets whose version has changed; a new wallet at version 0 is one of them."""
        return [
            wallet
            for wallet in self.wallets.values()
            if wallet.version != self.versions_read.get(wallet.id, -1)
        ]

    def __bool__(self) -> bool:
        return bool(self.outcomes or self.events or self.set_wallets)


class Locked(NamedTuple):
    """The result of `lock_and_look_up`.

    `contended` are ids that another transaction has locked (only with `skip_locked`), `outcomes`
    are the outcomes that the keys already have, `at` is the time in UTC.
    """

    wallets: dict[str, Wallet]
    contended: set[str]
    outcomes: dict[Key, StoredOutcome]
    at: datetime


async def lock_and_look_up(
    transaction: Transaction, ids: Collection[str], keys: Sequence[Key], *, skip_locked: bool
) -> Locked:
    """Lock the wallets until the transaction ends, then look up the outcomes of the keys.

    Waits for a row that another transaction has locked (LockTimeout), or leaves it out with
    `skip_locked`.
    """
    name = "lock_and_look_up_skipping" if skip_locked else "lock_and_look_up"
    clients = _literal([str(client_id) for client_id, _ in keys])
    rows = await transaction.fetch(name, list(ids), clients, [text for _, text in keys])
    wallets: dict[str, Wallet] = {}
    outcomes: dict[Key, StoredOutcome] = {}
    for row in rows[:-1]:
        if row[0] is not None:
            wallets[row[0]] = wallet_of(row)
        else:
            key, outcome = outcome_of(row)
            outcomes[key] = outcome
    missing = [id for id in ids if id not in wallets] if skip_locked else []
    contended: set[str] = set()
    if missing:
        contended = {row["id"] for row in await transaction.fetch("existing_wallets", missing)}
    return Locked(wallets, contended, outcomes, time_of_group(rows[-1]["at"], wallets.values()))


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
    if result.set_wallets or result.changes:
        await _write_changes(transaction, result)


class GroupParameters(NamedTuple):
    """The parameters of `write_group`, by the names that they have there.

    A `str` is an array literal. Each array of transfers has one item for each transfer, and so on.
    """

    at: datetime
    transfer_ids: str
    transfer_kinds: str
    source_wallet_ids: str
    destination_wallet_ids: str
    amounts: str
    currencies: str
    references: list[str | None]
    metadata: list[str | None]
    source_versions: str
    source_balances_after: str
    destination_versions: str
    destination_balances_after: str
    reversed_transfer_ids: str
    captured_hold_ids: str
    wallet_ids: str
    wallet_versions_read: str
    wallet_versions: str
    wallet_balances: str
    outcome_client_ids: str
    outcome_keys: list[str]
    outcome_fingerprints: list[bytes]
    outcome_statuses: str
    outcome_render_versions: str
    outcome_transfer_ids: str
    outcome_bodies: list[bytes | None]
    event_counts: str
    events: list[str]


def group_parameters(
    result: GroupResult, moved: Sequence[Wallet], row_events_max: int
) -> GroupParameters:
    """What `write_group` writes of a result; `moved` are the wallets that it updates."""
    transfers = result.transfers
    outcomes = result.outcomes
    event_rows = [
        result.events[start : start + row_events_max]
        for start in range(0, len(result.events), row_events_max)
    ]
    return GroupParameters(
        at=result.at,
        transfer_ids=_literal([t.id for t in transfers]),
        transfer_kinds=_literal([str(TRANSFER_KIND_NUMBERS[t.kind]) for t in transfers]),
        source_wallet_ids=_literal([t.source_wallet_id for t in transfers]),
        destination_wallet_ids=_literal([t.destination_wallet_id for t in transfers]),
        amounts=_literal([str(t.amount_minor) for t in transfers]),
        currencies=_literal([t.currency for t in transfers]),
        references=_sparse([t.reference for t in transfers]),
        metadata=_sparse([None if t.metadata == "{}" else t.metadata for t in transfers]),
        source_versions=_literal([str(t.source_version) for t in transfers]),
        source_balances_after=_literal([str(t.source_balance_after_minor) for t in transfers]),
        destination_versions=_literal([str(t.destination_version) for t in transfers]),
        destination_balances_after=_literal(
            [str(t.destination_balance_after_minor) for t in transfers]
        ),
        reversed_transfer_ids=_literal([t.reverses_transfer_id or "NULL" for t in transfers]),
        captured_hold_ids=_literal([t.hold_id or "NULL" for t in transfers]),
        wallet_ids=_literal([w.id for w in moved]),
        wallet_versions_read=_literal([str(result.versions_read.get(w.id, 0)) for w in moved]),
        wallet_versions=_literal([str(w.version) for w in moved]),
        wallet_balances=_literal([str(w.balance_minor) for w in moved]),
        outcome_client_ids=_literal([str(client_id) for (client_id, _), _ in outcomes]),
        outcome_keys=[text for (_, text), _ in outcomes],
        outcome_fingerprints=[o.fingerprint for _, o in outcomes],
        outcome_statuses=_literal([str(o.status) for _, o in outcomes]),
        outcome_render_versions=_literal([str(o.answer.render_version) for _, o in outcomes]),
        outcome_transfer_ids=_literal([o.answer.transfer_id or "NULL" for _, o in outcomes]),
        outcome_bodies=[o.answer.body for _, o in outcomes],
        event_counts=_literal([str(len(row)) for row in event_rows]),
        events=["[" + b",".join(row).decode() + "]" for row in event_rows],
    )


async def _write_group(transaction: Transaction, result: GroupResult, row_events_max: int) -> None:
    created = {wallet.id for wallet in result.created_wallets}
    moved = [
        wallet
        for wallet in result.changed_wallets()
        if wallet.id not in result.set_wallets
        and not (wallet.id in created and wallet.version == 0)
    ]
    parameters = group_parameters(result, moved, row_events_max)
    [row] = await transaction.fetch_named("write_group", parameters)
    if row["wallets"] != len(moved):
        raise SerializationFailure(_MOVED)
    if row["outcomes"] != len(result.outcomes):
        raise SerializationFailure("another replica was faster with a key")


def _literal(items: Iterable[str]) -> str:
    """A PostgreSQL array of items that need no quotes."""
    return "{" + ",".join(items) + "}"


def _sparse(items: list[str | None]) -> list[str | None]:
    """An empty list if all items are null: `unnest` fills a shorter array with nulls."""
    return items if any(item is not None for item in items) else []


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


async def _write_changes(transaction: Transaction, result: GroupResult) -> None:
    wallets = [result.wallets[id] for id in result.set_wallets]
    created = [hold for id, hold in result.holds.items() if id in result.created_holds]
    changed = [hold for id, hold in result.holds.items() if id not in result.created_holds]
    parameters = change_parameters(
        result.at,
        wallets=[(result.versions_read.get(wallet.id, 0), wallet) for wallet in wallets],
        changes=result.changes,
        created=created,
        changed=changed,
    )
    [row] = await transaction.fetch_named("write_changes", parameters)
    if row["wallets"] != len(wallets):
        raise SerializationFailure(_MOVED)
    if row["holds"] != len(changed):
        raise SerializationFailure("a hold has ended under the lock of its wallet")
