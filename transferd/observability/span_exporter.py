"""The way of spans to the collector: bounded, and the losses are counted."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from transferd.observability.facts import Hook, SpansLost


class CountingExporter(SpanExporter):
    """Another exporter behind a bounded queue: a span that does not fit is counted as lost.

    BatchSpanProcessor would discard the oldest span instead, and count none. The loop counts spans
    in and the exporting thread counts them out, so neither needs a lock.
    """

    def __init__(self, exporter: SpanExporter, spans_max: int, emit: Hook) -> None:
        self._exporter = exporter
        self._spans_max = spans_max
        self._emit = emit
        self.loop: asyncio.AbstractEventLoop | None = None
        self._admitted = 0
        self._exported = 0
        self._turned_away = 0
        self._turned_away_emitted = 0

    @property
    def waiting(self) -> int:
        """Spans that were not sent yet."""
        return self._admitted - self._exported

    def admit(self, spans: int) -> bool:
        """Whether the queue has places for so many spans; then they are taken."""
        if self.waiting + spans > self._spans_max:
            self._turned_away += spans
            return False
        self._admitted += spans
        return True

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send, in the exporting thread."""
        result = self._exporter.export(spans)
        self._exported += len(spans)
        lost = 0 if result is SpanExportResult.SUCCESS else len(spans)
        turned_away = self._turned_away
        lost += turned_away - self._turned_away_emitted
        self._turned_away_emitted = turned_away
        if lost and self.loop is not None:
            with suppress(RuntimeError):  # the loop is closed, and its hooks with it
                self.loop.call_soon_threadsafe(self._emit, SpansLost(lost))
        return result

    def shutdown(self) -> None:
        """Give up the batch that is being sent."""
        self._exporter.shutdown()
