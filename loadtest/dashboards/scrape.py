"""The text of `/metrics` -> what was counted -> what was counted between two scrapes."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import isfinite

from prometheus_client.parser import text_string_to_metric_families

# A sample's name and the value of the one label that matters, or "" where all are added up.
Series = tuple[str, str]

_HISTOGRAMS = (
    "transferd_group_envelopes",
    "transferd_group_commit_seconds",
    "transferd_mailbox_wait_seconds",
)
# The label that tells a counter's parts apart; "" adds all of them up.
_COUNTED = {
    "transferd_outcomes_total": "result",
    "transferd_failures_total": "code",
    "transferd_wallet_reads_total": "cache",
    "http_server_request_duration_seconds_count": "",
    "process_cpu_seconds_total": "",
    **{f"{name}_bucket": "le" for name in _HISTOGRAMS},
    **{f"{name}_{part}": "" for name in _HISTOGRAMS for part in ("count", "sum")},
}
_GAUGES = frozenset(
    {
        "process_resident_memory_bytes",
        "transferd_outbox_oldest_seconds",
        "transferd_outbox_waiting_events",
        "transferd_ready",
        "transferd_worker_ready",
    }
)


@dataclass(frozen=True)
class Sample:
    """What one process told at one moment; `at_s` is seconds since 1970."""

    at_s: float
    counted: Mapping[Series, float]
    gauges: Mapping[str, float]

    @property
    def is_worker(self) -> bool:
        """A worker decides no commands, so those figures say nothing of it."""
        return "transferd_worker_ready" in self.gauges and "transferd_ready" not in self.gauges


@dataclass(frozen=True)
class Change:
    """What was counted within `seconds`."""

    seconds: float = 0.0
    counted: Mapping[Series, float] = field(default_factory=dict)

    def parts(self, name: str) -> dict[str, float]:
        """How much of a counter fell to each value of its label."""
        return {label: count for (each, label), count in self.counted.items() if each == name}

    def one(self, name: str) -> float:
        """How much a counter without parts went up."""
        return self.counted.get((name, ""), 0.0)

    def mean(self, histogram: str) -> float | None:
        """The mean of what a histogram observed; None if that was nothing."""
        count = self.one(f"{histogram}_count")
        return self.one(f"{histogram}_sum") / count if count else None

    def quantile(self, share: float, histogram: str) -> float | None:
        """Below which value this share of the observations lay; None if there were none."""
        buckets = self.parts(f"{histogram}_bucket")
        return quantile(share, {float(bound): count for bound, count in buckets.items()})


def parse(text: str, at_s: float) -> Sample:
    """Read the Prometheus text format; ValueError if it is something else."""
    counted: dict[Series, float] = defaultdict(float)
    gauges: dict[str, float] = defaultdict(float)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            # A gauge whose measuring failed says NaN, which no JSON can say.
            if not isfinite(sample.value):
                continue
            if (label := _COUNTED.get(sample.name)) is not None:
                counted[sample.name, sample.labels.get(label, "")] += sample.value
            elif sample.name in _GAUGES:
                gauges[sample.name] += sample.value
    return Sample(at_s, dict(counted), dict(gauges))


def change(before: Sample, after: Sample) -> Change:
    """What was counted between two scrapes of one address.

    If only a single counter went back or vanished, another process answers there now, and all that
    it has counted is new. A rate is never negative, then.
    """
    is_another = any(after.counted.get(key, 0) < count for key, count in before.counted.items())
    base = {} if is_another else before.counted
    return Change(
        max(0.0, after.at_s - before.at_s),
        {key: count - base.get(key, 0) for key, count in after.counted.items()},
    )


def in_turn(first: Change, second: Change) -> Change:
    """Two stretches of time of one process as one."""
    return Change(first.seconds + second.seconds, _sum([first.counted, second.counted]))


def side_by_side(changes: Iterable[Change]) -> Change:
    """What several processes counted in one second, on average over the stretch of each.

    One that was away for a while has a longer stretch behind it than the others, so that only
    rates can be added up.
    """
    return Change(
        1.0,
        _sum(
            {key: count / each.seconds for key, count in each.counted.items()}
            for each in changes
            if each.seconds > 0
        ),
    )


def at_once(changes: Iterable[Change]) -> Change:
    """What several processes counted in the same time, which is as long as the longest."""
    listed = list(changes)
    return Change(
        max((each.seconds for each in listed), default=0.0),
        _sum(each.counted for each in listed),
    )


def quantile(share: float, cumulative: Mapping[float, float]) -> float | None:
    """Interpolate linearly within a bucket, as Prometheus does.

    `cumulative` maps each upper bound, the last of them infinite, to how many lay at or below it.
    What lies beyond the last finite bound is told as that bound.
    """
    bounds = sorted(cumulative)
    count = cumulative[bounds[-1]] if bounds else 0
    if count <= 0:
        return None
    rank = share * count
    lower, below = 0.0, 0.0
    for bound in bounds:
        if cumulative[bound] >= rank:
            if bound == float("inf"):
                return lower
            inside = cumulative[bound] - below
            return lower + (bound - lower) * ((rank - below) / inside if inside else 1.0)
        lower, below = bound, cumulative[bound]
    return lower


def _sum(counts: Iterable[Mapping[Series, float]]) -> dict[Series, float]:
    summed: dict[Series, float] = {}
    for each in counts:
        for key, count in each.items():
            summed[key] = summed.get(key, 0.0) + count
    return summed
