"""Exports spans to the collector from a bounded queue, and counts lost spans."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from transferd.observability.facts import Hook, SpansLost


class CountingExporter(SpanExporter):
    """Limits the queue of another exporter: a span that does not fit is counted as lost.

    BatchSpanProcessor alone would discard the oldest span and count none. Each counter is changed
    by one thread only, the event loop's or the exporting one, so no lock is needed.
    """

    def __init__(self, exporter: SpanExporter, spans_max: int, emit: Hook) -> None:
        self._exporter = exporter
        self._spans_max = spans_max
        self._emit = emit
        self.loop: asyncio.AbstractEventLoop | None = None
        self._admitted = 0
        self._exported = 0
        self._dropped = 0
        self._dropped_emitted = 0

    @property
    def waiting(self) -> int:
        """Spans that are not sent yet."""
        return self._admitted - self._exported

    def admit(self, spans: int) -> bool:
        """Reserve places in the queue; False, and the spans are lost, if it has too few."""
        if self.waiting + spans > self._spans_max:
            self._dropped += spans
            return False
        self._admitted += spans
        return True

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send, in the exporting thread."""
        result = self._exporter.export(spans)
        self._exported += len(spans)
        lost = 0 if result is SpanExportResult.SUCCESS else len(spans)
        dropped = self._dropped
        lost += dropped - self._dropped_emitted
        self._dropped_emitted = dropped
        if lost and self.loop is not None:
            with suppress(RuntimeError):  # the loop is closed, and its hooks with it
                self.loop.call_soon_threadsafe(self._emit, SpansLost(lost))
        return result

    def shutdown(self) -> None:
        """Abandon the batch that is being sent."""
        self._exporter.shutdown()
