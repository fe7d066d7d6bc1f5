"""The origin of a command."""

from typing import NamedTuple


class Origin(NamedTuple):
    """The ids of the request that a command came from; the command's events repeat them.

    `traceparent` names the request's own span if it is traced; `parent` names the caller's span.
    """

    request_id: str
    traceparent: str
    instance: str
    parent: str | None = None
