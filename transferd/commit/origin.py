"""The origin of a command."""

from typing import NamedTuple

from transferd.observability.traceparent import new_traceparent


class Origin(NamedTuple):
    """The ids of the request that a command came from; the command's events repeat them.

    `traceparent` names the request's own span if it is traced; `parent` names the caller's span.
    """

    request_id: str
    traceparent: str
    instance: str
    parent: str | None = None


def new_origin() -> Origin:
    """The origin of a command that no request has asked for."""
    traceparent = new_traceparent()
    return Origin(traceparent[3:35], traceparent, "")
