"""Spans made of facts, and trace ids."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import asyncpg
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from transferd.ledger.store.errors import Duplicate, translated
from transferd.limits import Limits
from transferd.observability.facts import (
    About,
    Fact,
    GroupTraced,
    RequestDetails,
    RequestFinished,
    Stage,
)
from transferd.observability.traceparent import is_sampled, is_traceparent, new_traceparent
from transferd.observability.tracing import Tracing

LIMITS = replace(Limits(), trace_links_max=2)
SAMPLED = f"00-{'ab' * 16}-{'cd' * 8}-01"


@contextmanager
def exported(*facts: Fact, ratio: float = 1.0) -> Iterator[tuple[Tracing, InMemorySpanExporter]]:
    """The spans that these facts have become."""
    exporter = InMemorySpanExporter()
    tracing = Tracing(
        service="transferd",
        ratio=ratio,
        endpoint=None,
        limits=LIMITS,
        clock=lambda: 1_000.0,
        emit=lambda fact: None,
        exporter=exporter,
    )
    for fact in facts:
        tracing(fact)
    tracing.close()
    yield tracing, exporter


def request(traceparent: str, status: int = 201, code: str = "ok") -> RequestFinished:
    details = RequestDetails(About("request-1", traceparent), 900.0, None, code, is_replay=False)
    return RequestFinished("POST", "/transfers", status, 0.25, details)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "odd",
        f"ff-{'ab' * 16}-{'cd' * 8}-01",
        f"00-{'00' * 16}-{'cd' * 8}-01",
        f"00-{'ab' * 16}-{'00' * 8}-01",
        f"00-{'AB' * 16}-{'cd' * 8}-01",
        f"{SAMPLED}-more",
    ],
)
def test_an_invalid_traceparent_is_no_trace(text: str) -> None:
    assert not is_traceparent(text)


def test_a_generated_trace_is_not_sampled() -> None:
    assert is_traceparent(new_traceparent())
    assert not is_sampled(new_traceparent())


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_a_parent_decides_and_else_the_ratio(ratio: float) -> None:
    with exported(ratio=ratio) as (tracing, _):
        child = tracing.begin(SAMPLED)
        assert (child[:36], child[-2:]) == (SAMPLED[:36], "01")
        assert child != SAMPLED
        assert not is_sampled(tracing.begin(f"{SAMPLED[:-2]}00"))
        for nothing in (None, "", "odd"):
            own = tracing.begin(nothing)
            assert is_traceparent(own)
            assert is_sampled(own) == bool(ratio)


@pytest.mark.parametrize(
    ("status", "code", "is_error"),
    [(201, "ok", False), (422, "insufficient-funds", False), (503, "overloaded", True)],
)
def test_only_failures_are_errors(status: int, code: str, is_error: bool) -> None:
    with exported(request(SAMPLED, status, code)) as (_, exporter):
        [span] = exporter.get_finished_spans()
    assert span.attributes is not None
    assert span.attributes["transferd.outcome"] == code
    assert span.attributes.get("error.type") == (code if is_error else None)
    assert span.status.is_ok is not is_error


def test_a_group_links_to_no_more_requests_than_its_limit() -> None:
    requests = [SAMPLED.replace("cd", f"c{n}") for n in range(4)] + [f"{SAMPLED[:-2]}00"]
    group = GroupTraced(requests, 5, 0, 0, 0, [Stage("claim", 1.0, 2.0)])
    with exported(group) as (_, exporter):
        by_name = {span.name: span for span in exporter.get_finished_spans()}
    assert len(by_name["group commit"].links) == LIMITS.trace_links_max
    attributes = by_name["group commit"].attributes
    assert attributes is not None
    assert attributes["transferd.group.envelopes"] == 5


def test_a_group_without_a_sampled_request_has_no_span() -> None:
    group = GroupTraced([f"{SAMPLED[:-2]}00"], 1, 0, 0, 0, [Stage("claim", 1.0, 2.0)])
    with exported(group) as (_, exporter):
        assert exporter.get_finished_spans() == ()


def test_an_error_of_the_store_does_not_quote_the_row() -> None:
    error = asyncpg.PostgresError.new(
        {"C": "23505", "M": "duplicate key value", "D": "Key (key)=(hush) already exists."}
    )
    assert "hush" in str(error)
    with pytest.raises(Duplicate) as caught, translated():
        raise error
    assert str(caught.value) == "duplicate key value"
