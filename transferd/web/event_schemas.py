"""The shapes of events: CloudEvents 1.0 in JSON, as webhooks and streams carry them."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, create_model

from transferd.commit.events import CLOUD_EVENT
from transferd.domain.hold import HoldStatus
from transferd.domain.transfer import TransferKind
from transferd.domain.wallet import WalletStatus
from transferd.domain.webhook import EVENT_TYPES
from transferd.web.components import reference
from transferd.web.fields import (
    Amount,
    Balance,
    CurrencyCode,
    Held,
    Id,
    Metadata,
    NonNegative,
    Version,
)


class _CloudEvent(BaseModel):
    """The members of every event."""

    specversion: Literal["1.0"]
    id: Annotated[
        str,
        Field(
            description="The same for every delivery of the event: receivers keep it to process the"
            " event once."
        ),
    ]
    source: Annotated[str, Field(json_schema_extra={"format": "uri-reference"})]
    subject: Annotated[str, Field(description="The id of what it is about.")]
    time: Annotated[datetime, Field(description="When it was committed.")]
    datacontenttype: Literal["application/json"]
    ledger: Annotated[
        str,
        Field(
            default_factory=str,
            description="The name of the ledger that it happened in. An event from before the"
            " upgrade to ledgers lacks it, and happened in `main`.",
        ),
    ]
    traceparent: Annotated[
        str, Field(default_factory=str, description="The trace of the request; not in streams.")
    ]
    requestid: Annotated[
        str, Field(default_factory=str, description="The id of the request; not in streams.")
    ]


class TransferEventData(BaseModel):
    """A transfer, and both its wallets after it."""

    id: Id
    kind: TransferKind
    source_wallet_id: Id
    destination_wallet_id: Id
    amount: Amount
    currency: CurrencyCode
    reference: str | None
    metadata: Metadata
    source_version: Version
    source_balance_after: Balance
    destination_version: Version
    destination_balance_after: Balance
    reverses_transfer_id: Id | None
    hold_id: Id | None


class WalletEventData(BaseModel):
    """A wallet as it was after the change."""

    id: Id
    user_id: Id | None
    currency: CurrencyCode
    balance: Balance
    overdraft_limit: NonNegative
    status: WalletStatus
    version: Version


class HoldEventData(BaseModel):
    """A hold as it was after the change, and its wallet's version with what it held then."""

    id: Id
    source_wallet_id: Id
    destination_wallet_id: Id | None
    currency: CurrencyCode
    amount: Amount
    captured: NonNegative
    released: NonNegative
    remaining: NonNegative
    status: HoldStatus
    expires_at: datetime
    reference: str | None
    metadata: Metadata
    version: Version
    held_after: Held


class UserEventData(BaseModel):
    """A user."""

    id: Id
    name: str | None


_DATA: dict[str, type[BaseModel]] = {
    "transfer": TransferEventData,
    "wallet": WalletEventData,
    "hold": HoldEventData,
    "user": UserEventData,
}


def _event(type_: str) -> type[BaseModel]:
    noun, verb = type_.split(".")
    members: dict[str, Any] = {"type": (Literal[type_], ...), "data": (_DATA[noun], ...)}
    return create_model(
        f"{noun.title()}{verb.title()}Event",
        __base__=_CloudEvent,
        __doc__=f"`{type_}`, as a CloudEvent.",
        **members,
    )


# The shape of an event, by its type.
EVENTS: dict[str, type[BaseModel]] = {type_: _event(type_) for type_ in EVENT_TYPES}

ANY_EVENT = {
    "description": "Any event, as a CloudEvent; `type` says which.",
    "oneOf": [reference(model) for model in EVENTS.values()],
    "discriminator": {
        "propertyName": "type",
        "mapping": {type_: reference(model)["$ref"] for type_, model in EVENTS.items()},
    },
}

# OpenAPI 3.1 has no `itemSchema` (3.2 has): some programs validate each event with the schema of a
# stream, others the whole text.
STREAMED = {
    "oneOf": [
        {"$ref": "#/components/schemas/StreamedEvent"},
        {"type": "string", "description": "All events as one text."},
    ]
}
STREAMED_EVENT = {
    "type": "object",
    "description": "One event of a stream, which goes on until the client leaves. The first one has"
    " only an id, after which the stream begins. Lines that begin with a colon may be ignored.",
    "required": ["id"],
    "properties": {
        "id": {
            "type": "string",
            "pattern": "^(0|[1-9][0-9]{0,18})$",
            "description": "The version that the wallet has then: what to send as Last-Event-ID.",
        },
        "event": {"$ref": "#/components/schemas/EventType"},
        "data": {
            "type": "string",
            "description": "The event as JSON.",
            "contentMediaType": "application/json",
            "contentSchema": {"$ref": "#/components/schemas/Event"},
        },
    },
}

# Standard Webhooks, https://www.standardwebhooks.com
_HEADERS = {
    "webhook-id": "The event's id: the same each time that it is sent.",
    "webhook-timestamp": "When it was sent, in seconds since 1970.",
    "webhook-signature": "`v1,` and a signature of `<webhook-id>.<webhook-timestamp>.<body>` in"
    " base64; after a rotation one for each secret, with a space between.",
}
_ANSWERS = {
    "2XX": "The event was taken.",
    "410": "The endpoint is gone: the webhook is disabled.",
    "default": "The event was not taken, and is sent again later.",
}


def deliveries() -> dict[str, Any]:
    """The requests to webhooks, one for each type of event."""
    return {type_: {"post": _delivery(type_, model)} for type_, model in EVENTS.items()}


def _delivery(type_: str, model: type[BaseModel]) -> dict[str, Any]:
    return {
        "operationId": f"receive_{type_.replace('.', '_')}",
        "summary": f"Receive `{type_}`",
        "description": "Sent at least once, signed as Standard Webhooks says, to each active"
        " webhook that wants it.",
        "tags": ["webhooks"],
        "security": [],
        "parameters": [
            {
                "name": name,
                "in": "header",
                "required": True,
                "description": text,
                "schema": {"type": "string"},
            }
            for name, text in _HEADERS.items()
        ],
        "requestBody": {
            "required": True,
            "content": {CLOUD_EVENT: {"schema": reference(model)}},
        },
        "responses": {status: {"description": text} for status, text in _ANSWERS.items()},
    }
