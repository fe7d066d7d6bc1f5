"""Facts -> spans of OpenTelemetry: one trace contains a request and its webhook deliveries.

No span stays open while the work runs: a fact carries the start and the end of its span. Only ids
that other spans or headers refer to are made in advance. A thread sends the spans from a queue, so
a slow or unreachable collector loses spans and delays no request.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Self

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Decision, TraceIdRatioBased
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

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
)
from transferd.observability.span_exporter import CountingExporter
from transferd.observability.traceparent import (
    is_sampled,
    is_traceparent,
    new_trace_id,
    traceparent_of,
)

Attributes = dict[str, str | int | bool]

_NS = 1_000_000_000
# A larger change of the offset between the two clocks means that the time of day was set.
_CLOCK_SET_NS = _NS // 10
_ROOT = Context()
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)


class Tracing:
    """A hook for `Facts`. Opens with `async with`; at the end it sends the waiting spans.

    `service` is the name in the traces, `ratio` the share of new traces to record. `endpoint` is
    the address of the collector; without it OpenTelemetry's own variables apply. `clock` is the
    clock of the facts, in seconds; `emit` takes facts about tracing itself.
    """

    def __init__(
        self,
        *,
        service: str,
        ratio: float,
        endpoint: str | None,
        limits: Limits,
        clock: Callable[[], float],
        emit: Hook,
        exporter: SpanExporter | None = None,
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._epoch_ns = self._measured_epoch_ns()
        self._sampler = TraceIdRatioBased(ratio)
        self._exporter = CountingExporter(
            exporter
            or OTLPSpanExporter(
                endpoint and f"{endpoint.rstrip('/')}/v1/traces",
                timeout=limits.trace_export_timeout_s,
            ),
            limits.trace_queue_spans_max,
            emit,
        )
        self._ids = _Ids()
        self._provider = TracerProvider(
            # `begin` does the sampling: spans are made for sampled requests only.
            sampler=ALWAYS_ON,
            # Merged second, so that OTEL_SERVICE_NAME overrides the name given here.
            resource=Resource.create(
                {"service.name": service, "service.version": __version__}
            ).merge(OTELResourceDetector().detect()),
            # Otherwise the exit of the process waits for the collector.
            shutdown_on_exit=False,
            id_generator=self._ids,
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(
                self._exporter,
                max_queue_size=limits.trace_queue_spans_max,
                schedule_delay_millis=limits.trace_export_interval_s * 1000,
                max_export_batch_size=limits.trace_batch_spans_max,
            )
        )
        self._tracer = self._provider.get_tracer("transferd", __version__)

    def __repr__(self) -> str:
        return f"<Tracing, {self._exporter.waiting} spans wait>"

    async def __aenter__(self) -> Self:
        self._exporter.loop = asyncio.get_running_loop()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Send the waiting spans, within `trace_flush_s`."""
        loop, sent = asyncio.get_running_loop(), asyncio.Event()

        def send() -> None:
            self.close()
            with suppress(RuntimeError):  # it took too long, and the loop is closed
                loop.call_soon_threadsafe(sent.set)

        # The exit of the process waits for threads of the loop's executor, but not for a daemon.
        threading.Thread(target=send, name="trace-flush", daemon=True).start()
        try:
            async with asyncio.timeout(self._limits.trace_flush_s):
                await sent.wait()
        except TimeoutError:
            self._exporter.shutdown()

    def close(self) -> None:
        """Send the waiting spans. Later spans are discarded. Blocks the caller."""
        self._provider.shutdown()

    def begin(self, parent: str | None) -> str:
        """The traceparent of a new span in the parent's trace, sampled if the parent is.

        Without a valid parent it begins a trace, sampled by the ratio.
        """
        if parent is not None and is_traceparent(parent):
            return traceparent_of(parent[3:35], sampled=is_sampled(parent))
        trace = new_trace_id()
        decision = self._sampler.should_sample(None, int(trace, 16), "").decision
        return traceparent_of(trace, sampled=decision is Decision.RECORD_AND_SAMPLE)

    def __call__(self, fact: Fact) -> None:
        """Record the spans of a fact."""
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
        details = fact.details
        if (
            details is None
            or fact.route in UNTRACED_ROUTES
            or not self._is_wanted(details.about, 1)
        ):
            return
        failed = fact.status >= 500
        self._span(
            f"{fact.method} {fact.route}",
            _context(details.parent),
            (details.started, details.started + fact.duration_s),
            traceparent=details.about.traceparent,
            kind=SpanKind.SERVER,
            attributes={
                "http.request.method": "_OTHER" if fact.method == "other" else fact.method,
                "http.route": fact.route,
                "http.response.status_code": fact.status,
                "transferd.outcome": details.code,
                "transferd.replayed": details.is_replay,
                **({"error.type": details.code} if failed else {}),
                **_transfer(details.about),
            },
            error=details.code if failed else None,
        )

    def _group(self, fact: GroupTraced) -> None:
        """A group serves many requests, so it gets its own trace, with links to theirs."""
        sampled = [request for request in fact.requests if is_sampled(request)]
        # A group is recorded if one of its requests is. The ratio does not apply to groups.
        if not sampled or not self._exporter.admit(1 + len(fact.stages)):
            return
        group = self._span(
            "group commit",
            _ROOT,
            (fact.stages[0].started, fact.stages[-1].ended),
            attributes={
                "transferd.group.envelopes": len(fact.requests),
                "transferd.group.posted": fact.posted,
                "transferd.group.refused": fact.refused,
                "transferd.group.replayed": fact.replayed,
                "transferd.group.retries": fact.retries,
            },
            links=[Link(_span_context(each)) for each in sampled[: self._limits.trace_links_max]],
        )
        for stage in fact.stages:
            self._span(stage.name, group, (stage.started, stage.ended))

    def _published(self, fact: EventsPublished) -> None:
        for event_type, about in fact.events:
            if not is_traceparent(about.traceparent) or not self._is_wanted(about, 1):
                continue
            self._span(
                f"publish {event_type}",
                _context(about.traceparent),
                (fact.started, fact.ended),
                kind=SpanKind.PRODUCER,
                attributes={
                    "messaging.system": "rabbitmq",
                    "messaging.operation.name": "publish",
                    "messaging.operation.type": "send",
                    "transferd.event.type": event_type,
                    **_transfer(about),
                },
            )

    def _delivery(self, fact: NotificationFinished) -> None:
        sent = fact.sent
        if sent is None or sent.delivery is None or not is_sampled(sent.delivery):
            return
        if not self._exporter.admit(2):
            return
        delivery = self._span(
            f"deliver {sent.event_type}",
            _context(fact.about.traceparent),
            (sent.started, self._clock()),
            traceparent=sent.delivery,
            kind=SpanKind.CONSUMER,
            attributes={
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
            delivery,
            (sent.started, sent.ended),
            traceparent=sent.request,
            kind=SpanKind.CLIENT,
            attributes={
                "http.request.method": "POST",
                "http.request.resend_count": fact.attempt - 1,
                **({} if sent.status is None else {"http.response.status_code": sent.status}),
            },
            error=fact.error,
        )

    def _is_wanted(self, about: About, spans: int) -> bool:
        """Whether the trace is recorded; then also reserves places for its spans."""
        traceparent = about.traceparent
        return traceparent is not None and is_sampled(traceparent) and self._exporter.admit(spans)

    def _measured_epoch_ns(self) -> int:
        """The time of day at which `clock` was zero."""
        return time.time_ns() - int(self._clock() * _NS)

    def _span(
        self,
        name: str,
        parent: Context,
        times: tuple[float, float],
        *,
        traceparent: str | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes | None = None,
        links: Sequence[Link] = (),
        error: str | None = None,
    ) -> Context:
        """Record a span with its start and end, and the ids of `traceparent` or new ones.

        Returns the context for spans below it.
        """
        # With one offset for all spans, each stays inside its parent. The offset is replaced only
        # when the time of day was set.
        if abs((epoch_ns := self._measured_epoch_ns()) - self._epoch_ns) > _CLOCK_SET_NS:
            self._epoch_ns = epoch_ns
        started, ended = (self._epoch_ns + int(each * _NS) for each in times)
        self._ids.given = traceparent
        span = self._tracer.start_span(name, parent, kind, attributes, links, started)
        if error is not None:
            span.set_status(Status(StatusCode.ERROR, error))
        span.end(ended)
        return set_span_in_context(span, parent)


class _Ids(RandomIdGenerator):
    """Ids for the next span: from the traceparent `given`, or random without one."""

    def __init__(self) -> None:
        self.given: str | None = None

    def generate_trace_id(self) -> int:
        return super().generate_trace_id() if self.given is None else int(self.given[3:35], 16)

    def generate_span_id(self) -> int:
        return super().generate_span_id() if self.given is None else int(self.given[36:52], 16)


def _context(parent: str | None) -> Context:
    """The context for children of the span `parent`; a root without a valid traceparent."""
    if parent is None or not is_traceparent(parent):
        return _ROOT
    return set_span_in_context(NonRecordingSpan(_span_context(parent)), _ROOT)


def _span_context(traceparent: str) -> SpanContext:
    # OpenTelemetry's propagator takes 8 us, and a group has up to 128 links.
    trace, span = int(traceparent[3:35], 16), int(traceparent[36:52], 16)
    return SpanContext(trace, span, is_remote=True, trace_flags=_SAMPLED)


def _transfer(about: About) -> Attributes:
    return {} if about.transfer_id is None else {"transferd.transfer.id": about.transfer_id}
