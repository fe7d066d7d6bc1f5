"""The OpenAPI 3.1 document, made from the operations and their models."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import orjson
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from transferd.web import schemas
from transferd.web.operations import Operation
from transferd.web.problems import MEDIA_TYPE, TYPES

_REFERENCE = "#/components/schemas/{model}"
_ALWAYS = ("unauthenticated", "forbidden", "internal-error", "database-unavailable")
_WITH_BODY = ("malformed-json", "body-too-large", "unsupported-media-type", "invalid-request")
_WITH_COMMAND = ("request-in-progress", "mailbox-full", "overloaded", "draining")
_WITH_KEY = ("idempotency-key-invalid", "idempotency-key-reused")


def document(operations: Sequence[Operation]) -> bytes:
    """The whole document as JSON."""
    models: dict[type[BaseModel], None] = {schemas.Problem: None}
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        for model in (operation.body, operation.answer):
            if model is not None:
                models[model] = None
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
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
            "security": [{"key": []}, {}],
        }
    )


def _operation(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": f"{operation.method.lower()}{operation.path}".replace("/", "_")
        .replace("{", "")
        .replace("}", ""),
        "summary": operation.summary,
        "tags": [operation.tag],
        "parameters": [*_path_parameters(operation), *_query_parameters(operation)],
        "responses": _responses(operation),
    }
    if operation.scope is not None:
        described["description"] = f"Scope `{operation.scope}`."
    if operation.key != "none":
        described["parameters"].append(_key_parameter(operation))
    if operation.body is not None:
        described["requestBody"] = {
            "required": bool(operation.body.model_json_schema().get("required")),
            "content": {"application/json": {"schema": _reference(operation.body)}},
        }
    return described


def _responses(operation: Operation) -> dict[str, Any]:
    schema: dict[str, Any] = _reference(operation.answer)
    if operation.is_list:
        schema = {
            "type": "object",
            "required": ["data", "has_more", "next_cursor"],
            "properties": {
                "data": {"type": "array", "items": schema},
                "has_more": {"type": "boolean"},
                "next_cursor": {"type": ["string", "null"]},
            },
        }
    responses: dict[str, Any] = {
        str(operation.status): {
            "description": "Done.",
            "content": {"application/json": {"schema": schema}},
        }
    }
    if operation.query is schemas.DryRunQuery:
        responses["200"] = {**responses["201"], "description": "Decided, nothing written."}
    if operation.query is schemas.WalletQuery:
        responses["304"] = {"description": "If-None-Match names the current version."}
    by_status: dict[int, list[str]] = {}
    for code in _codes(operation):
        by_status.setdefault(TYPES[code].status, []).append(code)
    for status, codes in sorted(by_status.items()):
        responses[str(status)] = {
            "description": ", ".join(f"`{code}`" for code in codes),
            "content": {MEDIA_TYPE: {"schema": _reference(schemas.Problem)}},
        }
    return responses


def _codes(operation: Operation) -> list[str]:
    codes = [*_ALWAYS, *operation.refusals]
    if operation.query is not schemas.NoQuery or operation.is_list:
        codes += ["invalid-request"]
    if operation.is_list:
        codes += ["cursor-invalid"]
    if operation.method != "GET":
        codes += [*_WITH_COMMAND, *_WITH_BODY, "deadline-exceeded"]
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
    return [
        {"name": name, "in": "query", "required": name in required, "schema": _not_null(member)}
        for name, member in schema.get("properties", {}).items()
    ]


def _not_null(member: dict[str, Any]) -> dict[str, Any]:
    """Leaving a parameter out is not the same as sending null."""
    options = [option for option in member.get("anyOf", []) if option != {"type": "null"}]
    return options[0] if len(options) == 1 else member


def _key_parameter(operation: Operation) -> dict[str, Any]:
    return {
        "name": "Idempotency-Key",
        "in": "header",
        "required": operation.key == "required",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
    }


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REFERENCE.format(model=model.__name__)}
