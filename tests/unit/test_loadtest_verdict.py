"""Whether a run passed: what outweighs what, which levels there are, and what the line says."""

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
    latencies,
    levels_of,
    percentile,
    to_json,
)

KEPT = Level("p95 of transfers", 500, 120, "ms")
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


# What outweighs what


@pytest.mark.parametrize(
    ("found", "code"),
    [
        (verdict(LOST_TRANSFER, levels=(BROKEN,), trouble="no report"), VIOLATED),
        (verdict(LOST_TRANSFER, trouble="no report"), VIOLATED),
        (verdict(LOST_TRANSFER, levels=(BROKEN,)), VIOLATED),
        (verdict(LOST_TRANSFER), VIOLATED),
        (verdict(LOST_TRANSFER, requests=0), VIOLATED),
        (verdict(LOST_TRANSFER, levels=(BROKEN,), limit=LIMIT), VIOLATED),
        (verdict(levels=(BROKEN,), trouble="no report"), NOT_RUN),
        (verdict(trouble="no report"), NOT_RUN),
        (verdict(trouble="no report", limit=LIMIT), NOT_RUN),
        (verdict(levels=(), requests=0), NOT_RUN),
        (verdict(levels=(BROKEN,)), LEVEL_BROKEN),
        (verdict(levels=(KEPT, BROKEN)), LEVEL_BROKEN),
        (verdict(levels=(BROKEN,), limit=LIMIT), PASSED),
        (verdict(), PASSED),
        (verdict(levels=()), PASSED),
        (verdict(levels=(), untold=["3 reads are too few for p95 and p99"]), PASSED),
    ],
)
def test_the_worst_decides(found: Verdict, code: int) -> None:
    assert found.code == code
    assert found.line.startswith("passed" if code == PASSED else "FAILED")
    assert "\n" not in found.line


def test_exit_codes_tell_what_happened() -> None:
    assert (PASSED, NOT_RUN, VIOLATED, LEVEL_BROKEN) == (0, 1, 3, 4)


# The line


@pytest.mark.parametrize(
    ("found", "line"),
    [
        (
            verdict(LOST_TRANSFER, STALE_READ, LOST_TRANSFER, trouble="no report"),
            "FAILED, money or answers are wrong: 2 lost-transfer, 1 stale-read;"
            " first lost-transfer: number 0",
        ),
        (
            verdict(levels=(BROKEN,), trouble="no report"),
            "FAILED, could not be done: no report",
        ),
        (
            verdict(levels=(), requests=0),
            "FAILED, could not be done: not one request was made",
        ),
        (
            verdict(levels=(BROKEN, KEPT, Level("error rate", 0.1, 5, "%"))),
            "FAILED, too slow or failing: p99 of reads 1200.5 ms > 1000 ms;"
            " error rate 5 % > 0.1 % (12,345 requests, 6 failed)",
        ),
        (verdict(levels=(BROKEN,), limit=LIMIT), f"passed, {LIMIT} (12,345 requests, 6 failed)"),
        (
            verdict(levels=(KEPT,), untold=["3 reads are too few for p95 and p99"]),
            "passed: 12,345 requests, 6 failed; p95 of transfers 120 ms <= 500 ms;"
            " 3 reads are too few for p95 and p99",
        ),
    ],
)
def test_one_line_says_it(found: Verdict, line: str) -> None:
    assert found.line == line


@pytest.mark.parametrize(("found", "held"), [(499, True), (500, True), (500.1, False)])
def test_a_level_holds_up_to_its_limit(found: float, held: bool) -> None:
    level = Level("p95", 500, found, "ms")
    assert level.held is held
    assert (" <= " in str(level)) is held


def test_the_file_says_the_same() -> None:
    found = verdict(LOST_TRANSFER, levels=(KEPT, BROKEN), trouble="no report", limit=LIMIT)
    assert to_json(found) == {
        "exit_code": VIOLATED,
        "line": found.line,
        "requests": 12_345,
        "failures": 6,
        "levels": [
            {"name": "p95 of transfers", "limit": 500, "found": 120, "held": True},
            {"name": "p99 of reads", "limit": 1000, "found": 1200.5, "held": False},
        ],
        "violations": [{"kind": LOST_TRANSFER, "text": "number 0"}],
        "violations_by_kind": {LOST_TRANSFER: 1},
        "trouble": "no report",
        "limit": LIMIT,
    }


# Levels


@pytest.mark.parametrize(
    ("method", "name", "group"),
    [
        ("POST", "/transfers", "transfers"),
        ("POST", "/transfers (refused)", "transfers"),
        ("POST", "/transfers (replayed)", "transfers"),
        ("POST", "/transfers (in progress)", "transfers"),
        ("POST", "/transfers/{id}/reversal", "transfers"),
        ("GET", "/wallets/{id}", "reads"),
        ("GET", "/transfers/{id}", "reads"),
        ("POST", "/transfers (turned away)", None),
        ("GET", "/wallets/{id} (turned away)", None),
        ("POST", "/transfers/batch", None),
        ("POST", "/transfers/batch (refused)", None),
        ("POST", "attack", None),
        ("GET", "attack", None),
        ("PUT", "attack (turned away)", None),
    ],
)
def test_calls_count_for_the_level_of_their_group(
    method: str, name: str, group: str | None
) -> None:
    assert Calls(method, name, 1, 0, {}).group == group


def calls(name: str, times_ms: dict[int, int], failures: int = 0) -> Calls:
    """`name` begins with the method, as a verdict tells it."""
    method, _, rest = name.partition(" ") if name[0].isupper() else ("POST", "", name)
    return Calls(method, rest, sum(times_ms.values()), failures, times_ms)


def levels(*counted: Calls) -> dict[str, float]:
    found, untold = levels_of(counted, p95_ms=500, p99_ms=1000, error_percent=0.1)
    assert untold == []
    return {level.name: level.found for level in found}


def test_each_group_has_its_percentiles_and_all_have_one_error_rate() -> None:
    found, untold = levels_of(
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
    assert untold == []


def test_the_names_of_a_group_are_one_distribution() -> None:
    found = levels(
        calls("POST /transfers", {10: 60}), calls("POST /transfers (refused)", {10: 30, 99: 10})
    )
    assert found["p95 of transfers"] == 99


@pytest.mark.parametrize(
    "name", ["POST /transfers/batch", "POST /transfers (turned away)", "attack"]
)
def test_what_may_take_its_time_may_not_fail(name: str) -> None:
    slow = Calls("POST", name, 100, 50, {60_000: 100})
    found = levels(calls("POST /transfers", {10: 100}), slow)
    assert found == {"p95 of transfers": 10, "p99 of transfers": 10, "error rate": 25}


@pytest.mark.parametrize("answers", [ANSWERS_MIN - 1, ANSWERS_MIN])
def test_of_too_few_answers_nothing_is_said(answers: int) -> None:
    counted = [calls("GET /wallets/{id}", {9_000: answers}), calls("POST /transfers", {1: 80})]
    found, untold = levels_of(counted, p95_ms=500, p99_ms=1000, error_percent=0.1)
    names = [level.name for level in found]
    if answers < ANSWERS_MIN:
        assert names == ["p95 of transfers", "p99 of transfers", "error rate"]
        assert untold == [f"{answers} reads are too few for p95 and p99"]
    else:
        assert names[2:] == ["p95 of reads", "p99 of reads", "error rate"]
        assert untold == []


def test_of_no_request_there_is_no_level() -> None:
    assert levels_of([], 500, 1000, 0.1) == ([], [])
    assert levels_of([calls("GET /wallets/{id}", {})], 500, 1000, 0.1) == (
        [],
        ["0 reads are too few for p95 and p99"],
    )


@pytest.mark.parametrize(
    ("times_ms", "share", "found"),
    [
        ({}, 0.95, 0),
        ({7: 1}, 0.5, 7),
        ({7: 1}, 0.99, 7),
        ({3: 1, 1: 1}, 0.5, 1),
        ({3: 1, 1: 1}, 0.51, 3),
        ({20: 5, 10: 95}, 0.95, 10),
        ({20: 6, 10: 94}, 0.95, 20),
        ({1: 98, 1000: 1, 30: 1}, 0.99, 30),
        ({1: 98, 1000: 2}, 0.99, 1000),
    ],
)
def test_a_percentile_is_the_time_within_which_that_share_came(
    times_ms: dict[int, int], share: float, found: float
) -> None:
    assert percentile(times_ms, share) == found


def test_latencies_are_told_by_name() -> None:
    counted = [
        calls("POST /transfers", {5: 50, 6: 45, 7: 4, 8: 1}, failures=2),
        calls("GET /wallets/{id}", {}),
    ]
    assert latencies(counted) == {
        "POST /transfers": {"p50": 5, "p95": 6, "p99": 7, "requests": 100, "failures": 2}
    }
