"""The answer of a sink to the notifier."""

from typing import NamedTuple


class SinkResult(NamedTuple):
    """The result of one attempt.

    `error` is one line, and None if it was delivered. `response_excerpt` is the beginning of the
    answer's body, in printable characters. `retry_after_s` is the wait that the receiver asked for;
    `is_gone` means that it does not want any more events. Nothing was sent if `is_disabled`,
    because the endpoint is disabled or deleted, or `is_unreadable`, because the event cannot be
    read.
    """

    error: str | None = None
    response_status: int | None = None
    response_excerpt: str | None = None
    retry_after_s: float | None = None
    is_gone: bool = False
    is_disabled: bool = False
    is_unreadable: bool = False


DISABLED = SinkResult("the endpoint is disabled", is_disabled=True)
