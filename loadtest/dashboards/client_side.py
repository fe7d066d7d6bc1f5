"""What Locust counted -> families of Prometheus metrics."""

from collections.abc import Iterator, Mapping
from typing import Protocol

from prometheus_client import Metric
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)

# Seconds. Locust rounds to two digits, so that finer bounds would tell nothing.
BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_PREFIX = "transferd_loadtest"
_LABELS = ("method", "name")


class Entry(Protocol):
    """What Locust keeps of the requests with one name, of which this module knows no more."""

    name: str
    method: str
    num_requests: int
    num_failures: int
    # Sum of all times; and how many requests took so many milliseconds, rounded to two digits.
    total_response_time: int
    response_times: dict[int, int]


def families(
    entries: Mapping[tuple[str, str], Entry],
    users: Mapping[str, int],
    *,
    violations: int,
    info: Mapping[str, str],
) -> Iterator[Metric]:
    """All metrics of the client's side.

    Locust begins to count anew with every run, which Prometheus takes for a restart.
    """
    requests = CounterMetricFamily(f"{_PREFIX}_requests", "Requests answered.", labels=_LABELS)
    failures = CounterMetricFamily(
        f"{_PREFIX}_failures", "Requests whose answer was not what it has to be.", labels=_LABELS
    )
    times = HistogramMetricFamily(
        f"{_PREFIX}_response_seconds", "Response times, rounded to two digits.", labels=_LABELS
    )
    for entry in entries.values():
        labels = (entry.method or "", entry.name)
        requests.add_metric(labels, entry.num_requests)
        failures.add_metric(labels, entry.num_failures)
        times.add_metric(
            labels, buckets(entry.response_times), sum_value=entry.total_response_time / 1_000
        )
    active = GaugeMetricFamily(f"{_PREFIX}_users", "Users that run.", labels=("user_class",))
    for name, count in users.items():
        active.add_metric((name,), count)
    yield from (requests, failures, times, active)
    yield CounterMetricFamily(
        f"{_PREFIX}_violations", "Promises of the service found broken.", value=violations
    )
    yield InfoMetricFamily(_PREFIX, "What runs here, and which scenario.", value=dict(info))


def buckets(response_times: Mapping[int, int]) -> list[tuple[str, float]]:
    """How many requests took at most each of the bounds; `response_times` are milliseconds."""
    counts = [
        (str(float(bound)), sum(n for ms, n in response_times.items() if ms <= bound * 1_000))
        for bound in BOUNDS_S
    ]
    return [*counts, ("+Inf", sum(response_times.values()))]
