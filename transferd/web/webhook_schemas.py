"""Request and response models of webhooks and their delivery logs."""

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError
from typing_extensions import TypeAliasType

from transferd.config import Limits
from transferd.domain.webhook import EVENT_FILTERS, EVENT_TYPES, DeliveryStatus, WebhookStatus
from transferd.web.fields import Id
from transferd.web.schemas import Body, ListQuery, Patch, example

_LIMITS = Limits()
_FILTER_SCHEMA = {"type": "string", "enum": list(EVENT_FILTERS)}


def _known(value: str) -> str:
    if value not in EVENT_FILTERS:
        raise PydanticCustomError(
            "event_unknown", "must be one of {filters}", {"filters": ", ".join(EVENT_FILTERS)}
        )
    return value


def _unique(values: list[str]) -> list[str]:
    if len(set(values)) < len(values):
        raise PydanticCustomError("repeated", "must not name an event twice")
    return values


EventFilter = TypeAliasType(
    "EventFilter", Annotated[str, AfterValidator(_known), WithJsonSchema(_FILTER_SCHEMA)]
)
EventType = TypeAliasType(
    "EventType", Annotated[str, WithJsonSchema({"type": "string", "enum": list(EVENT_TYPES)})]
)
EventFilters = Annotated[
    list[EventFilter],
    Field(
        min_length=1,
        max_length=_LIMITS.webhook_filters_max,
        json_schema_extra={"uniqueItems": True},
    ),
    AfterValidator(_unique),
]
Url = Annotated[
    str,
    StringConstraints(max_length=_LIMITS.webhook_url_chars_max),
    Field(
        json_schema_extra={"format": "uri"},
        description="Absolute, https, without user, password or fragment, and not to a private"
        " or local address.",
    ),
]


class NewWebhook(Body):
    """POST /webhooks: without a wallet, the events of all of them."""

    model_config = example(url="https://example.com/hooks/transferd", events=["transfer.*"])

    url: Url
    events: EventFilters
    wallet_id: Id | None = None


class WebhookPatch(Patch):
    """PATCH /webhooks/{id}: a missing member stays as it is."""

    model_config = example(events=["transfer.posted", "wallet.*"])

    url: Url = Field(default_factory=str)
    events: EventFilters = Field(default_factory=list)
    status: WebhookStatus = Field(default_factory=lambda: WebhookStatus.ACTIVE)


class DeliveriesQuery(ListQuery):
    """GET /webhooks/{id}/deliveries."""

    status: Annotated[DeliveryStatus | None, Field(description="Only those with this status.")] = (
        None
    )


class Webhook(BaseModel):
    """An endpoint. After a rotation the previous secret also signs until `previous_secret_until`,
    and each older secret until the time that its own rotation announced."""

    id: Id
    url: Url
    events: list[EventFilter]
    wallet_id: Id | None
    status: WebhookStatus
    disabled_reason: str | None
    previous_secret_until: datetime | None
    created_at: datetime
    updated_at: datetime


class WebhookWithSecret(Webhook):
    """The only answer that shows the secret: keep it."""

    secret: Annotated[
        str,
        Field(
            pattern=r"^whsec_[A-Za-z0-9+/]+=*$",
            description="whsec_ and the signing key in base64 (Standard Webhooks).",
        ),
    ]


class Delivery(BaseModel):
    """What became of one event at one endpoint; pending: it was asked for again; skipped: the
    endpoint was disabled, and nothing was sent."""

    id: Id
    event_id: str
    event_type: EventType
    status: DeliveryStatus
    attempts: Annotated[int, Field(ge=0)]
    response_status: int | None
    error: str | None
    response_excerpt: str | None
    next_attempt_at: datetime | None
    created_at: datetime
    updated_at: datetime
