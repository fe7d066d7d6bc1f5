"""The figures of the tab and of the verdict: name, formula and format."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf

from loadtest.dashboards.scrape import Change, has_replica

# None: the figure is undefined, such as the mean of no groups.
Formula = Callable[[Change], float | None]


@dataclass(frozen=True)
class Figure:
    """`title` is empty if the tab does not show the figure. A share has the unit %."""

    name: str
    formula: Formula
    title: str = ""
    unit: str = ""
    digits: int = 1


def quantile(share: float, cumulative: Mapping[float, float]) -> float | None:
    """The quantile of a histogram, interpolated linearly within a bucket, as Prometheus does it.

    `cumulative` maps the upper bound of each bucket to the number of values up to that bound. A
    quantile above the last finite bound is that bound; without values it is None.
    """
    rank = share * max(cumulative.values(), default=0.0)
    lower, below = 0.0, 0.0
    for bound, count in sorted(cumulative.items()):
        if count >= rank > 0:
            inside = (rank - below) / (count - below)
            return lower if bound == inf else lower + (bound - lower) * inside
        lower, below = bound, count
    return None


def _rate(counter: str, label: str | None = None) -> Formula:
    # A worker executes no commands.
    return lambda change: (
        change.count(counter, label) / change.seconds if has_replica(change.gauges) else None
    )


def _share(counter: str, label: str) -> Formula:
    return lambda change: _ratio(change.count(counter, label), change.count(counter))


def _mean(histogram: str, factor: float = 1.0) -> Formula:
    return lambda change: _ratio(
        factor * change.count(f"{histogram}_sum"), change.count(f"{histogram}_count")
    )


def _p95_ms(histogram: str) -> Formula:
    def formula(change: Change) -> float | None:
        buckets = change.by_label(f"{histogram}_bucket")
        value = quantile(0.95, {float(bound): count for bound, count in buckets.items()})
        return None if value is None else 1_000 * value

    return formula


def _gauge(name: str, factor: float = 1.0) -> Formula:
    return lambda change: factor * change.gauges[name] if name in change.gauges else None


def _cpu_share(change: Change) -> float:
    return change.count("process_cpu_seconds_total") / change.seconds


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


_OUTCOMES, _FAILURES = "transferd_outcomes_total", "transferd_failures_total"
_WAIT, _COMMIT = "transferd_mailbox_wait_seconds", "transferd_group_commit_seconds"
# In the order of the tab's columns.
FIGURES = (
    Figure("done_per_s", _rate(_OUTCOMES, "done"), "Done", "/s"),
    Figure("refused_per_s", _rate(_OUTCOMES, "refused"), "Refused", "/s"),
    Figure("replayed_per_s", _rate(_OUTCOMES, "replayed"), "Replayed", "/s"),
    Figure("turned_away_per_s", _rate(_FAILURES), "Turned away", "/s"),
    Figure("group_size_mean", _mean("transferd_group_envelopes"), "Group size", "mean"),
    Figure("wait_p95_ms", _p95_ms(_WAIT), "Mailbox wait", "p95 ms"),
    Figure("commit_p95_ms", _p95_ms(_COMMIT), "Commit", "p95 ms"),
    Figure("cache_hit_share", _share("transferd_wallet_reads_total", "hit"), "Cache hits", "%"),
    Figure("outbox_waiting", _gauge("transferd_outbox_waiting_events"), "Outbox", "waiting", 0),
    Figure("outbox_oldest_s", _gauge("transferd_outbox_oldest_seconds"), "Outbox", "oldest s"),
    Figure("cpu_share", _cpu_share, "CPU", "%", 0),
    Figure("rss_mib", _gauge("process_resident_memory_bytes", 2**-20), "Memory", "MiB", 0),
    Figure("requests_per_s", _rate("http_server_request_duration_seconds_count")),
    Figure("wait_mean_ms", _mean(_WAIT, 1_000)),
    Figure("commit_mean_ms", _mean(_COMMIT, 1_000)),
)


def figures_of(change: Change) -> dict[str, float | None]:
    """All figures by name; all None if no time has passed."""
    return {each.name: each.formula(change) if change.seconds else None for each in FIGURES}


def summary_of(run: Change) -> dict[str, object]:
    """The figures of a run, with the number of commands by result, and of failures by code."""
    return {
        "seconds": run.seconds,
        "results": run.by_label(_OUTCOMES),
        "turned_away": run.by_label(_FAILURES),
        **figures_of(run),
    }
