"""Whether a run passed: no violation was found, and every service level was met."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loadtest.proof.violations import Violations

PASSED = 0
# The run or its audit failed, so there is no result.
NOT_RUN = 1
VIOLATED = 3
LEVEL_BROKEN = 4

# With fewer answers percentiles are meaningless.
ANSWERS_MIN = 50


@dataclass(frozen=True)
class Calls:
    """Locust's counts for one name and method. `times_ms`: rounded milliseconds -> answers."""

    method: str
    name: str
    requests: int
    failures: int
    times_ms: Mapping[int, int]

    @property
    def group(self) -> str | None:
        """The service levels to which it counts. Batches, attacks and back-pressure have none."""
        if "(turned away)" in self.name or "batch" in self.name or self.name.startswith("attack"):
            return None
        return "reads" if self.method == "GET" else "transfers"


@dataclass(frozen=True)
class Level:
    """A service level, such as p95 of transfers; `found` and `limit` are in `unit`."""

    name: str
    limit: float
    found: float
    unit: str

    @property
    def held(self) -> bool:
        """Whether it was met."""
        return self.found <= self.limit

    def __str__(self) -> str:
        sign = "<=" if self.held else ">"
        return f"{self.name} {self.found:g} {self.unit} {sign} {self.limit:g} {self.unit}"


@dataclass
class Verdict:
    """The result of a run, as an exit code, a line and JSON."""

    violations: Violations
    levels: list[Level]
    requests: int
    failures: int
    ledgers: int = 1
    # Why the run or its audit failed.
    trouble: str = ""
    # The result of a ramp, which misses a level on purpose.
    limit: str = ""
    # A sentence for each check that was not made.
    unchecked: Sequence[str] = ()

    @property
    def broken(self) -> list[Level]:
        """The levels that were missed. A ramp has none."""
        return [] if self.limit else [level for level in self.levels if not level.held]

    @property
    def _undone(self) -> str:
        """Why there is no result. A run without a request has none."""
        return self.trouble or ("" if self.requests else "not one request was made")

    @property
    def code(self) -> int:
        if self.violations.total:
            return VIOLATED
        if self._undone:
            return NOT_RUN
        return LEVEL_BROKEN if self.broken else PASSED

    @property
    def line(self) -> str:
        counted = f"{self.requests:,} requests, {self.failures:,} failed"
        if self.ledgers > 1:
            counted += f", {self.ledgers} ledgers"
        if self.violations.total:
            kinds = ", ".join(f"{count} {kind}" for kind, count in self.violations.counts.items())
            first = self.violations.reported[0]
            return f"FAILED, money or answers are wrong: {kinds}; first {first.kind}: {first.text}"
        if self._undone:
            return f"FAILED, could not be done: {self._undone}"
        if self.broken:
            return f"FAILED, too slow or failing: {'; '.join(map(str, self.broken))} ({counted})"
        if self.limit:
            return f"passed, {self.limit} ({counted})"
        return "; ".join([f"passed: {counted}", *map(str, self.levels), *self.unchecked])


def levels_of(
    calls: Iterable[Calls], p95_ms: float, p99_ms: float, error_percent: float
) -> tuple[list[Level], list[str]]:
    """The service levels of a run, and a sentence for each group with too few answers."""
    calls = list(calls)
    unchecked = []
    groups: dict[str, Counter[int]] = {}
    for each in calls:
        if each.group is not None:
            groups.setdefault(each.group, Counter()).update(each.times_ms)
    levels = []
    for group in sorted(groups, reverse=True):
        times_ms = groups[group]
        if times_ms.total() < ANSWERS_MIN:
            unchecked.append(f"{times_ms.total()} {group} are too few for p95 and p99")
            continue
        for name, share, limit_ms in (("p95", 0.95, p95_ms), ("p99", 0.99, p99_ms)):
            levels.append(Level(f"{name} of {group}", limit_ms, percentile(times_ms, share), "ms"))
    if requests := sum(each.requests for each in calls):
        failed = round(100 * sum(each.failures for each in calls) / requests, 3)
        levels.append(Level("error rate", error_percent, failed, "%"))
    return levels, unchecked


def percentile(times_ms: Mapping[int, int], share: float) -> float:
    """The time within which this share of the answers arrived."""
    total = sum(times_ms.values())
    seen = 0
    for time_ms in sorted(times_ms):
        seen += times_ms[time_ms]
        if seen >= total * share:
            return float(time_ms)
    return 0.0


def latencies(calls: Iterable[Calls]) -> dict[str, dict[str, float]]:
    """Percentiles in milliseconds and counts of each name."""
    return {
        f"{each.method} {each.name}": {
            "p50": percentile(each.times_ms, 0.50),
            "p95": percentile(each.times_ms, 0.95),
            "p99": percentile(each.times_ms, 0.99),
            "requests": each.requests,
            "failures": each.failures,
        }
        for each in calls
        if each.requests
    }


def to_json(verdict: Verdict) -> dict[str, Any]:
    """The verdict in the file of --verdict."""
    return {
        "exit_code": verdict.code,
        "line": verdict.line,
        "requests": verdict.requests,
        "failures": verdict.failures,
        "levels": [
            {"name": each.name, "limit": each.limit, "found": each.found, "held": each.held}
            for each in verdict.levels
        ],
        "violations": [
            {"kind": each.kind, "text": each.text} for each in verdict.violations.reported
        ],
        "violations_by_kind": dict(verdict.violations.counts),
        "trouble": verdict.trouble,
        "limit": verdict.limit,
    }
