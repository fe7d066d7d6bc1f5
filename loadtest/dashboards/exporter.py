"""Locust's statistics as metrics for Prometheus."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.registry import Collector

# Seconds. Locust rounds times to two digits, so finer bounds would add nothing.
BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_PREFIX = "transferd_loadtest"
_LABELS = ("method", "name")


class ClientSide(Collector):
    """Reads Locust's statistics at each scrape; a master includes those of its workers.

    `violations` returns the number of violations of this run, `info` the labels of the info metric.
    """

    def __init__(
        self, environment: Any, violations: Callable[[], int], info: Callable[[], Mapping[str, str]]
    ) -> None:
        self._environment = environment
        self._violations = violations
        self._info = info

    def collect(self) -> Iterator[Metric]:
        """All metrics. Each run counts from 0, which Prometheus treats as a restart."""
        requests = CounterMetricFamily(f"{_PREFIX}_requests", "Answers.", labels=_LABELS)
        failures = CounterMetricFamily(f"{_PREFIX}_failures", "Wrong answers.", labels=_LABELS)
        times = HistogramMetricFamily(
            f"{_PREFIX}_response_seconds", "Response times, rounded to two digits.", labels=_LABELS
        )
        for entry in self._environment.stats.entries.values():
            labels = (entry.method or "", entry.name)
            requests.add_metric(labels, entry.num_requests)
            failures.add_metric(labels, entry.num_failures)
            total_s = entry.total_response_time / 1_000
            times.add_metric(labels, buckets(entry.response_times), sum_value=total_s)
        active = GaugeMetricFamily(f"{_PREFIX}_users", "Running users.", labels=("user_class",))
        for name, count in self._users().items():
            active.add_metric((name,), count)
        yield from (requests, failures, times, active)
        yield CounterMetricFamily(
            f"{_PREFIX}_violations", "Violations found.", value=self._violations()
        )
        yield InfoMetricFamily(_PREFIX, "Scenario and shape of the run.", value=dict(self._info()))

    def _users(self) -> Mapping[str, int]:
        runner = self._environment.runner
        of_workers: Mapping[str, int] | None = getattr(runner, "reported_user_classes_count", None)
        return runner.user_classes_count if of_workers is None else of_workers


def registry_of(collector: Collector) -> CollectorRegistry:
    """A registry without the metrics of this process."""
    registry = CollectorRegistry()
    registry.register(collector)
    return registry


def buckets(response_times: Mapping[int, int]) -> list[tuple[str, float]]:
    """Cumulative buckets. `response_times`: milliseconds -> number of requests."""
    counts = [
        (str(float(bound)), sum(n for ms, n in response_times.items() if ms <= bound * 1_000))
        for bound in BOUNDS_S
    ]
    return [*counts, ("+Inf", sum(response_times.values()))]
