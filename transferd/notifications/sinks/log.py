"""Events as lines of the log."""

from collections.abc import Mapping
from typing import Any

from transferd.notifications.sinks.result import SinkResult
from transferd.observability.facts import About
from transferd.observability.logging import Log, ids_of


def about(event: Mapping[str, Any]) -> About:
    """The request that caused a CloudEvent. The event of a transfer has the transfer's id."""
    is_transfer = event["type"].startswith("transfer.")
    return About(
        event.get("requestid"), event.get("traceparent"), event["id"] if is_transfer else None
    )


class LogSink:
    """Writes the ids of an event and of its request, never its content."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def __repr__(self) -> str:
        return "<LogSink>"

    def deliver(self, event: Mapping[str, Any]) -> SinkResult:
        """A line for a CloudEvent."""
        self._log.say("event", type=event["type"], id=event["id"], **ids_of(about(event)))
        return SinkResult()
