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

from transferd.web.fields import Balance, CurrencyCode, NonNegative, Version
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


class WalletNotEmpty(_Problem):
    """Only a wallet without money can be closed."""

    code: Literal["wallet-not-empty"]
    balance: Balance
    held: NonNegative
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
)


RefusalCode = TypeAliasType(
    "RefusalCode",
    Annotated[str, WithJsonSchema({"type": "string", "enum": list(_PLAIN_REFUSALS)})],
)


class Refusal(BaseModel):
    """The reason why a transfer of a batch was refused, if it has no facts beside the code."""

    code: RefusalCode
    detail: str


class BatchRefused(_Problem):
    """All or none: one transfer was refused, so nothing was posted."""

    code: Literal["batch-refused"]
    index: Annotated[int, Field(ge=0, description="The first that was refused, from 0.")]
    refusal: InsufficientFundsRefusal | Refusal


# The shape of each code that has one of its own.
WITH_FACTS: dict[str, type[BaseModel]] = {
    "batch-refused": BatchRefused,
    "body-too-large": BodyTooLarge,
    "insufficient-funds": InsufficientFunds,
    "invalid-request": InvalidRequest,
    "reversal-exceeds-transfer": ReversalExceedsTransfer,
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
