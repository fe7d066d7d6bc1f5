"""An event in the log: its id and its request id, never its content."""

from datetime import UTC, datetime

import orjson
import structlog

from transferd.commit.events import cloud_event
from transferd.notifications.sinks.log import LogSink
from transferd.notifications.sinks.result import SinkResult
from transferd.observability.logging import Log

TRACE = "ab" * 16
EVENT = {
    "id": "event-1",
    "type": "transfer.posted",
    "time": datetime(2030, 1, 1, tzinfo=UTC),
    "data": {"id": "transfer-1", "amount": 123_456, "metadata": {"name": "Ada"}},
}
ORIGIN = {"traceparent": f"00-{TRACE}-{'cd' * 8}-01", "request_id": "request-1"}


def test_an_event_is_one_line_without_its_content() -> None:
    event = orjson.loads(cloud_event(EVENT | ORIGIN))
    with structlog.testing.capture_logs() as lines:
        assert LogSink(Log()).deliver(event) == SinkResult()
    assert lines == [
        {
            "event": "event",
            "log_level": "info",
            "type": "transfer.posted",
            "id": "event-1",
            "request_id": "request-1",
            "trace_id": TRACE,
            "transfer_id": "event-1",
        }
    ]


def test_an_event_that_no_request_caused_has_a_line_too() -> None:
    with structlog.testing.capture_logs() as lines:
        LogSink(Log()).deliver(orjson.loads(cloud_event(EVENT)))
    [line] = lines
    assert (line["id"], line["request_id"], line["trace_id"]) == ("event-1", None, None)
