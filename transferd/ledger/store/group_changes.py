"""The parameters of `write_changes`: the changes of a group that are not transfers."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from transferd.domain.hold import Hold
from transferd.domain.wallet import Wallet, WalletChange
from transferd.ledger.store.numbers import (
    CHANGE_KIND_NUMBERS,
    HOLD_STATUS_NUMBERS,
    WALLET_STATUS_NUMBERS,
)


class ChangeParameters(NamedTuple):
    """The parameters of `write_changes`, by the names that they have there.

    Each array has one item for each wallet, change, new hold or changed hold. A `str` is an array
    literal, as in `GroupParameters`.
    """

    at: datetime
    wallet_ids: str
    wallet_versions_read: str
    wallet_versions: str
    wallet_balances: str
    wallet_statuses: str
    wallet_held: str
    wallet_overdraft_limits: str
    wallet_metadata: list[str]
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
    change_hold_statuses: str
    change_hold_amounts: str
    change_hold_captured: str
    change_hold_released: str
    change_hold_expires_at: str
    new_hold_ids: str
    new_hold_sources: str
    new_hold_destinations: str
    new_hold_currencies: str
    new_hold_amounts: str
    new_hold_captured: str
    new_hold_released: str
    new_hold_statuses: str
    new_hold_expires_at: str
    new_hold_final_transfers: str
    new_hold_references: list[str | None]
    new_hold_metadata: list[str]
    hold_ids: str
    hold_amounts: str
    hold_captured: str
    hold_released: str
    hold_statuses: str
    hold_expires_at: str
    hold_final_transfers: str


def change_parameters(
    at: datetime,
    *,
    wallets: Sequence[tuple[int, Wallet]],
    changes: Sequence[WalletChange],
    created: Sequence[Hold],
    changed: Sequence[Hold],
) -> ChangeParameters:
    """What `write_changes` writes; `wallets` are the versions that were read, and the new states.

    `created` and `changed` are the last states of holds in the group.
    """
    after = [wallet for _, wallet in wallets]
    holds = [change.hold for change in changes]
    return ChangeParameters(
        at=at,
        wallet_ids=_nullable_literal(w.id for w in after),
        wallet_versions_read=_nullable_literal(version for version, _ in wallets),
        wallet_versions=_nullable_literal(w.version for w in after),
        wallet_balances=_nullable_literal(w.balance_minor for w in after),
        wallet_statuses=_nullable_literal(WALLET_STATUS_NUMBERS[w.status] for w in after),
        wallet_held=_nullable_literal(w.held_minor for w in after),
        wallet_overdraft_limits=_nullable_literal(w.overdraft_limit_minor for w in after),
        wallet_metadata=[w.metadata for w in after],
        wallet_hold_expires_at=_nullable_literal(w.hold_expires_at for w in after),
        wallet_open_holds=_nullable_literal(w.open_holds for w in after),
        change_wallet_ids=_nullable_literal(c.wallet_id for c in changes),
        change_versions=_nullable_literal(c.version for c in changes),
        change_kinds=_nullable_literal(CHANGE_KIND_NUMBERS[c.kind] for c in changes),
        change_statuses=_nullable_literal(WALLET_STATUS_NUMBERS[c.status] for c in changes),
        change_balances=_nullable_literal(c.balance_minor for c in changes),
        change_overdraft_limits=_nullable_literal(c.overdraft_limit_minor for c in changes),
        change_held=_nullable_literal(c.held_minor for c in changes),
        change_hold_ids=_nullable_literal(h and h.id for h in holds),
        change_hold_statuses=_nullable_literal(h and HOLD_STATUS_NUMBERS[h.status] for h in holds),
        change_hold_amounts=_nullable_literal(h and h.amount_minor for h in holds),
        change_hold_captured=_nullable_literal(h and h.captured_minor for h in holds),
        change_hold_released=_nullable_literal(h and h.released_minor for h in holds),
        change_hold_expires_at=_nullable_literal(h and h.expires_at for h in holds),
        new_hold_ids=_nullable_literal(h.id for h in created),
        new_hold_sources=_nullable_literal(h.source_wallet_id for h in created),
        new_hold_destinations=_nullable_literal(h.destination_wallet_id for h in created),
        new_hold_currencies=_nullable_literal(h.currency for h in created),
        new_hold_amounts=_nullable_literal(h.amount_minor for h in created),
        new_hold_captured=_nullable_literal(h.captured_minor for h in created),
        new_hold_released=_nullable_literal(h.released_minor for h in created),
        new_hold_statuses=_nullable_literal(HOLD_STATUS_NUMBERS[h.status] for h in created),
        new_hold_expires_at=_nullable_literal(h.expires_at for h in created),
        new_hold_final_transfers=_nullable_literal(h.final_transfer_id for h in created),
        new_hold_references=[h.reference for h in created],
        new_hold_metadata=[h.metadata for h in created],
        hold_ids=_nullable_literal(h.id for h in changed),
        hold_amounts=_nullable_literal(h.amount_minor for h in changed),
        hold_captured=_nullable_literal(h.captured_minor for h in changed),
        hold_released=_nullable_literal(h.released_minor for h in changed),
        hold_statuses=_nullable_literal(HOLD_STATUS_NUMBERS[h.status] for h in changed),
        hold_expires_at=_nullable_literal(h.expires_at for h in changed),
        hold_final_transfers=_nullable_literal(h.final_transfer_id for h in changed),
    )


def _nullable_literal(items: Iterable[object]) -> str:
    """A PostgreSQL array of items whose texts need no quotes; None is NULL."""
    return "{" + ",".join("NULL" if item is None else str(item) for item in items) + "}"
