"""What the sinks answer the notifier."""

from typing import NamedTuple


class SinkResult(NamedTuple):
    """What became of one attempt.

    `error` is one line, and None if it was delivered. `response_excerpt` is the beginning of the
    answer's body, in printable characters. `retry_after_s` is what the receiver asked for, and
    `is_gone` tells that it wants nothing any more. Nothing was sent if `is_disabled`, because the
    endpoint is, or `is_unreadable`, because the event cannot be read.
    """

    error: str | None = None
    response_status: int | None = None
    response_excerpt: str | None = None
    retry_after_s: float | None = None
    is_gone: bool = False
    is_disabled: bool = False
    is_unreadable: bool = False


DELETED = SinkResult("the webhook was deleted")
DISABLED = SinkResult("the endpoint is disabled", is_disabled=True)
