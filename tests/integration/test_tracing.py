"""A trace covers the request, the group commit and the webhook, and never delays a request."""

import asyncio
import re
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest

from tests.conftest import Database, Replicas, Workers
from tests.support.command import environment, transferd
from tests.support.endpoints import new_webhook
from tests.support.receivers import in_turn, receiving, status
from tests.support.trace_collector import Collector, Span, collecting
from tests.support.waiting import patient_s, until
from transferd.config import ConfigurationError, Limits
from transferd.observability.facts import Fact, SpansLost
from transferd.service import open_replica

QUICK = replace(Limits(), trace_export_interval_s=0.05, trace_flush_s=0.5)
TRACE = "4b" * 16
GIVEN = f"00-{TRACE}-{'0f' * 8}-01"
UNSAMPLED = f"00-{TRACE}-{'0f' * 8}-00"
UNREACHABLE = "http://127.0.0.1:9"
STAGES = ["claim", "begin", "lock and look up", "decide", "write", "commit", "refresh"]


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    """Accepts all spans."""
    async with collecting() as taking:
        yield taking


def is_inside(inner: Span, outer: Span) -> bool:
    return outer.started_ns <= inner.started_ns <= inner.ended_ns <= outer.ended_ns


async def test_one_trace_covers_the_request_and_the_webhook(
    replicas: Replicas, workers: Workers, database: Database, collector: Collector
) -> None:
    tracing: dict[str, Any] = {"tracing": "on", "tracing_endpoint": collector.url}
    api = await replicas.start(QUICK, **tracing, tracing_ratio=0.0)
    source, destination = await api.wallet(10_000), await api.wallet()
    async with receiving() as receiver:
        receiver.answer = in_turn(status(500), status(204))
        webhook = await new_webhook(database, receiver.url, "transfer.posted", wallet=destination)
        await workers.start(QUICK, **tracing, notify_retry_delays_s="0.05")
        reply = await api.post(
            "/transfers",
            {
                "source_wallet_id": source,
                "destination_wallet_id": destination,
                "amount": 7_654,
                "currency": "USD",
                "metadata": {"note": "hush-metadata"},
            },
            key="hush-key",
            headers={"traceparent": GIVEN},
        )
        assert reply.status == 201
        await until(lambda: len(receiver.received) == 2)
    id = reply.json["id"]

    request = await collector.span("POST /transfers")
    published = await collector.span("publish transfer.posted")
    first = await collector.span("deliver transfer.posted", transferd__attempt=1)
    second = await collector.span("deliver transfer.posted", transferd__attempt=2)
    group = await collector.span("group commit")

    assert (request.service, request.kind) == ("transferd", "SERVER")
    assert (request.trace, request.parent) == (TRACE, "0f" * 8)
    assert reply.headers["traceparent"] == request.traceparent
    assert request.attributes == {
        "http.request.method": "POST",
        "http.route": "/transfers",
        "http.response.status_code": 201,
        "transferd.outcome": "ok",
        "transferd.replayed": False,
        "transferd.transfer.id": id,
    }
    assert group.links == [(TRACE, request.id)]
    assert group.trace != TRACE
    assert group.attributes == {
        "transferd.group.envelopes": 1,
        "transferd.group.posted": 1,
        "transferd.group.refused": 0,
        "transferd.group.replayed": 0,
        "transferd.group.retries": 0,
    }
    assert is_inside(group, request)
    stages = [span for span in collector.spans if span.parent == group.id]
    assert [span.name for span in stages] == STAGES
    assert all(span.trace == group.trace and is_inside(span, group) for span in stages)

    assert (published.service, published.kind) == ("transferd-worker", "PRODUCER")
    for span in (published, first, second):
        assert (span.trace, span.parent) == (TRACE, request.id)
        assert span.attributes["transferd.transfer.id"] == id
    assert [first.kind, second.kind] == ["CONSUMER", "CONSUMER"]
    assert [s.attributes["transferd.result"] for s in (first, second)] == ["retrying", "delivered"]
    assert [first.is_error, second.is_error] == [True, False]
    assert first.attributes["transferd.webhook.id"] == webhook
    sent = {span.parent: span for span in collector.named("POST")}
    assert [sent[s.id].attributes["http.response.status_code"] for s in (first, second)] == [
        500,
        204,
    ]
    assert [r.headers["traceparent"] for r in receiver.received] == [
        sent[first.id].traceparent,
        sent[second.id].traceparent,
    ]
    for hush in (source, destination, "hush", receiver.url):
        assert hush not in collector.text
    # As a value: the digits alone may be part of a time.
    assert re.search(r'value: "?7654\b', collector.text) is None


async def test_a_group_links_to_each_request_that_it_served(
    replicas: Replicas, collector: Collector
) -> None:
    api = await replicas.start(QUICK, tracing="on", tracing_endpoint=collector.url)
    source, destination = await api.wallet(100), await api.wallet()
    replies = await asyncio.gather(*(api.transfer(source, destination, 40) for _ in range(12)))
    assert sorted(reply.status for reply in replies) == [201] * 2 + [422] * 10
    await until(lambda: len(collector.named("POST /transfers")) == 12)
    requests = {(s.trace, s.id): s for s in collector.named("POST /transfers")}

    def linked() -> list[tuple[str, str]]:
        links = [link for group in collector.named("group commit") for link in group.links]
        return sorted(link for link in links if link in requests)

    await until(lambda: len(linked()) == 12)
    assert linked() == sorted(requests)
    assert len({trace for trace, _ in requests}) == 12
    outcomes = sorted(s.attributes["transferd.outcome"] for s in requests.values())
    assert outcomes == ["insufficient-funds"] * 10 + ["ok"] * 2
    # A refusal is not an error.
    assert not any(span.is_error for span in requests.values())


async def test_the_caller_or_else_the_ratio_decides_about_sampling(
    replicas: Replicas, collector: Collector
) -> None:
    api = await replicas.start(
        QUICK, tracing="on", tracing_endpoint=f"{collector.url}/", tracing_ratio=0.0
    )
    unsampled = await api.get("/currencies", {"traceparent": UNSAMPLED})
    assert unsampled.headers["traceparent"].startswith(f"00-{TRACE}-")
    assert unsampled.headers["traceparent"].endswith("-00")
    assert unsampled.headers["traceparent"] != UNSAMPLED
    assert (await api.get("/currencies")).headers["traceparent"].endswith("-00")
    assert (await api.get("/healthz", {"traceparent": GIVEN})).status == 200
    sampled = await api.get("/currencies", {"traceparent": GIVEN})
    span = await collector.span("GET /currencies")
    assert collector.spans == [span]
    assert sampled.headers["traceparent"] == span.traceparent


async def test_waiting_spans_are_sent_at_the_stop(database: Database, collector: Collector) -> None:
    limits = replace(Limits(), trace_export_interval_s=60.0)
    async with AsyncExitStack() as exits:
        api = await Replicas(database, exits).start(
            limits, tracing="on", tracing_endpoint=collector.url
        )
        assert (await api.get("/currencies")).status == 200
        assert collector.spans == []
    assert [span.name for span in collector.spans] == ["GET /currencies"]


async def test_without_the_collector_spans_are_lost_and_requests_are_not(
    database: Database, replicas: Replicas
) -> None:
    limits = replace(
        QUICK,
        trace_queue_spans_max=4,
        trace_batch_spans_max=4,
        trace_export_timeout_s=0.1,
        trace_flush_s=0.05,
    )
    api = await replicas.start(limits, tracing="on", tracing_endpoint=UNREACHABLE)
    facts: list[Fact] = []
    replicas.opened[0].context.facts.add_hook(facts.append)
    source, destination = await api.wallet(100), await api.wallet()
    replies = [await api.transfer(source, destination, 1) for _ in range(20)]
    assert [reply.status for reply in replies] == [201] * 20

    def lost() -> int:
        return sum(fact.spans for fact in facts if isinstance(fact, SpansLost))

    # Spans that find the queue full are counted.
    await until(lambda: lost() > 8)
    metrics = (await api.get("/metrics")).body.decode()
    assert "transferd_spans_lost_total" in metrics


async def test_an_unreachable_collector_does_not_delay_the_stop(database: Database) -> None:
    # Longer than the timeout of the test.
    limits = replace(QUICK, trace_flush_s=0.1, trace_export_timeout_s=patient_s(60.0))
    settings = database.settings(tracing="on", tracing_endpoint=UNREACHABLE)
    async with open_replica(settings, limits, drain_linger_s=0.0) as replica:
        assert replica.context.facts.begin is not None
        replica.context.facts.begin(None)
        began = time.monotonic()
    assert time.monotonic() - began < limits.trace_export_timeout_s


_SERVED_ONCE = """
import asyncio, sys
{before}
import aiohttp
from transferd import cli, worker
from transferd.config import Limits, Settings
from transferd.service import open_replica

async def serve():
    async with open_replica(Settings(), Limits(), drain_linger_s=0.0) as replica:
        async with aiohttp.ClientSession() as session:
            async with session.get(replica.url + "/currencies") as reply:
                assert reply.status == 200

asyncio.run(serve())
# The client of Redis imports the metrics of OpenTelemetry if it is installed.
ours = ("opentelemetry.sdk.trace", "opentelemetry.exporter", "opentelemetry.proto")
assert not [name for name in sys.modules if name.startswith(ours)]
assert "transferd.observability.tracing" not in sys.modules
"""


@pytest.mark.parametrize(
    "before", ["", "sys.modules['opentelemetry'] = None"], ids=["installed", "not installed"]
)
async def test_without_tracing_no_package_for_it_is_imported(
    database: Database, before: str
) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _SERVED_ONCE.format(before=before)),
        env=environment(database.variables()),
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    assert process.returncode == 0, said.decode()


async def test_missing_packages_for_tracing_are_one_line(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("opentelemetry")]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "transferd.observability.tracing", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ConfigurationError) as caught:
        async with open_replica(database.settings(tracing="on"), Limits()):
            pass
    assert str(caught.value) == (
        "TRANSFERD_TRACING=on needs OpenTelemetry: pip install 'transferd[tracing]'"
    )


async def test_invalid_settings_of_tracing_are_refused() -> None:
    finished = await transferd("serve", tracing="on", tracing_ratio="2", tracing_endpoint="ftp://x")
    assert "TRANSFERD_TRACING_RATIO" in finished.complaint
    assert "TRANSFERD_TRACING_ENDPOINT" in finished.complaint
