"""Requests for every operation of the API, made from its OpenAPI document, with gaps for values."""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import orjson

from transferd.web import openapi
from transferd.web.application import OPERATIONS
from transferd.web.operations import Operation

# Where the document has no example: what a parameter or a member is filled with. An unknown name
# is an error, so that a new one is looked at.
_KINDS: Mapping[str, str] = {
    "user_id": "user",
    "wallet_id": "wallet",
    "source_wallet_id": "wallet",
    "destination_wallet_id": "other wallet",
    "hold_id": "hold",
    "delivery_id": "delivery",
    "cursor": "cursor",
    "key": "known key",
    "Idempotency-Key": "new key",
    "min_version": "version",
    "after_version": "version",
    "Last-Event-ID": "version",
    "If-Match": "tag",
    "If-None-Match": "another tag",
    "limit": "one",
    "currency": "currency",
    "at": "time",
    "from": "time",
    "to": "time",
    "expires_before": "time",
    "dry_run": "true",
    "X-Request-Id": "request id",
    "traceparent": "traceparent",
}
# Only an empty wallet can be closed.
_KINDS_OF_PATH = {"close_wallet": "empty wallet"}
# The kinds of values that name something in a ledger.
NAMES = frozenset(
    {
        *("user", "wallet", "other wallet", "empty wallet", "transfer", "hold", "webhook"),
        *("delivery", "cursor", "known key", "new key"),
    }
)
# Sent with every request, so that answers do not differ by them.
_ALWAYS = ("X-Request-Id", "traceparent")
_GAP = re.compile("<([a-z ]+)>")


class Request(NamedTuple):
    """A request: the target is the path with the query."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes | None


class Probe(NamedTuple):
    """A request with gaps, `<kind>`, in its texts; `kinds` are those of the gaps, in order."""

    operation: Operation
    target: str
    headers: Mapping[str, str]
    body: str | None

    def __repr__(self) -> str:
        return f"<Probe {self.operation.method} {self.target} {self.body or ''}>"

    @property
    def kinds(self) -> list[str]:
        return _GAP.findall("".join((self.target, *self.headers.values(), self.body or "")))

    def filled(self, values: Sequence[str]) -> Request:
        """The request with a value in each gap."""
        left = iter(values)

        def fill(text: str) -> str:
            return _GAP.sub(lambda _: next(left), text)

        target = fill(self.target)
        headers = {name: fill(text) for name, text in self.headers.items()}
        body = None if self.body is None else fill(self.body).encode()
        return Request(self.operation.method, target, headers, body)


@cache
def document() -> dict[str, Any]:
    """The OpenAPI document."""
    found: dict[str, Any] = orjson.loads(openapi.document(OPERATIONS, is_open=False))
    return found


def probes_of(operation: Operation) -> list[Probe]:
    """A request with only what is required, and one more for each optional parameter.

    Every member of a body that is an id is given, and each value of a required enumeration is
    tried. Raises LookupError for a name whose kind is unknown.
    """
    described = document()["paths"][operation.path][operation.method.lower()]
    optional = [
        each
        for each in described["parameters"]
        if not each["required"] and each["name"] not in _ALWAYS
    ]
    always = [each for each in described["parameters"] if each not in optional]
    bodies: list[str | None] = [None]
    if operation.body is not None:
        schema = document()["components"]["schemas"][operation.body.__name__]
        bodies = [orjson.dumps(each).decode() for each in _samples(schema)]
    return [
        _probe(operation, parameters, body)
        for body in bodies
        for parameters in (always, *([*always, each] for each in optional))
    ]


def _probe(
    operation: Operation, parameters: Sequence[Mapping[str, Any]], body: str | None
) -> Probe:
    target, query, headers = operation.path, [], {}
    for each in parameters:
        name = each["name"]
        gap = f"<{_kind_of(operation, each)}>"
        if each["in"] == "path":
            target = target.replace(f"{{{name}}}", gap)
        elif each["in"] == "query":
            query.append(f"{name}={gap}")
        else:
            headers[name] = gap
    return Probe(
        operation, "?".join([target, *(["&".join(query)] if query else [])]), headers, body
    )


def _kind_of(operation: Operation, parameter: Mapping[str, Any]) -> str:
    """What the gap of a parameter is filled with. Raises LookupError."""
    name = parameter["name"]
    if parameter["in"] == "path" and name == "id":
        # The id in the path of a collection is that of one of its items.
        collection = operation.path.split("/")[1]
        return _KINDS_OF_PATH.get(operation.name, collection.removesuffix("s"))
    if name == "status":
        # One of a resource that has a status of its own.
        return f"{operation.answer.__name__.lower() if operation.answer else ''} status"
    return _KINDS[name]


# Bodies


def _samples(schema: Mapping[str, Any]) -> Iterator[Any]:
    """A value of an object, and further ones for the values of its required enumerations."""
    sample = _sample(schema)
    yield sample
    for name in schema.get("required", ()):
        for value in _resolved(schema["properties"][name]).get("enum", ()):
            if value != sample[name]:
                yield sample | {name: value}


def _sample(schema: Mapping[str, Any]) -> Any:
    """A value: its first example, with gaps for all ids."""
    [example] = schema.get("examples", [{}])
    members = dict(example)
    for name, member in schema["properties"].items():
        value = _resolved(member)
        if value.get("format") == "uuid":
            members[name] = f"<{_KINDS[name]}>"
        elif "oneOf" in value.get("items", {}):
            members[name] = [_sample(_resolved(each)) for each in value["items"]["oneOf"]]
    return members


def _resolved(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema without a reference or `null`."""
    for option in schema.get("anyOf", ()):
        if option != {"type": "null"}:
            return _resolved(option)
    if "$ref" in schema:
        found: Mapping[str, Any] = document()["components"]["schemas"][
            schema["$ref"].rpartition("/")[2]
        ]
        return found
    return schema
