"""The OpenAPI 3.1 document, made from the operations and their models."""

from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from typing import Any

import orjson
from pydantic import BaseModel

from transferd.domain.api_key import ADMIN, SCOPES
from transferd.web.components import components_of, members_of, reference
from transferd.web.event_schemas import ANY_EVENT, EVENTS, STREAMED_EVENT, deliveries
from transferd.web.hold_schemas import NewCapture
from transferd.web.operations import Operation
from transferd.web.parameters import parameters_of
from transferd.web.problem_schemas import WITH_FACTS, Problem
from transferd.web.responses import answer_of, responses_of
from transferd.web.schemas import NewReversal

_DESCRIPTION = (
    "Wallets and transfers. Money is an integer in minor units (ISO 4217): 2500 USD is 25.00"
    " dollars. Ids in examples are placeholders: put those of your own users and wallets there."
    " Errors are problems (RFC 9457), and `code` says which. A request that moves money needs an"
    " Idempotency-Key; where no answer came, repeat the request with the same key."
)
_SCOPES = ", ".join(f"`{scope}`" for scope in SCOPES)
_TAGS: dict[str, str] = {
    "users": "Owners of wallets.",
    "wallets": "Balances, what changed them, and the currencies that there are.",
    "transfers": "Money from one wallet to another, and the fate of Idempotency-Keys.",
    "holds": "Money that is reserved for a later payment.",
    "webhooks": "Where events are sent to, and what became of them.",
}

_ID = "$response.body#/id"
# Operations that need no body.
_OPTIONAL_BODIES = (NewReversal, NewCapture)
# The query parameter for the id of the created resource, where the path does not take it.
_ID_IN_QUERY = {("/wallets", "/transfers"): "wallet_id", ("/users", "/wallets"): "user_id"}


@cache
def document(operations: tuple[Operation, ...], *, is_open: bool) -> bytes:
    """The whole document as JSON; `is_open` if requests without a key are served as well."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        described = _operation(operation)
        if leading := _links(operation, operations):
            described["responses"][str(operation.status)]["links"] = leading
        paths.setdefault(operation.path, {})[operation.method.lower()] = described
    return orjson.dumps(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "transferd",
                "version": version("transferd"),
                "description": _DESCRIPTION,
                "contact": {"name": "transferd contributors"},
                "license": {"name": "MIT", "identifier": "MIT"},
            },
            "servers": [{"url": "/", "description": "The service that this document comes from."}],
            "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
            "paths": paths,
            "security": [{"key": []}, {}] if is_open else [{"key": []}],
            "webhooks": deliveries(),
            "components": {
                "schemas": _components(operations),
                "securitySchemes": {
                    "key": {
                        "type": "http",
                        "scheme": "bearer",
                        "description": "An API key, `td_<id>_<secret>`. Each operation names the"
                        f" scope that the key needs: {_SCOPES}. `{ADMIN}` includes all others.",
                    }
                },
            },
        }
    )


def _operation(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "description": f"{operation.description} Scope `{operation.scope}`.".strip(),
        "tags": [operation.tag],
        "parameters": parameters_of(operation),
        "responses": responses_of(operation),
    }
    if operation.body is not None:
        described["requestBody"] = {
            # A body is an object even if all members are optional.
            "required": operation.body not in _OPTIONAL_BODIES,
            "content": {"application/json": {"schema": reference(operation.body)}},
        }
    return described


def _components(operations: Sequence[Operation]) -> dict[str, Any]:
    models: list[type[BaseModel]] = [Problem, *WITH_FACTS.values(), *EVENTS.values()]
    for operation in operations:
        shapes = (operation.body, answer_of(operation), operation.dry_run)
        models += [model for model in shapes if model is not None]
    schemas = components_of(models)
    for operation in operations:
        schemas |= members_of(operation.query)[1]
    schemas |= {"Event": ANY_EVENT, "StreamedEvent": STREAMED_EVENT}
    return dict(sorted(schemas.items()))


def _links(operation: Operation, operations: Sequence[Operation]) -> dict[str, Any]:
    """The links of a 201: from the created resource to the operations that take its id."""
    if operation.status != 201:
        return {}
    # A reversal is a transfer.
    created = "/" + operation.path.split("/")[1]
    links: dict[str, Any] = {}
    for other in operations:
        parameter = None
        places = [part for part in other.path.split("/") if part.startswith("{")]
        if other.path.startswith(f"{created}/{{id}}") and places == ["{id}"]:
            parameter = "path.id"
        elif other.method == "GET" and (created, other.path) in _ID_IN_QUERY:
            parameter = f"query.{_ID_IN_QUERY[created, other.path]}"
        if parameter is not None:
            links[other.name] = {"operationId": other.name, "parameters": {parameter: _ID}}
    return links
