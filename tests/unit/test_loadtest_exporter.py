"""Locust's statistics become metrics of Prometheus."""

from collections.abc import Mapping
from types import SimpleNamespace

import pytest
from prometheus_client import generate_latest

from loadtest.dashboards.exporter import BOUNDS_S, ClientSide, buckets, registry_of
from tests.support.locust_stats import RequestStats
from tests.support.watching import promtool

PAY = 'method="POST",name="/transfers"'


def text_of(
    stats: RequestStats,
    users: Mapping[str, int] | None = None,
    violations: int = 0,
    info: dict[str, str] | None = None,
) -> str:
    runner = SimpleNamespace(user_classes_count=users or {})
    environment = SimpleNamespace(stats=stats, runner=runner)
    registry = registry_of(ClientSide(environment, lambda: violations, lambda: info or {}))
    return generate_latest(registry).decode()


def busy() -> RequestStats:
    stats = RequestStats()
    for time_ms in (4, 4, 40, 147, 58_760):
        stats.log_request("POST", "/transfers", time_ms, 100)
    stats.log_error("POST", "/transfers", "500: internal-error")
    stats.log_request("GET", "/wallets/{id}", 2, 100)
    return stats


@pytest.mark.parametrize(
    "line",
    [
        f"transferd_loadtest_requests_total{{{PAY}}} 5.0",
        f"transferd_loadtest_failures_total{{{PAY}}} 1.0",
        f'transferd_loadtest_response_seconds_bucket{{le="0.0025",{PAY}}} 0.0',
        f'transferd_loadtest_response_seconds_bucket{{le="0.005",{PAY}}} 2.0',
        f'transferd_loadtest_response_seconds_bucket{{le="0.05",{PAY}}} 3.0',
        f'transferd_loadtest_response_seconds_bucket{{le="0.25",{PAY}}} 4.0',
        f'transferd_loadtest_response_seconds_bucket{{le="30.0",{PAY}}} 4.0',
        f'transferd_loadtest_response_seconds_bucket{{le="+Inf",{PAY}}} 5.0',
        f"transferd_loadtest_response_seconds_count{{{PAY}}} 5.0",
        f"transferd_loadtest_response_seconds_sum{{{PAY}}} 58.955",
        'transferd_loadtest_requests_total{method="GET",name="/wallets/{id}"} 1.0',
        'transferd_loadtest_users{user_class="Shopper"} 7.0',
        "transferd_loadtest_violations_total 2.0",
        'transferd_loadtest_info{scenario="payday",version="0.1.0"} 1.0',
    ],
)
def test_statistics_become_metrics(line: str) -> None:
    info = {"version": "0.1.0", "scenario": "payday"}
    lines = text_of(busy(), {"Shopper": 7}, 2, info).splitlines()
    sorted_labels = {_sorted(each) for each in lines}
    assert _sorted(line) in sorted_labels, "\n".join(lines)


def test_promtool_accepts_the_metrics() -> None:
    for text in (text_of(RequestStats()), text_of(busy(), {"Shopper": 7}, 2, {"version": "1"})):
        report = promtool("check", "metrics", stdin=text)
        assert (report.returncode, report.stdout + report.stderr) == (0, "")


def test_a_new_run_counts_from_zero() -> None:
    stats = busy()
    stats.clear_all()
    assert "transferd_loadtest_requests_total{" not in text_of(stats)
    stats.log_request("POST", "/transfers", 4, 100)
    assert f"transferd_loadtest_requests_total{{{PAY}}} 1.0" in text_of(stats)


def test_a_request_without_a_time_is_in_no_bucket() -> None:
    stats = RequestStats()
    # Locust accepts None for a request without a time; its types do not.
    stats.log_request("SSE", "events", None, 0)  # type: ignore[arg-type]
    metrics = text_of(stats)
    assert 'transferd_loadtest_requests_total{method="SSE",name="events"} 1.0' in metrics
    assert 'transferd_loadtest_response_seconds_count{method="SSE",name="events"} 0.0' in metrics


def test_buckets_are_cumulative() -> None:
    counted = dict(buckets({1: 3, 10: 2, 11: 1, 31_000: 1}))
    assert list(counted) == [*(str(float(bound)) for bound in BOUNDS_S), "+Inf"]
    assert (counted["0.001"], counted["0.01"], counted["0.025"]) == (3, 5, 6)
    assert (counted["30.0"], counted["+Inf"]) == (6, 7)


def _sorted(line: str) -> str:
    """The line with its labels sorted; their order has no meaning."""
    name, _, rest = line.partition("{")
    labels, _, value = rest.rpartition("}")
    return f"{name}{sorted(labels.split(','))}{value}"
