"""Parse `/metrics` into counters and gauges, and compute the change between two scrapes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from operator import add
from typing import TypeVar

from prometheus_client.parser import text_string_to_metric_families

Key = TypeVar("Key")
# The name of a sample, and the value of the label that is kept; "" without such a label.
Series = tuple[str, str]
# Samples that differ only in other labels are added up.
_KEPT_LABELS = ("result", "code", "cache", "le")
# All workers export the state of the one outbox.
_SHARED_GAUGES = frozenset({"transferd_outbox_oldest_seconds", "transferd_outbox_waiting_events"})


@dataclass(frozen=True)
class Scrape:
    """The metrics of one process; `at_s` is seconds since 1970."""

    at_s: float
    counters: Mapping[Series, float]
    gauges: Mapping[str, float]


@dataclass(frozen=True)
class Change:
    """The increase of the counters of one or several processes in `seconds`, and their gauges."""

    seconds: float = 0.0
    counters: Mapping[Series, float] = field(default_factory=dict)
    gauges: Mapping[str, float] = field(default_factory=dict)

    def by_label(self, name: str) -> dict[str, float]:
        """The counts of one counter by the value of its label."""
        return {label: count for (each, label), count in self.counters.items() if each == name}

    def count(self, name: str, label: str | None = None) -> float:
        """The count of one value of the label, or of all values."""
        counts = self.by_label(name)
        return sum(counts.values()) if label is None else counts.get(label, 0.0)

    def per_second(self) -> "Change":
        """The change per second; `seconds` must be above 0."""
        counters = {series: count / self.seconds for series, count in self.counters.items()}
        return Change(1.0, counters, self.gauges)


def has_replica(gauges: Mapping[str, float]) -> bool:
    """Whether at least one of the processes with these gauges is a replica."""
    return "transferd_ready" in gauges or "transferd_worker_ready" not in gauges


def parse(text: str, at_s: float) -> Scrape:
    """Parse the Prometheus text format. Raises ValueError."""
    counters: dict[Series, float] = {}
    gauges: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            # A gauge that could not be measured is NaN, which JSON cannot express.
            if not isfinite(sample.value):
                continue
            if family.type == "gauge":
                gauges[sample.name] = gauges.get(sample.name, 0.0) + sample.value
            elif family.type in {"counter", "histogram"}:
                kept = (sample.labels[each] for each in _KEPT_LABELS if each in sample.labels)
                series = (sample.name, next(kept, ""))
                counters[series] = counters.get(series, 0.0) + sample.value
    return Scrape(at_s, counters, gauges)


def difference(before: Scrape, after: Scrape) -> Change:
    """The change between two scrapes of one address.

    If a counter decreased or is missing, a new process has started, and its counts start at 0.
    """
    is_new = any(after.counters.get(key, 0) < count for key, count in before.counters.items())
    base = {} if is_new else before.counters
    return Change(
        max(0.0, after.at_s - before.at_s),
        {series: count - base.get(series, 0) for series, count in after.counters.items()},
        after.gauges,
    )


def in_sequence(first: Change, second: Change) -> Change:
    """The sum of two successive changes of one process, with the larger value of each gauge."""
    return Change(
        first.seconds + second.seconds,
        _merged(add, [first.counters, second.counters]),
        _merged(max, [first.gauges, second.gauges]),
    )


def in_parallel(changes: Sequence[Change]) -> Change:
    """The sum of concurrent changes of several processes. `seconds` is the longest of them."""
    gauges = [each.gauges for each in changes]
    largest = _merged(max, gauges)
    shared = {name: largest[name] for name in _SHARED_GAUGES & largest.keys()}
    return Change(
        max((each.seconds for each in changes), default=0.0),
        _merged(add, [each.counters for each in changes]),
        _merged(add, gauges) | shared,
    )


def _merged(
    combine: Callable[[float, float], float], parts: Iterable[Mapping[Key, float]]
) -> dict[Key, float]:
    merged: dict[Key, float] = {}
    for part in parts:
        for key, value in part.items():
            merged[key] = combine(merged[key], value) if key in merged else value
    return merged
