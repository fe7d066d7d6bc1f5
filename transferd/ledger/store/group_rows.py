"""What a group writes: its result, and the result as parameters of the queries that write it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from transferd.domain.hold import Hold
from transferd.domain.key import Key
from transferd.domain.transfer import PostedTransfer
from transferd.domain.user import User
from transferd.domain.wallet import ChangeKind, Wallet, WalletChange
from transferd.ledger.store.numbers import (
    CHANGE_KIND_NUMBERS,
    HOLD_STATUS_NUMBERS,
    TRANSFER_KIND_NUMBERS,
    WALLET_STATUS_NUMBERS,
)
from transferd.ledger.store.outcomes import StoredOutcome


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
    # The last state of each hold that has changed, and the new ones.
    holds: dict[str, Hold] = field(default_factory=dict)
    created_holds: list[Hold] = field(default_factory=list)
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

    def wallets_to_update(self) -> list[Wallet]:
        """The wallets to write, except the new ones that are still as they were inserted."""
        return [
            wallet
            for wallet in self.wallets.values()
            if wallet.version != self.versions_read.get(wallet.id, 0)
            or wallet.id in self.set_wallets
        ]

    def __bool__(self) -> bool:
        return bool(self.outcomes or self.events or self.set_wallets)


class GroupParameters(NamedTuple):
    """The parameters of `group_rows` and of the balances, by the names that they have there.

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
    result: GroupResult, wallets: Sequence[Wallet], row_events_max: int
) -> GroupParameters:
    """What every group writes of a result; `wallets` are those that it updates."""
    transfers = result.transfers
    outcomes = result.outcomes
    event_rows = [
        result.events[start : start + row_events_max]
        for start in range(0, len(result.events), row_events_max)
    ]
    return GroupParameters(
        at=result.at,
        transfer_ids=array_literal([t.id for t in transfers]),
        transfer_kinds=array_literal([str(TRANSFER_KIND_NUMBERS[t.kind]) for t in transfers]),
        source_wallet_ids=array_literal([t.source_wallet_id for t in transfers]),
        destination_wallet_ids=array_literal([t.destination_wallet_id for t in transfers]),
        amounts=array_literal([str(t.amount_minor) for t in transfers]),
        currencies=array_literal([t.currency for t in transfers]),
        references=_sparse([t.reference for t in transfers]),
        metadata=_sparse([None if t.metadata == "{}" else t.metadata for t in transfers]),
        source_versions=array_literal([str(t.source_version) for t in transfers]),
        source_balances_after=array_literal([str(t.source_balance_after_minor) for t in transfers]),
        destination_versions=array_literal([str(t.destination_version) for t in transfers]),
        destination_balances_after=array_literal(
            [str(t.destination_balance_after_minor) for t in transfers]
        ),
        reversed_transfer_ids=array_literal([t.reverses_transfer_id or "NULL" for t in transfers]),
        captured_hold_ids=array_literal([t.hold_id or "NULL" for t in transfers]),
        wallet_ids=array_literal([w.id for w in wallets]),
        wallet_versions_read=array_literal(
            [str(result.versions_read.get(w.id, 0)) for w in wallets]
        ),
        wallet_versions=array_literal([str(w.version) for w in wallets]),
        wallet_balances=array_literal([str(w.balance_minor) for w in wallets]),
        outcome_client_ids=array_literal([str(client_id) for (client_id, _), _ in outcomes]),
        outcome_keys=[text for (_, text), _ in outcomes],
        outcome_fingerprints=[o.fingerprint for _, o in outcomes],
        outcome_statuses=array_literal([str(o.status) for _, o in outcomes]),
        outcome_render_versions=array_literal([str(o.answer.render_version) for _, o in outcomes]),
        outcome_transfer_ids=array_literal([o.answer.transfer_id or "NULL" for _, o in outcomes]),
        outcome_bodies=[o.answer.body for _, o in outcomes],
        event_counts=array_literal([str(len(row)) for row in event_rows]),
        events=["[" + b",".join(row).decode() + "]" for row in event_rows],
    )


class ChangeParameters(NamedTuple):
    """The further parameters of `write_group_and_changes`, by the names that they have there.

    Each array has one item for each wallet, change or new hold. Metadata of a wallet that keeps its
    own is null.
    """

    wallet_statuses: str
    wallet_held: str
    wallet_overdraft_limits: str
    wallet_metadata: list[str | None]
    wallet_hold_expires_at: str
    wallet_open_holds: str
    change_wallet_ids: str
    change_versions: str
    change_kinds: str
    change_statuses: str
    change_balances: str
    change_overdraft_limits: str
    change_held: str
    change_hold_ids: str
    change_hold_is_last: str
    change_hold_statuses: str
    change_hold_amounts: str
    change_hold_captured: str
    change_hold_released: str
    change_hold_expires_at: str
    change_hold_final_transfers: str
    new_hold_ids: str
    new_hold_destinations: str
    new_hold_currencies: str
    new_hold_references: list[str | None]
    new_hold_metadata: list[str]


def change_parameters(result: GroupResult, wallets: Sequence[Wallet]) -> ChangeParameters:
    """What a group with changes other than transfers writes; `wallets` as in `group_parameters`."""
    changes = result.changes
    holds = [change.hold for change in changes]
    created = result.created_holds
    updated = {change.wallet_id for change in changes if change.kind is ChangeKind.UPDATE}
    return ChangeParameters(
        wallet_statuses=_literal([WALLET_STATUS_NUMBERS[w.status] for w in wallets]),
        wallet_held=_literal([w.held_minor for w in wallets]),
        wallet_overdraft_limits=_literal([w.overdraft_limit_minor for w in wallets]),
        wallet_metadata=_sparse([w.metadata if w.id in updated else None for w in wallets]),
        wallet_hold_expires_at=_literal([w.hold_expires_at for w in wallets]),
        wallet_open_holds=_literal([w.open_holds for w in wallets]),
        change_wallet_ids=_literal([c.wallet_id for c in changes]),
        change_versions=_literal([c.version for c in changes]),
        change_kinds=_literal([CHANGE_KIND_NUMBERS[c.kind] for c in changes]),
        change_statuses=_literal([WALLET_STATUS_NUMBERS[c.status] for c in changes]),
        change_balances=_literal([c.balance_minor for c in changes]),
        change_overdraft_limits=_literal([c.overdraft_limit_minor for c in changes]),
        change_held=_literal([c.held_minor for c in changes]),
        change_hold_ids=_literal([h and h.id for h in holds]),
        change_hold_is_last=_literal(
            ["t" if h is not None and result.holds[h.id] is h else "f" for h in holds]
        ),
        change_hold_statuses=_literal([h and HOLD_STATUS_NUMBERS[h.status] for h in holds]),
        change_hold_amounts=_literal([h and h.amount_minor for h in holds]),
        change_hold_captured=_literal([h and h.captured_minor for h in holds]),
        change_hold_released=_literal([h and h.released_minor for h in holds]),
        change_hold_expires_at=_literal([h and h.expires_at for h in holds]),
        change_hold_final_transfers=_literal([h and h.final_transfer_id for h in holds]),
        new_hold_ids=_literal([h.id for h in created]),
        new_hold_destinations=_literal([h.destination_wallet_id for h in created]),
        new_hold_currencies=_literal([h.currency for h in created]),
        new_hold_references=[h.reference for h in created],
        new_hold_metadata=[h.metadata for h in created],
    )


def array_literal(items: Iterable[str]) -> str:
    """A PostgreSQL array of items that need no quotes."""
    return "{" + ",".join(items) + "}"


def _literal(items: Iterable[object]) -> str:
    """The same of any items whose texts need no quotes; None is NULL."""
    return "{" + ",".join(["NULL" if item is None else str(item) for item in items]) + "}"


def _sparse(items: list[str | None]) -> list[str | None]:
    """An empty list if all items are null: `unnest` fills a shorter array with nulls."""
    return items if any(item is not None for item in items) else []
