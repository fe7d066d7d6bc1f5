"""What was counted -> the figures that people look at."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace

from loadtest.dashboards.scrape import Change, Sample, in_turn, side_by_side

RESULTS = ("done", "refused", "replayed")
_MIB = 2**20
# What the summary of a run tells of a `Point` over all of its time.
_SUMMED_UP = (
    "done_per_s",
    "requests_per_s",
    "group_size_mean",
    "cache_hit_share",
    "commit_mean_ms",
    "commit_p95_ms",
    "wait_mean_ms",
    "wait_p95_ms",
)


@dataclass(frozen=True)
class Point:
    """The figures of one process, or of all, for the stretch of time that ended at `at_s`.

    None is what there is nothing to say about: a mean of no groups, the outbox of a replica.
    """

    at_s: float
    done_per_s: float | None = None
    refused_per_s: float | None = None
    replayed_per_s: float | None = None
    turned_away_per_s: float | None = None
    requests_per_s: float | None = None
    group_size_mean: float | None = None
    commit_mean_ms: float | None = None
    commit_p95_ms: float | None = None
    wait_mean_ms: float | None = None
    wait_p95_ms: float | None = None
    cache_hit_share: float | None = None
    outbox_waiting: float | None = None
    outbox_oldest_s: float | None = None
    cpu_share: float | None = None
    rss_mib: float | None = None

    def as_json(self) -> dict[str, object]:
        """All figures by name."""
        return asdict(self)


def decided(change: Change, at_s: float) -> Point:
    """The figures of whoever decides commands; nothing but the time if none has passed."""
    seconds = change.seconds
    if seconds <= 0:
        return Point(at_s)
    results = change.parts("transferd_outcomes_total")
    codes = change.parts("transferd_failures_total")
    reads = change.parts("transferd_wallet_reads_total")
    wait, commit = "transferd_mailbox_wait_seconds", "transferd_group_commit_seconds"
    return Point(
        at_s,
        done_per_s=results.get("done", 0.0) / seconds,
        refused_per_s=results.get("refused", 0.0) / seconds,
        replayed_per_s=results.get("replayed", 0.0) / seconds,
        turned_away_per_s=sum(codes.values()) / seconds,
        requests_per_s=change.one("http_server_request_duration_seconds_count") / seconds,
        group_size_mean=change.mean("transferd_group_envelopes"),
        commit_mean_ms=_ms(change.mean(commit)),
        commit_p95_ms=_ms(change.quantile(0.95, commit)),
        wait_mean_ms=_ms(change.mean(wait)),
        wait_p95_ms=_ms(change.quantile(0.95, wait)),
        cache_hit_share=_share(reads.get("hit", 0.0), sum(reads.values())),
    )


def point(after: Sample, change: Change) -> Point:
    """The figures of one process for the stretch of time that ended with this sample."""
    cpu_s = change.one("process_cpu_seconds_total")
    return replace(
        Point(after.at_s) if after.is_worker else decided(change, after.at_s),
        outbox_waiting=after.gauges.get("transferd_outbox_waiting_events"),
        outbox_oldest_s=after.gauges.get("transferd_outbox_oldest_seconds"),
        cpu_share=_share(cpu_s, change.seconds),
        rss_mib=_mib(after.gauges),
    )


def total(at_s: float, points: Iterable[Point], changes: Iterable[Change]) -> Point:
    """The figures of all processes together; the changes are those of replicas only."""
    listed, decisions = list(points), list(changes)
    return replace(
        decided(side_by_side(decisions), at_s) if decisions else Point(at_s),
        # Each worker tells of the one outbox that all of them share.
        outbox_waiting=largest(each.outbox_waiting for each in listed),
        outbox_oldest_s=largest(each.outbox_oldest_s for each in listed),
        cpu_share=_add(each.cpu_share for each in listed),
        rss_mib=_add(each.rss_mib for each in listed),
    )


@dataclass
class Account:
    """What one process did since the users of a run started."""

    change: Change = field(default_factory=Change)
    outbox_waiting_max: float | None = None
    outbox_oldest_max_s: float | None = None
    rss_first_mib: float | None = None
    rss_last_mib: float | None = None
    is_worker: bool = False

    def take(self, change: Change, sample: Sample) -> None:
        """Add the stretch of time that ended with this sample."""
        self.change = in_turn(self.change, change)
        self.see(sample)

    def see(self, sample: Sample) -> None:
        """Look at what is not counted but measured."""
        gauges = sample.gauges
        self.is_worker = sample.is_worker
        self.outbox_waiting_max = largest(
            (self.outbox_waiting_max, gauges.get("transferd_outbox_waiting_events"))
        )
        self.outbox_oldest_max_s = largest(
            (self.outbox_oldest_max_s, gauges.get("transferd_outbox_oldest_seconds"))
        )
        self.rss_last_mib = _mib(gauges)
        if self.rss_first_mib is None:
            self.rss_first_mib = self.rss_last_mib

    def as_json(self) -> dict[str, object]:
        """Totals, and means over all the time; no figures of commands for a worker."""
        told: dict[str, object] = {
            "seconds": self.change.seconds,
            "cpu_s": self.change.one("process_cpu_seconds_total"),
            "rss_first_mib": self.rss_first_mib,
            "rss_last_mib": self.rss_last_mib,
            "outbox_waiting_max": self.outbox_waiting_max,
            "outbox_oldest_max_s": self.outbox_oldest_max_s,
        }
        return told if self.is_worker else told | totals(self.change)


def totals(change: Change) -> dict[str, object]:
    """How many commands there were by result, and how the groups of them did."""
    means = decided(change, 0.0)
    results = change.parts("transferd_outcomes_total")
    return {
        "results": {result: round(results.get(result, 0.0)) for result in RESULTS},
        "turned_away": {
            code: round(count) for code, count in change.parts("transferd_failures_total").items()
        },
        **{name: getattr(means, name) for name in _SUMMED_UP},
    }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1_000


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _mib(gauges: Mapping[str, float]) -> float | None:
    size = gauges.get("process_resident_memory_bytes")
    return None if size is None else size / _MIB


def largest(values: Iterable[float | None]) -> float | None:
    """The largest of those that are known; None if none is."""
    return max((value for value in values if value is not None), default=None)


def _add(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
