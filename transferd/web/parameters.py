"""The parameters of the OpenAPI document: of the path, the query, and the headers."""

from typing import Any

from transferd.config import Limits
from transferd.web.components import members_of
from transferd.web.operations import Operation
from transferd.web.past_schemas import WalletQuery
from transferd.web.streams import EVENT_STREAM

_ID_OF = {
    "users": "The id of the user.",
    "wallets": "The id of the wallet.",
    "transfers": "The id of the transfer.",
    "holds": "The id of the hold.",
    "webhooks": "The id of the webhook.",
}
_IN_PATH = {
    "delivery_id": "The id of the delivery.",
    "key": "The Idempotency-Key, percent-encoded.",
}
_TEXT = {"type": "string"}
# Text in another shape is 404, like any unknown id.
_ID = {"type": "string", "format": "uuid"}
_KEY = {
    "type": "string",
    "minLength": 1,
    "maxLength": Limits().key_chars_max,
    "pattern": "^[ -~]+$",
}
# As text, which is what a header is.
_VERSION = {"type": "string", "pattern": "^(0|[1-9][0-9]{0,17})$"}
# As clients should write it; more is accepted (transferd/web/request_headers.py).
_TAGS = {"type": "string", "pattern": '^([*]|(W/)?"[!#-~]*"(, (W/)?"[!#-~]*")*)$'}
_KEY_MEANS = (
    "New for each intent, the same for each repetition of it. The same request means the same"
    " operation and the same values: the order of JSON members (in metadata too), white space,"
    " escapes, upper-case ids and, in metadata, `1.0` for `1` make no difference. After"
    " `idempotency-key-reused` a new key can pay twice: first look at"
    " `GET /idempotency-keys/{key}`, or repeat the first request exactly as it was sent."
)


def parameters_of(operation: Operation) -> list[dict[str, Any]]:
    """All parameters of an operation."""
    parameters = [*_in_path(operation), *_in_query(operation)]
    if operation.key != "none":
        is_required = operation.key == "required"
        parameters.append(_header("Idempotency-Key", _KEY_MEANS, _KEY, is_required=is_required))
    if operation.query is WalletQuery:
        parameters.append(
            _header("If-None-Match", "The ETag that one has: 304 while it is the current one.")
        )
    if operation.has_if_match:
        means = (
            "The ETag of the wallet, or several, as it was seen: 412 `version-changed` if it has"
            " another one by now. `*` is any wallet that exists."
        )
        parameters.append(_header("If-Match", means, _TAGS))
    if operation.media_type == EVENT_STREAM:
        means = (
            "The id of the last event that one has; the stream goes on after it. Beyond the"
            " wallet's version it is 412 `version-not-reached`."
        )
        parameters.append(_header("Last-Event-ID", means, _VERSION))
    parameters.append(
        _header("X-Request-Id", "An id for the request, in place of one that is made up.")
    )
    parameters.append(
        _header("traceparent", "The trace that the request belongs to (W3C Trace Context).")
    )
    return parameters


def _in_path(operation: Operation) -> list[dict[str, Any]]:
    places = operation.path.split("/")
    names = [place[1:-1] for place in places if place.startswith("{")]
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": _IN_PATH.get(name) or _ID_OF[places[1]],
            "schema": _TEXT if name == "key" else _ID,
        }
        for name in names
    ]


def _in_query(operation: Operation) -> list[dict[str, Any]]:
    members, _ = members_of(operation.query)
    required = {
        field.alias or name
        for name, field in operation.query.model_fields.items()
        if field.is_required()
    }
    return [
        {
            "name": name,
            "in": "query",
            "required": name in required,
            "description": member.pop("description"),
            "schema": _not_null(member),
        }
        for name, member in members.items()
    ]


def _not_null(member: dict[str, Any]) -> dict[str, Any]:
    """Leaving a parameter out is not the same as sending null."""
    options = [option for option in member.get("anyOf", []) if option != {"type": "null"}]
    return options[0] if len(options) == 1 else member


def _header(
    name: str, means: str, schema: dict[str, Any] = _TEXT, *, is_required: bool = False
) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "required": is_required,
        "description": means,
        "schema": schema,
    }
