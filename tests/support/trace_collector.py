"""A collector of traces (OTLP over HTTP) that records the received spans."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1 import trace_pb2

from tests.support.serving import serving
from tests.support.waiting import until


@dataclass(frozen=True)
class Span:
    """One span. Ids are in hex; `links` are pairs of trace id and span id."""

    service: str
    name: str
    kind: str
    trace: str
    id: str
    parent: str
    started_ns: int
    ended_ns: int
    attributes: dict[str, Any]
    links: list[tuple[str, str]]
    is_error: bool

    @property
    def traceparent(self) -> str:
        """The `traceparent` of this span, sampled."""
        return f"00-{self.trace}-{self.id}-01"


@dataclass
class Collector:
    """`spans` are in the order of arrival; `text` is all received messages."""

    url: str = ""
    spans: list[Span] = field(default_factory=list)
    text: str = ""

    def named(self, name: str) -> list[Span]:
        """The spans with this name."""
        return [span for span in self.spans if span.name == name]

    async def span(self, name: str, **attributes: object) -> Span:
        """Wait for the one span with this name and these attributes (`__` stands for a dot)."""
        wanted = {key.replace("__", "."): value for key, value in attributes.items()}

        def found() -> list[Span]:
            return [s for s in self.named(name) if wanted.items() <= s.attributes.items()]

        await until(lambda: bool(found()))
        [span] = found()
        return span

    async def take(self, request: web.Request) -> web.Response:
        """Handle an export of spans."""
        assert request.headers["Content-Type"] == "application/x-protobuf"
        message = ExportTraceServiceRequest.FromString(await request.read())
        self.text += str(message)
        for resource in message.resource_spans:
            service = {each.key: each.value for each in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += [
                    _span(service["service.name"].string_value, span) for span in scope.spans
                ]
        return web.Response(content_type="application/x-protobuf")


def _span(service: str, span: trace_pb2.Span) -> Span:
    return Span(
        service=service,
        name=span.name,
        kind=trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        started_ns=span.start_time_unix_nano,
        ended_ns=span.end_time_unix_nano,
        attributes={each.key: _value(each.value) for each in span.attributes},
        links=[(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
        is_error=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
    )


def _value(value: AnyValue) -> Any:
    return getattr(value, value.WhichOneof("value") or "string_value")


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    """A collector on a free port of loopback."""
    collector = Collector()
    application = web.Application()
    application.router.add_post("/v1/traces", collector.take)
    async with serving(application) as collector.url:
        yield collector
