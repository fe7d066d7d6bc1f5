"""Adds outcomes to what a group writes."""

from transferd.domain.book import (
    BatchPosted,
    Captured,
    HoldSet,
    Outcome,
    Posted,
    UserCreated,
    WalletCreated,
    WalletSet,
)
from transferd.domain.errors import Refused
from transferd.domain.wallet import ChangeKind, WalletChange
from transferd.ledger.store.group_rows import GroupResult


def record(outcome: Outcome, result: GroupResult) -> int:
    """Add the outcome to the result. Returns the number of transfers posted; 1 unless a batch."""
    match outcome:
        case Posted(transfer):
            result.transfers.append(transfer)
        case BatchPosted(results):
            return sum(record(each, result) for each in results if not isinstance(each, Refused))
        case Captured(transfer, _, _, change):
            result.transfers.append(transfer)
            _record_hold(change, result)
        case HoldSet(_, _, WalletChange() as change):
            _record_hold(change, result)
        case WalletCreated(wallet, change, initial):
            result.created_wallets.append(wallet)
            result.changes.append(change)
            if initial is not None:
                result.transfers.append(initial)
        case WalletSet(wallet, WalletChange() as change):
            result.set_wallets.add(wallet.id)
            result.changes.append(change)
        case UserCreated(user):
            result.users.append(user)
        case _:
            pass
    return 1


def _record_hold(change: WalletChange, result: GroupResult) -> None:
    assert change.hold is not None
    result.holds[change.hold.id] = change.hold
    if change.kind is ChangeKind.HOLD_CREATE:
        result.created_holds.append(change.hold)
    result.changes.append(change)
    result.set_wallets.add(change.wallet_id)
