"""The responses of the OpenAPI document: every status that an operation can give."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from transferd.web.components import list_of, reference
from transferd.web.event_schemas import STREAMED
from transferd.web.operations import Operation
from transferd.web.past_schemas import WalletQuery
from transferd.web.problem_schemas import shapes_of
from transferd.web.problems import MEDIA_TYPE, TYPES
from transferd.web.schemas import ListQuery
from transferd.web.streams import EVENT_STREAM

_ALWAYS = (
    "malformed-request",
    "unauthenticated",
    "forbidden",
    "invalid-request",
    "internal-error",
    "database-unavailable",
    # Nginx, in front of the replicas, may answer any request with the next three.
    "bad-gateway",
    "overloaded",
    "deadline-exceeded",
)
_WITH_BODY = ("malformed-json", "body-too-large", "unsupported-media-type")
_WITH_COMMAND = ("mailbox-full", "draining")
_WITH_KEY = ("request-in-progress", "idempotency-key-invalid", "idempotency-key-reused")

# The headers of answers, with their descriptions.
_ANY_HEADERS = {
    "X-Request-Id": "The request's own id, or the one that it was given.",
    "traceparent": "The trace that the request belongs to (W3C Trace Context).",
}
_WALLET_HEADERS = {
    "ETag": "w and the version; an answer about an instant has none.",
    "X-Cache": "hit, miss or bypass.",
}
_CREATED_HEADERS = {"Location": "The address of what was made."}
_KEY_HEADERS = {"Idempotent-Replayed": "true, where this is the outcome of an earlier request."}
_PAGE_HEADERS = {"Link": 'The next page (rel="next"), if there is one.'}
_STREAM_HEADERS = {
    "Cache-Control": "no-store.",
    "X-Accel-Buffering": "no: a proxy has to pass each event on at once.",
}
_RETRY_HEADERS = {"Retry-After": "Seconds to wait before another try, where that helps."}
_HEADERS_OF_STATUS: dict[int, dict[str, str]] = {
    401: {"WWW-Authenticate": "Bearer."},
    409: _RETRY_HEADERS,
    429: _RETRY_HEADERS,
    502: _RETRY_HEADERS,
    503: _RETRY_HEADERS,
}


def answer_of(operation: Operation) -> type[BaseModel] | None:
    """The model of a successful answer in JSON."""
    if operation.answer is None:
        return None
    return list_of(operation.answer) if operation.is_list else operation.answer


def responses_of(operation: Operation) -> dict[str, Any]:
    """All responses of an operation, by status."""
    headers = _ANY_HEADERS | (_KEY_HEADERS if operation.key != "none" else {})
    done: dict[str, Any] = {
        "description": "Done.",
        "headers": _headers(headers | _success_headers(operation)),
    }
    answer = answer_of(operation)
    if operation.media_type == EVENT_STREAM:
        done["content"] = {EVENT_STREAM: {"schema": STREAMED}}
    elif answer is not None:
        done["content"] = _content(answer)
    responses = {str(operation.status): done}
    if operation.dry_run is not None:
        _add_dry_run(responses, operation, operation.dry_run)
    if operation.query is WalletQuery:
        responses["304"] = {
            "description": "If-None-Match names the current version.",
            "headers": _headers(headers | _WALLET_HEADERS),
        }
    by_status: dict[int, list[str]] = {}
    for code in _codes(operation):
        by_status.setdefault(TYPES[code].status, []).append(code)
    for status, codes in sorted(by_status.items()):
        responses[str(status)] = {
            "description": ", ".join(f"`{code}`" for code in codes),
            "headers": _headers(headers | _HEADERS_OF_STATUS.get(status, {})),
            "content": {MEDIA_TYPE: {"schema": _one_of(shapes_of(codes))}},
        }
    return responses


def _add_dry_run(responses: dict[str, Any], operation: Operation, model: type[BaseModel]) -> None:
    """A dry run is always 200, which some operations answer without it too."""
    if operation.status == 200:
        assert operation.answer is not None
        schema = {"oneOf": [reference(operation.answer), reference(model)]}
        responses["200"]["content"] = {"application/json": {"schema": schema}}
        return
    responses["200"] = {
        "description": "With `dry_run=true`: decided, nothing written.",
        "headers": _headers(_ANY_HEADERS),
        "content": _content(model),
    }


def _content(model: type[BaseModel]) -> dict[str, Any]:
    return {"application/json": {"schema": reference(model)}}


def _one_of(models: Sequence[type[BaseModel]]) -> dict[str, Any]:
    if len(models) == 1:
        return reference(models[0])
    return {"oneOf": [reference(model) for model in models]}


def _success_headers(operation: Operation) -> dict[str, str]:
    if operation.media_type == EVENT_STREAM:
        return _STREAM_HEADERS
    if operation.query is WalletQuery:
        return _WALLET_HEADERS
    if operation.is_list:
        return _PAGE_HEADERS
    return _CREATED_HEADERS if operation.status == 201 else {}


def _headers(headers: dict[str, str]) -> dict[str, Any]:
    return {
        name: {"description": text, "schema": {"type": "string"}} for name, text in headers.items()
    }


def _codes(operation: Operation) -> list[str]:
    codes = [*_ALWAYS, *operation.refusals]
    if issubclass(operation.query, ListQuery):
        codes += ["cursor-invalid"]
    if operation.method != "GET":
        codes += _WITH_BODY
    if operation.method != "GET" and operation.is_command:
        codes += _WITH_COMMAND
    if operation.key != "none":
        codes += _WITH_KEY
    if operation.key == "required":
        codes += ["idempotency-key-missing"]
    return list(dict.fromkeys(codes))
