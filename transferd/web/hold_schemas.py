"""The shapes of holds."""

from datetime import datetime, timedelta
from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, model_validator
from pydantic_core import PydanticCustomError

from transferd.domain.hold import EXPIRY_AHEAD_MAX, HoldStatus
from transferd.web.fields import (
    Amount,
    CurrencyCode,
    Id,
    Metadata,
    NewMetadata,
    NonNegative,
    QueryTime,
    StoredTime,
    Text,
)
from transferd.web.schemas import (
    EXAMPLE_OTHER_WALLET_ID,
    EXAMPLE_WALLET_ID,
    Body,
    ListQuery,
    example,
)

EXAMPLE_HOLD_ID = "01900000-0000-7000-8000-0000000000c1"
EXPIRES_IN_S_DEFAULT = int(timedelta(days=7).total_seconds())
_EXPIRES_AT = Field(description="In the future of the database's clock, at most 366 days ahead.")


class NewHold(Body):
    """POST /holds. Without an expiry the hold expires after seven days."""

    model_config = example(
        source_wallet_id=EXAMPLE_WALLET_ID,
        destination_wallet_id=EXAMPLE_OTHER_WALLET_ID,
        amount=20000,
        currency="USD",
        expires_in_s=86400,
        reference="room 12",
    )

    source_wallet_id: Id
    destination_wallet_id: Annotated[
        Id | None, Field(description="Without one each capture names its destination.")
    ] = None
    amount: Amount
    currency: CurrencyCode
    expires_at: Annotated[StoredTime | None, _EXPIRES_AT] = None
    expires_in_s: Annotated[
        Annotated[int, Field(ge=1, le=int(EXPIRY_AHEAD_MAX.total_seconds()))] | None,
        Field(description="Seconds, instead of `expires_at`."),
    ] = None
    reference: Text | None = None
    metadata: NewMetadata = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_expiry(self) -> Self:
        if self.expires_at is not None and self.expires_in_s is not None:
            raise PydanticCustomError("conflict", "expires_at and expires_in_s exclude each other")
        return self


class NewCapture(Body):
    """POST /holds/{id}/capture: without an amount all that is left, with the reference of the hold
    unless another one is given."""

    model_config = example(amount=15000, final=False)

    amount: Amount | None = None
    final: Annotated[
        bool, Field(description="Whether this is the last capture: it releases what is left.")
    ] = True
    destination_wallet_id: Annotated[
        Id | None, Field(description="Only where the hold does not name one.")
    ] = None
    reference: Text | None = None
    metadata: NewMetadata = Field(default_factory=dict)


class HoldAdjustment(Body):
    """POST /holds/{id}/adjust: a new amount, a new expiry, or both."""

    model_config = example(amount=25000)

    amount: Annotated[
        Amount | None, Field(description="The new total, what is captured included.")
    ] = None
    expires_at: Annotated[StoredTime | None, _EXPIRES_AT] = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.amount is None and self.expires_at is None:
            raise PydanticCustomError("missing", "needs amount or expires_at")
        return self


class HoldsQuery(ListQuery):
    """GET /holds."""

    wallet_id: Annotated[Id | None, Field(description="Only those that this wallet pays.")] = None
    status: Annotated[
        HoldStatus | None,
        Field(description="Only those with this status now; a hold that is due is expired."),
    ] = None
    expires_before: Annotated[
        QueryTime | None, Field(description="Only those with an earlier expiry.")
    ] = None


class _Hold(BaseModel):
    """The common members of a hold and a dry run."""

    source_wallet_id: Id
    destination_wallet_id: Id | None
    currency: CurrencyCode
    amount: Annotated[Amount, Field(description="captured + released + remaining.")]
    captured: NonNegative
    released: Annotated[NonNegative, Field(description="What the end of the hold gave back.")]
    remaining: NonNegative
    expires_at: datetime
    reference: str | None
    metadata: Metadata
    created_at: datetime
    updated_at: datetime


class Hold(_Hold):
    """Money of a wallet that is reserved for a later payment. `status` names what ended it."""

    id: Id
    status: HoldStatus


class HoldDryRun(_Hold):
    """The hold as it would be; nothing was written, so a new one has no id."""

    id: Id | None
    status: Literal["dry_run"]
