"""Facts -> spans of OpenTelemetry: one trace from a request to the webhooks that hear of it.

Nothing is kept open while something happens: a fact says how a span began and ended, and only the
ids are made before, because others refer to them. Spans wait in a queue for a thread that sends
them, so a collector that is slow or away costs spans and never a request.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Self

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from transferd import __version__
from transferd.limits import Limits
from transferd.observability.facts import (
    UNTRACED_ROUTES,
    About,
    EventsPublished,
    Fact,
    GroupTraced,
    Hook,
    NotificationFinished,
    RequestFinished,
    SpansLost,
)
from transferd.observability.telling import TracingOptions
from transferd.observability.traceparent import (
    is_sampled,
    is_traceparent,
    new_trace_id,
    traceparent_of,
)

Attributes = dict[str, str | int | bool]

_SCOPE = InstrumentationScope("transferd", __version__)
_NS = 1_000_000_000
# More than this is no jitter of two readings.
_SET_NS = _NS // 10


class Tracing:
    """A hook for `Facts`. Opens with `async with`; at the end it sends what waits.

    `clock` gives seconds, in the same measure as the times of facts; `emit` takes facts about
    tracing itself.
    """

    def __init__(
        self,
        options: TracingOptions,
        limits: Limits,
        clock: Callable[[], float],
        emit: Hook,
        exporter: SpanExporter | None = None,
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._epoch_ns = self._measured_ns()
        self._bound = TraceIdRatioBased.get_bound_for_rate(options.ratio)
        # What the standard variables say of the resource counts more than our own name.
        self._resource = Resource.create(
            {"service.name": options.service, "service.version": __version__}
        ).merge(OTELResourceDetector().detect())
        endpoint = options.endpoint
        self._exporter = _Counted(
            exporter
            or OTLPSpanExporter(
                endpoint and f"{endpoint.rstrip('/')}/v1/traces",
                timeout=limits.trace_export_timeout_s,
            ),
            limits.trace_queue_spans_max,
            emit,
        )
        self._processor = BatchSpanProcessor(
            self._exporter,
            max_queue_size=limits.trace_queue_spans_max,
            schedule_delay_millis=limits.trace_export_interval_s * 1000,
            max_export_batch_size=limits.trace_batch_spans_max,
        )

    def __repr__(self) -> str:
        return f"<Tracing, {self._exporter.waiting} spans wait>"

    async def __aenter__(self) -> Self:
        self._exporter.loop = asyncio.get_running_loop()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Send what waits, for as long as a drain may take for it."""
        loop, sent = asyncio.get_running_loop(), asyncio.Event()

        def send() -> None:
            self.close()
            with suppress(RuntimeError):  # it took too long, and the loop is closed
                loop.call_soon_threadsafe(sent.set)

        # A thread that the end of the process does not wait for, unlike those of the loop.
        threading.Thread(target=send, name="trace-flush", daemon=True).start()
        try:
            async with asyncio.timeout(self._limits.trace_flush_s):
                await sent.wait()
        except TimeoutError:
            self._exporter.shutdown()

    def close(self) -> None:
        """Send what waits, and nothing after that; whoever calls waits for it."""
        self._processor.shutdown()  # type: ignore[no-untyped-call]

    def begin(self, parent: str | None) -> str:
        """The traceparent of a new span: of the parent's trace, and sampled if that is."""
        if parent is not None and is_traceparent(parent):
            return traceparent_of(int(parent[3:35], 16), sampled=is_sampled(parent))
        trace = new_trace_id()
        return traceparent_of(trace, sampled=trace & TraceIdRatioBased.TRACE_ID_LIMIT < self._bound)

    def __call__(self, fact: Fact) -> None:
        """Take a fact."""
        match fact:
            case RequestFinished():
                self._request(fact)
            case GroupTraced():
                self._group(fact)
            case EventsPublished():
                self._published(fact)
            case NotificationFinished():
                self._delivery(fact)
            case _:
                pass

    def _request(self, fact: RequestFinished) -> None:
        asked = fact.asked
        if asked is None or fact.route in UNTRACED_ROUTES:
            return
        attributes: Attributes = {
            "http.request.method": "_OTHER" if fact.method == "other" else fact.method,
            "http.route": fact.route,
            "http.response.status_code": fact.status,
            "transferd.outcome": asked.code,
            "transferd.replayed": asked.is_replay,
        }
        failed = fact.status >= 500
        if failed:
            attributes["error.type"] = asked.code
        self._span(
            f"{fact.method} {fact.route}",
            asked.about.traceparent,
            asked.parent,
            SpanKind.SERVER,
            (asked.started, asked.started + fact.duration_s),
            attributes | _transfer(asked.about),
            error=asked.code if failed else None,
        )

    def _group(self, fact: GroupTraced) -> None:
        """A trace of its own, because it serves many: links lead to the requests."""
        sampled = [request for request in fact.requests if is_sampled(request)]
        if not sampled:
            return
        # Recorded because one of those is, whatever the ratio.
        group = traceparent_of(new_trace_id(), sampled=True)
        self._span(
            "group commit",
            group,
            None,
            SpanKind.INTERNAL,
            (fact.stages[0].started, fact.stages[-1].ended),
            {
                "transferd.group.envelopes": len(fact.requests),
                "transferd.group.posted": fact.posted,
                "transferd.group.refused": fact.refused,
                "transferd.group.replayed": fact.replayed,
                "transferd.group.retries": fact.retries,
            },
            links=[Link(_context(each)) for each in sampled[: self._limits.trace_links_max]],
        )
        for stage in fact.stages:
            times = (stage.started, stage.ended)
            self._span(stage.name, self.begin(group), group, SpanKind.INTERNAL, times, {})

    def _published(self, fact: EventsPublished) -> None:
        for event_type, about in fact.events:
            if about.traceparent is None or not is_traceparent(about.traceparent):
                continue
            self._span(
                f"publish {event_type}",
                self.begin(about.traceparent),
                about.traceparent,
                SpanKind.PRODUCER,
                (fact.started, fact.ended),
                {
                    "messaging.system": "rabbitmq",
                    "messaging.operation.name": "publish",
                    "messaging.operation.type": "send",
                    "transferd.event.type": event_type,
                    **_transfer(about),
                },
            )

    def _delivery(self, fact: NotificationFinished) -> None:
        sent = fact.sent
        if sent is None:
            return
        status: Attributes = (
            {} if sent.status is None else {"http.response.status_code": sent.status}
        )
        self._span(
            f"deliver {sent.event_type}",
            sent.delivery,
            fact.about.traceparent,
            SpanKind.CONSUMER,
            (sent.started, self._clock()),
            {
                "messaging.system": "rabbitmq",
                "messaging.operation.name": "deliver",
                "messaging.operation.type": "process",
                "transferd.event.type": sent.event_type,
                "transferd.webhook.id": fact.endpoint_id,
                "transferd.attempt": fact.attempt,
                "transferd.result": fact.result,
                **_transfer(fact.about),
            },
            error=fact.error,
        )
        # Without the address: clients put tokens into the URLs of their webhooks.
        self._span(
            "POST",
            sent.request,
            sent.delivery,
            SpanKind.CLIENT,
            (sent.started, sent.ended),
            {
                "http.request.method": "POST",
                "http.request.resend_count": fact.attempt - 1,
                **status,
            },
            error=fact.error,
        )

    def _measured_ns(self) -> int:
        """The time of day at which our clock was zero."""
        return time.time_ns() - int(self._clock() * _NS)

    def _span(  # noqa: PLR0917 what every span has
        self,
        name: str,
        traceparent: str | None,
        parent: str | None,
        kind: SpanKind,
        times: tuple[float, float],
        attributes: Mapping[str, str | int | bool],
        *,
        links: Sequence[Link] = (),
        error: str | None = None,
    ) -> None:
        if traceparent is None or not is_sampled(traceparent) or not self._exporter.has_room():
            return
        # One offset for all, or else spans would stick out of those around them; but the time of
        # day may be set while we run.
        if abs((epoch_ns := self._measured_ns()) - self._epoch_ns) > _SET_NS:
            self._epoch_ns = epoch_ns
        self._processor.on_end(
            ReadableSpan(
                name,
                _context(traceparent),
                _context(parent) if parent is not None and is_traceparent(parent) else None,
                self._resource,
                attributes,
                links=links,
                kind=kind,
                status=Status() if error is None else Status(StatusCode.ERROR, error),
                start_time=self._epoch_ns + int(times[0] * _NS),
                end_time=self._epoch_ns + int(times[1] * _NS),
                instrumentation_scope=_SCOPE,
            )
        )


class _Counted(SpanExporter):
    """Another exporter, whose losses are told, and whose queue does not push out what waits.

    Spans are counted in by the loop and counted out by the thread that exports, so neither needs a
    lock.
    """

    def __init__(self, exporter: SpanExporter, spans_max: int, emit: Hook) -> None:
        self._exporter = exporter
        self._spans_max = spans_max
        self._emit = emit
        self.loop: asyncio.AbstractEventLoop | None = None
        self._come = 0
        self._gone = 0
        self._turned_away = 0
        self._told = 0

    @property
    def waiting(self) -> int:
        """Spans that were not sent yet."""
        return self._come - self._gone

    def has_room(self) -> bool:
        """Whether another span may wait; then it does."""
        if self.waiting >= self._spans_max:
            self._turned_away += 1
            return False
        self._come += 1
        return True

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send, in the background."""
        result = self._exporter.export(spans)
        self._gone += len(spans)
        lost = 0 if result is SpanExportResult.SUCCESS else len(spans)
        turned_away = self._turned_away
        lost += turned_away - self._told
        self._told = turned_away
        if lost and self.loop is not None:
            with suppress(RuntimeError):  # the loop is closed, so nobody is left to hear it
                self.loop.call_soon_threadsafe(self._emit, SpansLost(lost))
        return result

    def shutdown(self) -> None:
        """Give up what is being sent."""
        self._exporter.shutdown()


def _context(traceparent: str) -> SpanContext:
    return SpanContext(
        int(traceparent[3:35], 16),
        int(traceparent[36:52], 16),
        is_remote=False,
        trace_flags=TraceFlags(int(traceparent[-2:], 16)),
    )


def _transfer(about: About) -> Attributes:
    return {} if about.transfer_id is None else {"transferd.transfer.id": about.transfer_id}
