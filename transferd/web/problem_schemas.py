"""The shapes of problems (RFC 9457). A code with further members has a shape of its own.

Each shape allows its own values of `code` only. So exactly one shape fits an answer, and a client
that compares `code` knows the members. There is no OpenAPI discriminator: generators write its
mapping into the shared schema, where answers with different codes would overwrite each other.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field, WithJsonSchema
from typing_extensions import TypeAliasType

from transferd.domain.hold import HoldStatus
from transferd.web.fields import Balance, CurrencyCode, Held, Id, NonNegative, Version
from transferd.web.problems import TYPES


class _Problem(BaseModel):
    """What every problem has."""

    type: Annotated[
        str,
        Field(
            description="The address of a page about this code.",
            json_schema_extra={"format": "uri-reference"},
        ),
    ]
    title: Annotated[str, Field(description="The code in words.")]
    status: Annotated[int, Field(ge=400, le=599, description="The status of the response.")]
    detail: Annotated[str, Field(description="What was wrong this time, for people.")]
    instance: Annotated[str, Field(description="The path of the request that was refused.")]
    request_id: Annotated[str, Field(description="What to name when asking about it.")]


class FieldError(BaseModel):
    """One thing that is wrong with a request; `pointer` is a JSON pointer (RFC 6901)."""

    pointer: Annotated[
        str, Field(description="Into the body; of a parameter or header: / and its name.")
    ]
    code: Annotated[str, Field(description="What kind of fault it is, for programs.")]
    message: Annotated[str, Field(description="The same for people.")]


class _InsufficientFunds(BaseModel):
    code: Literal["insufficient-funds"]
    available: Annotated[Balance, Field(description="What the wallet can pay, in minor units.")]
    shortfall: Annotated[NonNegative, Field(description="How much more it would need.")]
    currency: CurrencyCode


class InsufficientFunds(_Problem, _InsufficientFunds):
    """The wallet that pays has less available than the amount."""


class InvalidRequest(_Problem):
    """The request was read, and some of it is not allowed."""

    code: Literal["invalid-request"]
    errors: list[FieldError]
    now: Annotated[
        datetime,
        Field(
            default_factory=datetime.now,
            description="The database's time, where the request names an instant that it has not"
            " reached.",
        ),
    ]


class BodyTooLarge(_Problem):
    """The body is longer than this address allows."""

    code: Literal["body-too-large"]
    bytes_max: Annotated[int, Field(description="How many bytes a body may have here.")]


class ReversalExceedsTransfer(_Problem):
    """The sum of all reversals would exceed the transfer."""

    code: Literal["reversal-exceeds-transfer"]
    left: Annotated[NonNegative, Field(description="How much of it can still be reversed.")]
    currency: CurrencyCode


_ENDED_AT = Field(description="When the hold ended.")


class HoldNotActive(_Problem):
    """The hold was captured or released."""

    code: Literal["hold-not-active"]
    hold_status: HoldStatus
    ended_at: Annotated[datetime, _ENDED_AT]
    transfer_id: Annotated[
        Id, Field(default_factory=str, description="The final capture, if it ended the hold.")
    ]


class HoldExpired(_Problem):
    """The hold has expired."""

    code: Literal["hold-expired"]
    hold_status: Literal["expired"]
    expires_at: datetime
    ended_at: Annotated[datetime, _ENDED_AT]


class CaptureExceedsHold(_Problem):
    """The capture asks for more than is left."""

    code: Literal["capture-exceeds-hold"]
    remaining: Annotated[NonNegative, Field(description="What is left of the hold.")]
    currency: CurrencyCode


class AmountBelowCaptured(_Problem):
    """The new amount is less than what is captured."""

    code: Literal["amount-below-captured"]
    captured: NonNegative
    currency: CurrencyCode


class ExpiryInvalid(_Problem):
    """The expiry is not in the future, or too far in it."""

    code: Literal["expiry-invalid"]
    now: Annotated[datetime, Field(description="The database's time.")]


class TooManyHolds(_Problem):
    """The wallet has as many open holds as it may have."""

    code: Literal["too-many-holds"]
    open_holds: int
    open_holds_max: int


class DestinationMismatch(_Problem):
    """The hold is for another destination."""

    code: Literal["destination-mismatch"]
    destination_wallet_id: Annotated[Id, Field(description="The destination of the hold.")]


class WalletNotEmpty(_Problem):
    """Only a wallet without money and without open holds can be closed."""

    code: Literal["wallet-not-empty"]
    balance: Balance
    held: Held
    open_holds: int
    currency: CurrencyCode


class TooManySecrets(_Problem):
    """No more secrets fit into what a webhook is signed with."""

    code: Literal["too-many-secrets"]
    free_at: Annotated[datetime, Field(description="When the first of them ends.")]


class VersionNotReached(_Problem):
    """The wallet has not reached the version that the request names."""

    code: Literal["version-not-reached"]
    version: Annotated[Version, Field(description="The version that the wallet has.")]


class VersionChanged(_Problem):
    """The wallet has another version than the request names in If-Match."""

    code: Literal["version-changed"]
    version: Annotated[Version, Field(description="The version that the wallet has.")]
    etag: Annotated[str, Field(description="The ETag that the wallet has, for If-Match.")]


class InsufficientFundsRefusal(_InsufficientFunds):
    """Why a transfer of a batch was refused: too little is available."""

    detail: str


_PLAIN_REFUSALS = (
    "same-wallet",
    "wallet-not-found",
    "currency-mismatch",
    "wallet-frozen",
    "wallet-closed",
    "balance-out-of-range",
    "hold-not-found",
    "destination-missing",
)


RefusalCode = TypeAliasType(
    "RefusalCode",
    Annotated[str, WithJsonSchema({"type": "string", "enum": list(_PLAIN_REFUSALS)})],
)


class Refusal(BaseModel):
    """The reason why a transfer of a batch was refused, if it has no facts beside the code."""

    code: RefusalCode
    detail: str


class HoldNotActiveRefusal(BaseModel):
    """Why a capture of a batch was refused: the hold was captured or released."""

    code: Literal["hold-not-active"]
    detail: str
    hold_status: HoldStatus
    ended_at: Annotated[datetime, _ENDED_AT]
    transfer_id: Annotated[
        Id, Field(default_factory=str, description="The final capture, if it ended the hold.")
    ]


class HoldExpiredRefusal(BaseModel):
    """Why a capture of a batch was refused: the hold has expired."""

    code: Literal["hold-expired"]
    detail: str
    hold_status: Literal["expired"]
    expires_at: datetime
    ended_at: Annotated[datetime, _ENDED_AT]


class CaptureExceedsHoldRefusal(BaseModel):
    """Why a capture of a batch was refused: it asks for more than is left."""

    code: Literal["capture-exceeds-hold"]
    detail: str
    remaining: Annotated[NonNegative, Field(description="What is left of the hold.")]
    currency: CurrencyCode


class DestinationMismatchRefusal(BaseModel):
    """Why a capture of a batch was refused: the hold is for another destination."""

    code: Literal["destination-mismatch"]
    detail: str
    destination_wallet_id: Annotated[Id, Field(description="The destination of the hold.")]


class BatchRefused(_Problem):
    """All or none: one transfer was refused, so nothing was posted."""

    code: Literal["batch-refused"]
    index: Annotated[int, Field(ge=0, description="The first that was refused, from 0.")]
    refusal: (
        InsufficientFundsRefusal
        | HoldNotActiveRefusal
        | HoldExpiredRefusal
        | CaptureExceedsHoldRefusal
        | DestinationMismatchRefusal
        | Refusal
    )


# The shape of each code that has one of its own.
WITH_FACTS: dict[str, type[BaseModel]] = {
    "amount-below-captured": AmountBelowCaptured,
    "batch-refused": BatchRefused,
    "body-too-large": BodyTooLarge,
    "capture-exceeds-hold": CaptureExceedsHold,
    "destination-mismatch": DestinationMismatch,
    "expiry-invalid": ExpiryInvalid,
    "hold-expired": HoldExpired,
    "hold-not-active": HoldNotActive,
    "insufficient-funds": InsufficientFunds,
    "invalid-request": InvalidRequest,
    "reversal-exceeds-transfer": ReversalExceedsTransfer,
    "too-many-holds": TooManyHolds,
    "too-many-secrets": TooManySecrets,
    "version-changed": VersionChanged,
    "version-not-reached": VersionNotReached,
    "wallet-not-empty": WalletNotEmpty,
}

ProblemCode = TypeAliasType(
    "ProblemCode",
    Annotated[
        str,
        WithJsonSchema(
            {
                "type": "string",
                "enum": [code for code in TYPES if code not in WITH_FACTS],
                "description": "The codes that come without facts. Each of the others, "
                + ", ".join(f"`{code}`" for code in WITH_FACTS)
                + ", is in a schema of its own.",
            }
        ),
    ],
)


class Problem(_Problem):
    """A problem without facts; a problem with facts has a schema of its own."""

    code: ProblemCode


def shapes_of(codes: Sequence[str]) -> list[type[BaseModel]]:
    """The schemas of problems with these codes, the narrower ones with facts first."""
    shapes = [WITH_FACTS[code] for code in codes if code in WITH_FACTS]
    return [*shapes, Problem] if len(shapes) < len(codes) else shapes
