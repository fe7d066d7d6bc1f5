"""Holds: money of a wallet that is reserved for a later payment, and the commands about them."""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

# How far ahead the expiry of a hold may be.
EXPIRY_AHEAD_MAX = timedelta(days=366)


class HoldStatus(StrEnum):
    """active holds reserve money; the other statuses name what ended the hold."""

    ACTIVE = "active"
    CAPTURED = "captured"
    RELEASED = "released"
    EXPIRED = "expired"


class Hold(NamedTuple):
    """A hold, with money in minor units. `released_minor` is what its end gave back.

    `updated_at` of a hold that is not active is the time of its end. `final_transfer_id` is the
    final capture.
    """

    id: str
    source_wallet_id: str
    destination_wallet_id: str | None
    currency: str
    amount_minor: int
    captured_minor: int
    released_minor: int
    status: HoldStatus
    expires_at: datetime
    final_transfer_id: str | None
    reference: str | None
    metadata: str
    created_at: datetime
    updated_at: datetime

    @property
    def remaining_minor(self) -> int:
        """The amount that is still reserved."""
        return self.amount_minor - self.captured_minor - self.released_minor

    def captured(self, amount_minor: int, at: datetime, final_transfer_id: str | None) -> "Hold":
        """The hold after a capture; the transfer of a final capture ends it."""
        captured_minor = self.captured_minor + amount_minor
        if final_transfer_id is None:
            return self._replace(captured_minor=captured_minor, updated_at=at)
        return self._replace(
            captured_minor=captured_minor,
            released_minor=self.amount_minor - captured_minor,
            status=HoldStatus.CAPTURED,
            final_transfer_id=final_transfer_id,
            updated_at=at,
        )

    def ended(self, status: HoldStatus, at: datetime) -> "Hold":
        """The hold after its end, which releases what is left."""
        released_minor = self.released_minor + self.remaining_minor
        return self._replace(status=status, released_minor=released_minor, updated_at=at)


class CreateHold(NamedTuple):
    """Command: reserve `amount_minor` of the source.

    The hold expires at `expires_at`, or `expires_in_s` seconds after the time of its group.
    """

    id: str
    source_wallet_id: str
    destination_wallet_id: str | None
    amount_minor: int
    currency: str
    expires_at: datetime | None
    expires_in_s: int
    reference: str | None
    metadata: str
    # The most open holds that a wallet may have.
    open_holds_max: int


class Capture(NamedTuple):
    """Command: pay `amount_minor` of a hold, or all that is left, as the transfer `id`.

    `hold` is the hold as it was before the lock, for the members that never change; None: there is
    no such hold. `is_final` releases the rest. A `reference` of None takes the one of the hold.
    """

    id: str
    hold_id: str
    hold: Hold | None
    amount_minor: int | None
    is_final: bool
    destination_wallet_id: str | None
    reference: str | None
    metadata: str


class AdjustHold(NamedTuple):
    """Command: set the amount of a hold, its expiry, or both; None leaves a value unchanged.

    `hold` as in `Capture`.
    """

    hold_id: str
    hold: Hold | None
    amount_minor: int | None
    expires_at: datetime | None


class ReleaseHold(NamedTuple):
    """Command: end a hold and give back what is left. `hold` as in `Capture`."""

    hold_id: str
    hold: Hold | None


class ExpireHolds(NamedTuple):
    """Command: write the expiry of the holds of a wallet that are due. Each group does that first
    for each wallet that it locks, so this command only makes it lock the wallet."""

    wallet_id: str
