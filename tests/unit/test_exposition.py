"""The formats of `/metrics`, and its exemplars."""

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from transferd.observability.exposition import prefers_openmetrics
from transferd.observability.facts import (
    About,
    GroupCommitted,
    NotificationFinished,
    RequestDetails,
    RequestFinished,
    Sent,
    WalletRead,
)
from transferd.observability.metrics import Metrics

TRACE = "4b" * 16
SAMPLED = f"00-{TRACE}-{'0f' * 8}-01"
UNSAMPLED = f"00-{TRACE}-{'0f' * 8}-00"
OPENMETRICS = "application/openmetrics-text"
# What Prometheus sends, by its version.
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PROMETHEUS_3_NATIVE = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;"
    "escaping=allow-utf-8;q=0.7," + PROMETHEUS_3
)
PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_2_5 = (
    "application/openmetrics-text; version=0.0.1,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ([], False),
        ([""], False),
        (["application/*"], False),
        (["text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"], False),
        ([OPENMETRICS], True),
        (["Application/OpenMetrics-Text; Version=1.0.0; charset=utf-8"], True),
        ([PROMETHEUS_3_NATIVE], True),
        ([PROMETHEUS_2], True),
        # The service writes version 1.0.0 only.
        ([PROMETHEUS_2_5], False),
        ([f"{OPENMETRICS};version=2.0.0"], False),
        ([f"{OPENMETRICS};version=2.0.0,{OPENMETRICS};version=1.0.0;q=0.1"], True),
        # Quality values.
        ([f"{OPENMETRICS};q=0.1,text/plain"], False),
        ([f"{OPENMETRICS};q=0.5,text/plain;q=0.5"], True),
        ([f"{OPENMETRICS};q=0,*/*"], False),
        ([f"{OPENMETRICS};q=0.5,*/*"], False),
        ([f"{OPENMETRICS};q=0.5,*/*,text/plain;q=0.1"], True),
        ([f"{OPENMETRICS};q=0.5,text/*;q=0.9,text/plain;q=0.1"], True),
        ([f"{OPENMETRICS};q=0.5,text/plain;version=0.0.4;q=0.9,text/plain;q=0.1"], False),
        ([f"{OPENMETRICS};version=1.0.0;q=0,{OPENMETRICS}"], False),
        # Several lines are one list.
        (["text/plain;q=0.2", f"{OPENMETRICS};q=0.3"], True),
        # An invalid value is ignored.
        ([f"{OPENMETRICS};q=much"], False),
        (["openmetrics-text", ";;,,=;q"], False),
    ],
)
def test_openmetrics_is_sent_to_clients_that_prefer_it(accept: list[str], expected: bool) -> None:
    assert prefers_openmetrics(accept) is expected
    body, media_type = Metrics().exposed(accept)
    assert media_type == (
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
        if expected
        else "text/plain; version=0.0.4; charset=utf-8"
    )
    assert body.endswith(b"# EOF\n") is expected


def request(
    traceparent: str | None, route: str = "/transfers", duration_s: float = 0.003
) -> RequestFinished:
    details = RequestDetails(About("request-1", traceparent), 1.0, None, "ok", is_replay=False)
    return RequestFinished("POST", route, 201, duration_s, details)


def delivery(traceparent: str | None) -> NotificationFinished:
    sent = Sent("transfer.posted", 1.0, 2.0, 204, traceparent, None)
    return NotificationFinished("webhook", "delivered", 1, 0.3, "e", "x", None, sent=sent)


def examples(metrics: Metrics) -> list[Sample]:
    """The samples with an exemplar, by a parser of the format."""
    text = metrics.exposed([OPENMETRICS])[0].decode()
    families = list(text_string_to_metric_families(text))  # type: ignore[no-untyped-call]
    assert {f.type for f in families} >= {"counter", "gauge", "histogram", "info"}
    return [sample for family in families for sample in family.samples if sample.exemplar]


def test_an_exemplar_names_a_sampled_trace() -> None:
    metrics = Metrics(with_exemplars=True)
    metrics(GroupCommitted(5, 4, 1, 0, oldest_wait_s=0.01, duration_s=0.02))
    metrics(WalletRead("hit"))
    metrics(request(SAMPLED))
    metrics(delivery(SAMPLED))
    details, delivered = sorted(examples(metrics), key=lambda sample: sample.name)
    assert details.name == "http_server_request_duration_seconds_bucket"
    assert details.labels == {
        "http_request_method": "POST",
        "http_route": "/transfers",
        "http_response_status_code": "201",
        "le": "0.004",
    }
    assert delivered.name == "transferd_notification_lag_seconds_bucket"
    assert delivered.labels == {"sink": "webhook", "le": "0.5"}
    for sample, value in ((details, 0.003), (delivered, 0.3)):
        assert sample.exemplar is not None
        assert (sample.exemplar.labels, sample.exemplar.value) == ({"trace_id": TRACE}, value)
    assert TRACE not in metrics.exposed()[0].decode()


@pytest.mark.parametrize(
    "fact",
    [
        request(UNSAMPLED),
        request(None),
        request(SAMPLED, "/metrics"),
        request(SAMPLED, "/readyz"),
        RequestFinished("POST", "/transfers", 201, 0.003),
        delivery(UNSAMPLED),
        delivery(None),
        delivery(SAMPLED)._replace(result="retrying"),
        delivery(SAMPLED)._replace(sent=None),
    ],
)
def test_a_trace_that_is_not_sampled_has_no_exemplar(
    fact: RequestFinished | NotificationFinished,
) -> None:
    metrics = Metrics(with_exemplars=True)
    metrics(fact)
    assert examples(metrics) == []


def test_without_tracing_there_are_no_exemplars() -> None:
    metrics = Metrics()
    metrics(request(SAMPLED))
    metrics(delivery(SAMPLED))
    assert examples(metrics) == []
