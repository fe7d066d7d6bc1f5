"""The links of the OpenAPI document: from what was made to what can be done with it."""

from collections.abc import Sequence
from typing import Any

from transferd.web.operations import Operation

_ID = "$response.body#/id"
# Where the id of what was made goes, if it is not part of the address.
_IN_QUERY = {("/wallets", "/transfers"): "wallet_id", ("/users", "/wallets"): "user_id"}


def links_of(operation: Operation, operations: Sequence[Operation]) -> dict[str, Any]:
    """What a 201 of the operation leads to, by the name of the operation that is led to."""
    if operation.status != 201:
        return {}
    # A reversal is a transfer.
    made = "/" + operation.path.split("/")[1]
    links: dict[str, Any] = {}
    for other in operations:
        parameter = None
        places = [part for part in other.path.split("/") if part.startswith("{")]
        if other.path.startswith(f"{made}/{{id}}") and places == ["{id}"]:
            parameter = "path.id"
        elif other.method == "GET" and (made, other.path) in _IN_QUERY:
            parameter = f"query.{_IN_QUERY[made, other.path]}"
        if parameter is not None:
            links[other.name] = {"operationId": other.name, "parameters": {parameter: _ID}}
    return links
