"""The numbers that enumerations are stored as: their positions, so new members go to the end."""

from collections.abc import Sequence
from enum import StrEnum
from typing import TypeVar

from transferd.domain.hold import HoldStatus
from transferd.domain.transfer import TransferKind
from transferd.domain.wallet import ChangeKind, WalletStatus

Member = TypeVar("Member", bound=StrEnum)

TRANSFER_KINDS = (TransferKind.TRANSFER, TransferKind.REVERSAL, TransferKind.CAPTURE)
WALLET_STATUSES = (WalletStatus.ACTIVE, WalletStatus.FROZEN, WalletStatus.CLOSED)
CHANGE_KINDS = (
    ChangeKind.CREATED,
    ChangeKind.FREEZE,
    ChangeKind.UNFREEZE,
    ChangeKind.CLOSE,
    ChangeKind.UPDATE,
    ChangeKind.HOLD_CREATE,
    ChangeKind.HOLD_ADJUST,
    ChangeKind.HOLD_CAPTURE,
    ChangeKind.HOLD_RELEASE,
    ChangeKind.HOLD_EXPIRE,
)
HOLD_STATUSES = (
    HoldStatus.ACTIVE,
    HoldStatus.CAPTURED,
    HoldStatus.RELEASED,
    HoldStatus.EXPIRED,
)


def _numbers(members: Sequence[Member]) -> dict[Member, int]:
    return {member: number for number, member in enumerate(members)}


TRANSFER_KIND_NUMBERS = _numbers(TRANSFER_KINDS)
WALLET_STATUS_NUMBERS = _numbers(WALLET_STATUSES)
CHANGE_KIND_NUMBERS = _numbers(CHANGE_KINDS)
HOLD_STATUS_NUMBERS = _numbers(HOLD_STATUSES)

# What a query calls them, such as `{status_frozen}`.
NAMES_IN_SQL = {
    f"{{{prefix}_{member}}}": str(number)
    for prefix, numbers in (
        ("kind", TRANSFER_KIND_NUMBERS),
        ("status", WALLET_STATUS_NUMBERS),
        ("change", CHANGE_KIND_NUMBERS),
        ("hold", HOLD_STATUS_NUMBERS),
    )
    for member, number in numbers.items()
}
