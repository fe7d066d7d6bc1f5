"""Request and response models: the shapes of the contract, and the source of OpenAPI."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from transferd.config import Limits
from transferd.domain.transfer import TransferKind
from transferd.domain.wallet import WalletStatus
from transferd.web.fields import (
    Amount,
    Balance,
    CurrencyCode,
    Cursor,
    EntryKind,
    Flag,
    Held,
    Id,
    KeyStatus,
    Limit,
    Metadata,
    NewMetadata,
    NonNegative,
    Text,
    Version,
)

_LIMITS = Limits()


class Body(BaseModel):
    """A request body: no unknown fields, no coercion."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Query(BaseModel):
    """Query parameters: no unknown ones; numbers and times come as text, so they are coerced."""

    model_config = ConfigDict(extra="forbid")


class Patch(Body):
    """PATCH: members that are left out stay. The defaults are factories, which the document does
    not show: a generated client would send a default of the document and so change the field.
    """


class NoBody(Body):
    """An empty object, or nothing at all."""


# Ids in examples are placeholders, because the server makes the ids.
EXAMPLE_USER_ID = "01900000-0000-7000-8000-0000000000a1"
EXAMPLE_WALLET_ID = "01900000-0000-7000-8000-0000000000b1"
EXAMPLE_OTHER_WALLET_ID = "01900000-0000-7000-8000-0000000000b2"
EXAMPLE_TRANSFER: dict[str, Any] = {
    "source_wallet_id": EXAMPLE_WALLET_ID,
    "destination_wallet_id": EXAMPLE_OTHER_WALLET_ID,
    "amount": 2500,
    "currency": "USD",
}


def example(**members: Any) -> ConfigDict:
    """The configuration of a body that shows an example."""
    return ConfigDict(json_schema_extra={"examples": [members]})


class NewUser(Body):
    """POST /users."""

    model_config = example(name="Ada", metadata={"crm_id": "c-1815"})

    name: Text | None = None
    metadata: NewMetadata = Field(default_factory=dict)


class UserPatch(Patch):
    """PATCH /users/{id}: members that are left out stay."""

    model_config = example(name="Ada King")

    name: Text | None = Field(default_factory=lambda: None)
    metadata: NewMetadata = Field(default_factory=dict)


class NewWallet(Body):
    """POST /wallets."""

    model_config = example(user_id=EXAMPLE_USER_ID, currency="USD", metadata={"label": "savings"})

    user_id: Id
    currency: CurrencyCode
    initial_balance: NonNegative = 0
    overdraft_limit: NonNegative = 0
    metadata: NewMetadata = Field(default_factory=dict)


class WalletPatch(Patch):
    """PATCH /wallets/{id}: members that are left out stay."""

    model_config = example(metadata={"label": "rent"})

    overdraft_limit: NonNegative = Field(default_factory=int)
    metadata: NewMetadata = Field(default_factory=dict)


class NewTransfer(Body):
    """POST /transfers."""

    model_config = example(**EXAMPLE_TRANSFER, reference="rent", metadata={"invoice": "2026-11"})

    source_wallet_id: Id
    destination_wallet_id: Id
    amount: Amount
    currency: CurrencyCode
    reference: Text | None = None
    metadata: NewMetadata = Field(default_factory=dict)


class NewReversal(Body):
    """POST /transfers/{id}/reversal: without an amount all that is left, with the reference of the
    transfer unless another one is given."""

    model_config = example(amount=500)

    amount: Amount | None = None
    reference: Text | None = None
    metadata: NewMetadata = Field(default_factory=dict)


class ListQuery(Query):
    """Page of a list."""

    limit: Annotated[Limit, Field(description="How many a page has at most.")] = (
        _LIMITS.list_items_default
    )
    cursor: Annotated[
        Cursor | None,
        Field(description="`next_cursor` of the page before, for the same list and filters."),
    ] = None


class WalletsQuery(ListQuery):
    """GET /wallets."""

    user_id: Annotated[Id | None, Field(description="Only those of this user.")] = None
    currency: Annotated[
        CurrencyCode | None, Field(description="Only those in this currency (ISO 4217).")
    ] = None


class TransfersQuery(ListQuery):
    """GET /transfers."""

    wallet_id: Annotated[Id, Field(description="The wallet that paid or received.")]


class DryRunQuery(Query):
    """Whether a command is only decided."""

    dry_run: Annotated[
        Flag, Field(description="Decide only: nothing is written, and no key is needed or kept.")
    ] = False


class NoQuery(Query):
    """No parameters."""


class Page(BaseModel):
    """The members of every page of a list."""

    has_more: Annotated[bool, Field(description="Whether `next_cursor` may lead to more.")]
    next_cursor: Annotated[
        str | None, Field(description="What to send as `cursor` for the next page; null: none.")
    ]


class User(BaseModel):
    """A user."""

    id: Id
    name: str | None
    metadata: Metadata
    created_at: datetime


class PastWallet(BaseModel):
    """A wallet before an instant: without `metadata`, which have no history."""

    id: Id
    user_id: Id | None
    currency: CurrencyCode
    balance: Balance
    held: Held
    available: Annotated[
        Balance | None, Field(description="balance - held + overdraft_limit; null: no limit.")
    ]
    overdraft_limit: NonNegative
    status: WalletStatus
    version: Version
    updated_at: datetime
    created_at: datetime


class Wallet(PastWallet):
    """A wallet. Money in minor units; `available` and limit do not apply to a funding wallet."""

    metadata: Metadata


class _Transfer(BaseModel):
    """The common members of a transfer and a dry run."""

    source_wallet_id: Id
    destination_wallet_id: Id
    amount: Amount
    currency: CurrencyCode
    kind: TransferKind
    reference: str | None
    metadata: Metadata
    source_version: Version
    source_balance_after: Balance
    created_at: datetime
    hold_id: Annotated[Id, Field(default_factory=str, description="Only a capture has it.")]


class Transfer(_Transfer):
    """A transfer that was posted. Transfers never change."""

    id: Id
    status: Literal["posted"]
    reverses_transfer_id: Annotated[
        Id, Field(default_factory=str, description="Only a reversal has it.")
    ]


class DryRun(_Transfer):
    """The transfer as it would be posted; nothing was written, so it has no id."""

    id: None
    status: Literal["dry_run"]


class StatementEntry(BaseModel):
    """One change of a wallet; the amount is signed, and 0 for changes that move no money."""

    transfer_id: Id | None
    kind: EntryKind
    amount: Balance
    balance_after: Balance
    version: Version
    counterparty_wallet_id: Id | None
    reference: str | None
    hold_id: Annotated[Id | None, Field(description="The hold that was changed or captured.")]
    held_after: Annotated[Held, Field(description="What the wallet holds after it.")]
    created_at: datetime
    metadata: Metadata


class Currency(BaseModel):
    """An ISO 4217 currency; `exponent` decimal places; money enters by its funding wallet."""

    code: CurrencyCode
    name: str
    exponent: int
    funding_wallet_id: Id


class KeyState(BaseModel):
    """The state of an Idempotency-Key."""

    state: KeyStatus
    status: int | None
    answer: dict[str, Any] | None
