"""Whether a run passed: the order of precedence, the levels, and the line."""

from typing import Any

import pytest

from loadtest.proof.violations import LOST_TRANSFER, STALE_READ, Violation, Violations
from loadtest.verdict import (
    ANSWERS_MIN,
    LEVEL_BROKEN,
    NOT_RUN,
    PASSED,
    VIOLATED,
    Calls,
    Level,
    Verdict,
    levels_of,
    percentile,
)

KEPT = Level("p95 of transfers", 500, 500, "ms")
BROKEN = Level("p99 of reads", 1000, 1200.5, "ms")
LIMIT = "held 40 users, 900 requests/s; broke at 45 users, 910/s: p95"


def violations(*kinds: str) -> Violations:
    found = Violations()
    for number, kind in enumerate(kinds):
        found.add(Violation(kind, f"number {number}"))
    return found


def verdict(
    *kinds: str, levels: tuple[Level, ...] = (KEPT,), requests: int = 12_345, **more: Any
) -> Verdict:
    return Verdict(violations(*kinds), list(levels), requests=requests, failures=6, **more)


# Precedence


@pytest.mark.parametrize(
    ("found", "code", "line"),
    [
        (
            verdict(LOST_TRANSFER, STALE_READ, LOST_TRANSFER, trouble="no report"),
            VIOLATED,
            "FAILED, money or answers are wrong: 2 lost-transfer, 1 stale-read;"
            " first lost-transfer: number 0",
        ),
        (
            verdict(LOST_TRANSFER, levels=(BROKEN,), limit=LIMIT, requests=0),
            VIOLATED,
            "FAILED, money or answers are wrong: 1 lost-transfer; first lost-transfer: number 0",
        ),
        (
            verdict(levels=(BROKEN,), trouble="no report", limit=LIMIT),
            NOT_RUN,
            "FAILED, could not be done: no report",
        ),
        (
            verdict(levels=(), requests=0),
            NOT_RUN,
            "FAILED, could not be done: not one request was made",
        ),
        (
            verdict(levels=(BROKEN, KEPT, Level("error rate", 0.1, 5, "%"))),
            LEVEL_BROKEN,
            "FAILED, too slow or failing: p99 of reads 1200.5 ms > 1000 ms;"
            " error rate 5 % > 0.1 % (12,345 requests, 6 failed)",
        ),
        (
            verdict(levels=(BROKEN,), limit=LIMIT),
            PASSED,
            f"passed, {LIMIT} (12,345 requests, 6 failed)",
        ),
        (
            verdict(levels=(KEPT,), unchecked=["3 reads are too few for p95 and p99"]),
            PASSED,
            "passed: 12,345 requests, 6 failed; p95 of transfers 500 ms <= 500 ms;"
            " 3 reads are too few for p95 and p99",
        ),
        (verdict(levels=()), PASSED, "passed: 12,345 requests, 6 failed"),
    ],
)
def test_the_worst_finding_decides(found: Verdict, code: int, line: str) -> None:
    assert (found.code, found.line) == (code, line)


# Levels


@pytest.mark.parametrize(
    ("method", "name", "group"),
    [
        ("POST", "/transfers", "transfers"),
        ("POST", "/transfers (refused)", "transfers"),
        ("POST", "/transfers/{id}/reversal", "transfers"),
        ("GET", "/wallets/{id}", "reads"),
        ("GET", "/transfers/{id}", "reads"),
        ("POST", "/transfers (turned away)", None),
        ("GET", "/wallets/{id} (turned away)", None),
        ("POST", "/transfers/batch", None),
        ("POST", "attack", None),
    ],
)
def test_calls_count_for_the_level_of_their_group(
    method: str, name: str, group: str | None
) -> None:
    assert Calls(method, name, 1, 0, {}).group == group


def calls(name: str, times_ms: dict[int, int], failures: int = 0) -> Calls:
    """`name` begins with the method."""
    method, _, rest = name.partition(" ")
    return Calls(method, rest, sum(times_ms.values()), failures, times_ms)


def test_each_group_has_its_percentiles_and_all_have_one_error_rate() -> None:
    found, unchecked = levels_of(
        [
            calls("GET /wallets/{id}", {1: 90, 7: 5, 8: 4, 9: 1}),
            calls("POST /transfers", {10: 94, 20: 4, 30: 2}, failures=3),
        ],
        p95_ms=500,
        p99_ms=1000,
        error_percent=0.1,
    )
    assert found == [
        Level("p95 of transfers", 500, 20, "ms"),
        Level("p99 of transfers", 1000, 30, "ms"),
        Level("p95 of reads", 500, 7, "ms"),
        Level("p99 of reads", 1000, 8, "ms"),
        Level("error rate", 0.1, 1.5, "%"),
    ]
    assert unchecked == []


@pytest.mark.parametrize("answers", [ANSWERS_MIN - 1, ANSWERS_MIN])
def test_too_few_answers_have_no_level(answers: int) -> None:
    counted = [calls("GET /wallets/{id}", {9_000: answers}), calls("POST /transfers", {1: 80})]
    found, unchecked = levels_of(counted, p95_ms=500, p99_ms=1000, error_percent=0.1)
    names = [level.name for level in found]
    if answers < ANSWERS_MIN:
        assert names == ["p95 of transfers", "p99 of transfers", "error rate"]
        assert unchecked == [f"{answers} reads are too few for p95 and p99"]
    else:
        assert names[2:] == ["p95 of reads", "p99 of reads", "error rate"]
        assert unchecked == []


@pytest.mark.parametrize(
    ("times_ms", "share", "found"),
    [
        ({}, 0.95, 0),
        ({7: 1}, 0.99, 7),
        ({3: 1, 1: 1}, 0.5, 1),
        ({3: 1, 1: 1}, 0.51, 3),
        ({20: 5, 10: 95}, 0.95, 10),
        ({20: 6, 10: 94}, 0.95, 20),
        ({1: 98, 1000: 2}, 0.99, 1000),
    ],
)
def test_a_percentile_is_the_time_within_which_that_share_of_answers_came(
    times_ms: dict[int, int], share: float, found: float
) -> None:
    assert percentile(times_ms, share) == found
