"""The parameters of `write_changes`: the changes of a group that are not transfers."""

from collections.abc import Sequence
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

    Each array has one item for each wallet, change, new hold or changed hold.
    """

    at: datetime
    wallet_ids: list[str]
    wallet_versions_read: list[int]
    wallet_versions: list[int]
    wallet_balances: list[int]
    wallet_statuses: list[int]
    wallet_held: list[int]
    wallet_overdraft_limits: list[int]
    wallet_metadata: list[str]
    wallet_hold_expires_at: list[datetime | None]
    wallet_open_holds: list[int]
    change_wallet_ids: list[str]
    change_versions: list[int]
    change_kinds: list[int]
    change_statuses: list[int]
    change_balances: list[int]
    change_overdraft_limits: list[int]
    change_held: list[int | None]
    change_hold_ids: list[str | None]
    change_hold_statuses: list[int | None]
    change_hold_amounts: list[int | None]
    change_hold_captured: list[int | None]
    change_hold_released: list[int | None]
    change_hold_expires_at: list[datetime | None]
    new_hold_ids: list[str]
    new_hold_sources: list[str]
    new_hold_destinations: list[str | None]
    new_hold_currencies: list[str]
    new_hold_amounts: list[int]
    new_hold_captured: list[int]
    new_hold_released: list[int]
    new_hold_statuses: list[int]
    new_hold_expires_at: list[datetime]
    new_hold_final_transfers: list[str | None]
    new_hold_references: list[str | None]
    new_hold_metadata: list[str]
    hold_ids: list[str]
    hold_amounts: list[int]
    hold_captured: list[int]
    hold_released: list[int]
    hold_statuses: list[int]
    hold_expires_at: list[datetime]
    hold_final_transfers: list[str | None]


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
        wallet_ids=[w.id for w in after],
        wallet_versions_read=[version for version, _ in wallets],
        wallet_versions=[w.version for w in after],
        wallet_balances=[w.balance_minor for w in after],
        wallet_statuses=[WALLET_STATUS_NUMBERS[w.status] for w in after],
        wallet_held=[w.held_minor for w in after],
        wallet_overdraft_limits=[w.overdraft_limit_minor for w in after],
        wallet_metadata=[w.metadata for w in after],
        wallet_hold_expires_at=[w.hold_expires_at for w in after],
        wallet_open_holds=[w.open_holds for w in after],
        change_wallet_ids=[c.wallet_id for c in changes],
        change_versions=[c.version for c in changes],
        change_kinds=[CHANGE_KIND_NUMBERS[c.kind] for c in changes],
        change_statuses=[WALLET_STATUS_NUMBERS[c.status] for c in changes],
        change_balances=[c.balance_minor for c in changes],
        change_overdraft_limits=[c.overdraft_limit_minor for c in changes],
        change_held=[c.held_minor for c in changes],
        change_hold_ids=[h and h.id for h in holds],
        change_hold_statuses=[h and HOLD_STATUS_NUMBERS[h.status] for h in holds],
        change_hold_amounts=[h and h.amount_minor for h in holds],
        change_hold_captured=[h and h.captured_minor for h in holds],
        change_hold_released=[h and h.released_minor for h in holds],
        change_hold_expires_at=[h and h.expires_at for h in holds],
        new_hold_ids=[h.id for h in created],
        new_hold_sources=[h.source_wallet_id for h in created],
        new_hold_destinations=[h.destination_wallet_id for h in created],
        new_hold_currencies=[h.currency for h in created],
        new_hold_amounts=[h.amount_minor for h in created],
        new_hold_captured=[h.captured_minor for h in created],
        new_hold_released=[h.released_minor for h in created],
        new_hold_statuses=[HOLD_STATUS_NUMBERS[h.status] for h in created],
        new_hold_expires_at=[h.expires_at for h in created],
        new_hold_final_transfers=[h.final_transfer_id for h in created],
        new_hold_references=[h.reference for h in created],
        new_hold_metadata=[h.metadata for h in created],
        hold_ids=[h.id for h in changed],
        hold_amounts=[h.amount_minor for h in changed],
        hold_captured=[h.captured_minor for h in changed],
        hold_released=[h.released_minor for h in changed],
        hold_statuses=[HOLD_STATUS_NUMBERS[h.status] for h in changed],
        hold_expires_at=[h.expires_at for h in changed],
        hold_final_transfers=[h.final_transfer_id for h in changed],
    )
