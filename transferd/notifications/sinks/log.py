"""Events as lines of the log."""

from collections.abc import Mapping
from typing import Any

from transferd.notifications.sinks.result import SinkResult
from transferd.observability.logging import Log


class LogSink:
    """Writes which event there was, and whose request it came from; never what is in it."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def __repr__(self) -> str:
        return "<LogSink>"

    def deliver(self, event: Mapping[str, Any]) -> SinkResult:
        """A line for a CloudEvent."""
        # version-traceid-parentid-flags; others may publish events too, with anything in its place.
        trace = (event.get("traceparent") or "").split("-")
        self._log.say(
            "event",
            type=event["type"],
            id=event["id"],
            request_id=event.get("requestid"),
            trace_id=trace[1] if len(trace) > 1 else None,
        )
        return SinkResult()
