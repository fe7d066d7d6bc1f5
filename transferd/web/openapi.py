"""The OpenAPI 3.1 document, made from the operations and their models."""

from functools import cache
from importlib.metadata import version
from typing import Any

import orjson
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from transferd.web import schemas
from transferd.web.links import links_of, operation_id
from transferd.web.operations import Operation
from transferd.web.past_schemas import WalletQuery
from transferd.web.problems import MEDIA_TYPE, TYPES
from transferd.web.streams import EVENT_STREAM

_REFERENCE = "#/components/schemas/{model}"
_ALWAYS = (
    "unauthenticated",
    "forbidden",
    "invalid-request",
    "internal-error",
    "database-unavailable",
)
_WITH_BODY = ("malformed-json", "body-too-large", "unsupported-media-type")
_WITH_COMMAND = ("request-in-progress", "mailbox-full", "draining")
_WITH_CHANGE = ("overloaded", "deadline-exceeded")
_WITH_KEY = ("request-in-progress", "idempotency-key-invalid", "idempotency-key-reused")

# The headers of answers, with what they say.
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
_KEY = (
    "New for each intent, the same for each repetition of it. The same request means the same"
    " operation and the same values: the order of JSON members (in metadata too), white space,"
    " escapes, upper-case ids and, in metadata, `1.0` for `1` make no difference. After"
    " `idempotency-key-reused` a new key can pay twice: first look at"
    " `GET /idempotency-keys/{key}`, or repeat the first request exactly as it was sent."
)
_PAGE_HEADERS = {"Link": 'The next page (rel="next"), if there is one.'}
_STREAM_HEADERS = {
    "Cache-Control": "no-store.",
    "X-Accel-Buffering": "no: a proxy has to pass each event on at once.",
}
_EVENTS = (
    "Events as they come, until the client leaves. `id` is the version that the wallet has then,"
    " `event` its type, and `data` a CloudEvent as JSON. The first block has only the id that the"
    " stream begins after. Lines that begin with a colon may be ignored."
)
_RETRY_HEADERS = {"Retry-After": "Seconds to wait before another try, where that helps."}
# As text, which is what a header is.
_LAST_EVENT_ID = {"type": "string", "pattern": "^(0|[1-9][0-9]{0,17})$"}
_HEADERS_OF_STATUS: dict[int, dict[str, str]] = {
    401: {"WWW-Authenticate": "Bearer."},
    409: _RETRY_HEADERS,
    429: _RETRY_HEADERS,
    503: _RETRY_HEADERS,
}


@cache
def document(operations: tuple[Operation, ...], *, is_open: bool) -> bytes:
    """The whole document as JSON; `is_open` if requests without a key are served as well."""
    models: dict[type[BaseModel], None] = {schemas.Problem: None}
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        for model in (operation.body, operation.answer):
            if model is not None:
                models[model] = None
        described = _operation(operation)
        if leading := links_of(operation, operations):
            described["responses"][str(operation.status)]["links"] = leading
        paths.setdefault(operation.path, {})[operation.method.lower()] = described
    _, definitions = models_json_schema(
        [(model, "validation") for model in models], ref_template=_REFERENCE
    )
    return orjson.dumps(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "transferd",
                "version": version("transferd"),
                "description": "Wallets and transfers. Money is in minor units (ISO 4217).",
                "license": {"name": "MIT", "identifier": "MIT"},
            },
            "paths": paths,
            "components": {
                "schemas": definitions["$defs"],
                "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            },
            "security": [{"key": []}, {}] if is_open else [{"key": []}],
        }
    )


def _operation(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation_id(operation),
        "summary": operation.summary,
        "tags": [operation.tag],
        "parameters": [*_path_parameters(operation), *_query_parameters(operation)],
        "responses": _responses(operation),
    }
    texts = [operation.description] if operation.description else []
    if operation.scope is not None:
        texts.append(f"Scope `{operation.scope}`.")
    if texts:
        described["description"] = " ".join(texts)
    if operation.key != "none":
        described["parameters"].append(_key_parameter(operation))
    if operation.query is WalletQuery:
        described["parameters"].append(_header_parameter("If-None-Match"))
    if operation.media_type == EVENT_STREAM:
        described["parameters"].append(_header_parameter("Last-Event-ID", _LAST_EVENT_ID))
    described["parameters"] += [_header_parameter(name) for name in _ANY_HEADERS]
    if operation.body is not None:
        described["requestBody"] = {
            # A body of which all may be left out is still an object; a reversal needs none at all.
            "required": operation.body is not schemas.NewReversal,
            "content": {"application/json": {"schema": _reference(operation.body)}},
        }
    return described


def _responses(operation: Operation) -> dict[str, Any]:
    headers = _ANY_HEADERS | (_KEY_HEADERS if operation.key != "none" else {})
    responses: dict[str, Any] = {
        str(operation.status): {
            "description": "Done.",
            "headers": _headers(headers | _success_headers(operation)),
        }
    }
    if operation.status != 204:
        content = {operation.media_type: {"schema": _schema(operation)}}
        responses[str(operation.status)]["content"] = content
    if operation.query is schemas.DryRunQuery:
        responses["200"] = {
            **responses["201"],
            "description": "Decided, nothing written.",
            "headers": _headers(_ANY_HEADERS),
        }
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
            "content": {MEDIA_TYPE: {"schema": _reference(schemas.Problem)}},
        }
    return responses


def _schema(operation: Operation) -> dict[str, Any]:
    if operation.answer is None:
        fields = {name: {"type": "string"} for name in ("id", "event", "data")}
        return {"type": "object", "properties": fields, "description": _EVENTS}
    schema: dict[str, Any] = _reference(operation.answer)
    if not operation.is_list:
        return schema
    return {
        "type": "object",
        "required": ["data", "has_more", "next_cursor"],
        "properties": {
            "data": {"type": "array", "items": schema},
            "has_more": {"type": "boolean"},
            "next_cursor": {"type": ["string", "null"]},
        },
    }


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
    if issubclass(operation.query, schemas.ListQuery):
        codes += ["cursor-invalid"]
    if operation.method != "GET":
        codes += [*_WITH_BODY, *_WITH_CHANGE]
    if operation.method != "GET" and operation.is_command:
        codes += _WITH_COMMAND
    if operation.key != "none":
        codes += _WITH_KEY
    if operation.key == "required":
        codes += ["idempotency-key-missing"]
    return list(dict.fromkeys(codes))


def _path_parameters(operation: Operation) -> list[dict[str, Any]]:
    names = [part[1:-1] for part in operation.path.split("/") if part.startswith("{")]
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in names
    ]


def _query_parameters(operation: Operation) -> list[dict[str, Any]]:
    schema = operation.query.model_json_schema(ref_template=_REFERENCE)
    required = schema.get("required", [])
    parameters = []
    for name, member in schema.get("properties", {}).items():
        described = {"name": name, "in": "query", "required": name in required}
        if "description" in member:
            described["description"] = member["description"]
        parameters.append({**described, "schema": _not_null(member)})
    return parameters


def _not_null(member: dict[str, Any]) -> dict[str, Any]:
    """Leaving a parameter out is not the same as sending null."""
    options = [option for option in member.get("anyOf", []) if option != {"type": "null"}]
    return options[0] if len(options) == 1 else member


def _key_parameter(operation: Operation) -> dict[str, Any]:
    return {
        "name": "Idempotency-Key",
        "in": "header",
        "description": _KEY,
        "required": operation.key == "required",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
    }


def _header_parameter(name: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "schema": schema or {"type": "string"}}


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REFERENCE.format(model=model.__name__)}
