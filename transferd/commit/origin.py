"""Where a command came from."""

from typing import NamedTuple


class Origin(NamedTuple):
    """The ids of the request that a command came from; the notification repeats them.

    `traceparent` names the request's own span if it is traced, `parent` the span of its caller.
    """

    request_id: str
    traceparent: str
    instance: str
    parent: str | None = None
