"""Request and response models: the shapes of the contract, and the source of OpenAPI."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from transferd.config import Limits
from transferd.domain.money import AMOUNT_MINOR_MAX, BALANCE_MINOR_MAX, BALANCE_MINOR_MIN
from transferd.web.metadata import NO_NUL, Metadata, NewMetadata, without_nul

_LIMITS = Limits()
_UUID = r"^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"
_UUID_PATTERN = re.compile(_UUID)
_DIGITS = re.compile(r"-?[0-9]+")
_RFC_3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?"
    r"([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
# Nothing is older, and a datetime cannot hold more. Times beyond mean the same as these.
_TIME_MIN = datetime(1970, 1, 1, tzinfo=UTC)
_TIME_MAX = datetime.max.replace(tzinfo=UTC)


def is_id(text: str) -> bool:
    """Whether the text has the shape of an id."""
    return _UUID_PATTERN.fullmatch(text) is not None


def _boolean(value: str) -> str:
    # pydantic would read yes, on and 1 as well.
    if value not in ("true", "false"):
        raise PydanticCustomError("bool_parsing", "must be true or false")
    return value


def _digits(value: str) -> str:
    # pydantic would read 1.0 and 1_000 as well.
    if _DIGITS.fullmatch(value) is None:
        raise PydanticCustomError("int_parsing", "must be an integer in decimal digits")
    return value


def _rfc_3339(value: str) -> str:
    # pydantic would read seconds since 1970 as well.
    if _RFC_3339.fullmatch(value) is None:
        raise PydanticCustomError("datetime_parsing", "must be a time with an offset (RFC 3339)")
    return value


def _within_range(value: datetime) -> datetime:
    return min(max(value, _TIME_MIN), _TIME_MAX)


Id = Annotated[
    str,
    StringConstraints(pattern=_UUID, to_lower=True),
    Field(json_schema_extra={"format": "uuid"}),
]
Text = Annotated[
    str,
    StringConstraints(max_length=_LIMITS.text_chars_max),
    AfterValidator(without_nul),
    Field(json_schema_extra={"pattern": NO_NUL}),
]
CurrencyCode = Annotated[str, StringConstraints(pattern="^[A-Z]{3}$")]
Amount = Annotated[
    int, Field(ge=1, le=AMOUNT_MINOR_MAX, description="Minor units: 2500 USD is 25.00 dollars.")
]
NonNegative = Annotated[int, Field(ge=0, le=AMOUNT_MINOR_MAX)]
Balance = Annotated[int, Field(ge=BALANCE_MINOR_MIN, le=BALANCE_MINOR_MAX)]
InDigits = BeforeValidator(_digits)
QueryTime = Annotated[AwareDatetime, BeforeValidator(_rfc_3339), AfterValidator(_within_range)]


class Body(BaseModel):
    """A request body: no unknown fields, no coercion."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Query(BaseModel):
    """Query parameters: no unknown ones; numbers and times come as text, so they are coerced."""

    model_config = ConfigDict(extra="forbid")


class NoBody(Body):
    """An empty object, or nothing at all."""


class NewUser(Body):
    """POST /users."""

    name: Text | None = None
    metadata: NewMetadata = Field(default_factory=dict)


class UserPatch(Body):
    """PATCH /users/{id}: what is left out stays."""

    name: Text | None = None
    metadata: NewMetadata = Field(default_factory=dict)


class NewWallet(Body):
    """POST /wallets."""

    user_id: Id
    currency: CurrencyCode
    initial_balance: NonNegative = 0
    overdraft_limit: NonNegative = 0
    metadata: NewMetadata = Field(default_factory=dict)


class WalletPatch(Body):
    """PATCH /wallets/{id}: what is left out stays."""

    overdraft_limit: NonNegative = 0
    metadata: NewMetadata = Field(default_factory=dict)


class NewTransfer(Body):
    """POST /transfers."""

    source_wallet_id: Id
    destination_wallet_id: Id
    amount: Amount
    currency: CurrencyCode
    reference: Text | None = None
    metadata: NewMetadata = Field(default_factory=dict)


class NewReversal(Body):
    """POST /transfers/{id}/reversal: without an amount all that is left, with the reference of the
    transfer unless another one is given."""

    amount: Amount | None = None
    reference: Text | None = None
    metadata: NewMetadata = Field(default_factory=dict)


# What a cursor is made of is nobody's business, but it is never empty and safe in an address.
_CURSOR = {"type": "string", "pattern": "^[A-Za-z0-9_-]+$"}
Limit = Annotated[int, Field(ge=1, le=_LIMITS.list_items_max), InDigits]


class ListQuery(Query):
    """Page of a list."""

    limit: Limit = _LIMITS.list_items_default
    cursor: Annotated[str | None, WithJsonSchema(_CURSOR)] = None


class WalletsQuery(ListQuery):
    """GET /wallets."""

    user_id: Id | None = None
    currency: CurrencyCode | None = None


class TransfersQuery(ListQuery):
    """GET /transfers."""

    wallet_id: Id


class DryRunQuery(Query):
    """POST /transfers."""

    dry_run: Annotated[bool, BeforeValidator(_boolean)] = False


class NoQuery(Query):
    """No parameters."""


class User(BaseModel):
    """A user."""

    id: Id
    name: str | None
    metadata: Metadata
    created_at: datetime


class Wallet(BaseModel):
    """A wallet. Money in minor units; `available` and limit do not apply to a funding wallet."""

    id: Id
    user_id: Id | None
    currency: CurrencyCode
    balance: Balance
    held: NonNegative
    available: Annotated[
        int | None, Field(description="balance - held + overdraft_limit; null: no limit.")
    ]
    overdraft_limit: NonNegative
    status: Literal["active", "frozen", "closed"]
    version: NonNegative
    updated_at: datetime
    created_at: datetime
    metadata: Metadata


class Transfer(BaseModel):
    """A transfer. A dry run has id null and status dry_run."""

    id: Id | None
    source_wallet_id: Id
    destination_wallet_id: Id
    amount: Amount
    currency: CurrencyCode
    kind: Literal["transfer", "reversal"]
    status: Literal["posted", "dry_run"]
    reference: str | None
    metadata: Metadata
    source_version: int
    source_balance_after: Balance
    created_at: datetime
    reverses_transfer_id: Id | None = None


class StatementEntry(BaseModel):
    """One change of a wallet; the amount is signed, and 0 for changes that move no money."""

    transfer_id: Id | None
    kind: Literal["transfer", "reversal", "freeze", "unfreeze", "close", "update"]
    amount: int
    balance_after: Balance
    version: int
    counterparty_wallet_id: Id | None
    reference: str | None
    created_at: datetime
    metadata: Metadata


class Currency(BaseModel):
    """An ISO 4217 currency; `exponent` decimal places; money enters by its funding wallet."""

    code: CurrencyCode
    name: str
    exponent: int
    funding_wallet_id: Id


class KeyState(BaseModel):
    """What is known of an Idempotency-Key."""

    state: Literal["pending", "succeeded", "refused"]
    status: int | None
    answer: dict[str, Any] | None


class FieldError(BaseModel):
    """One thing that is wrong with a request; `pointer` is a JSON pointer (RFC 6901)."""

    pointer: str
    code: str
    message: str


class Problem(BaseModel):
    """RFC 9457 problem; refusals carry further members that would help."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    request_id: str
    errors: list[FieldError] | None = None


class Health(BaseModel):
    """Liveness or readiness."""

    status: str
