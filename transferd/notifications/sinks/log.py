"""Events as lines of the log."""

from collections.abc import Mapping
from typing import Any

from transferd.notifications.sinks.result import SinkResult
from transferd.observability.facts import About
from transferd.observability.logging import Log, ids_of


def about(event: Mapping[str, Any]) -> About:
    """Whose request a CloudEvent came from. The event of a transfer has the transfer's id."""
    is_transfer = event["type"].startswith("transfer.")
    return About(
        event.get("requestid"), event.get("traceparent"), event["id"] if is_transfer else None
    )


class LogSink:
    """Writes which event there was, and whose request it came from; never what is in it."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def __repr__(self) -> str:
        return "<LogSink>"

    def deliver(self, event: Mapping[str, Any]) -> SinkResult:
        """A line for a CloudEvent."""
        self._log.say("event", type=event["type"], id=event["id"], **ids_of(about(event)))
        return SinkResult()
