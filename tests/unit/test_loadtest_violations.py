"""Answers that are violations, their texts, and the number that is reported in full."""

import orjson
import pytest

from loadtest.attacks import ATTACKS, Attack, complaint_about
from loadtest.proof.answers import Answer, change_of
from loadtest.proof.bounded import replay_violation
from loadtest.proof.history import Answered, Request
from loadtest.proof.violations import (
    BAD_REQUEST_TAKEN,
    CHANGED_REPLAY,
    LOST_TRANSFER,
    REPORTED_OF_A_KIND_MAX,
    SERVER_ERROR_ON_BAD_REQUEST,
    WRONG_ANSWER,
    Violation,
    Violations,
)
from loadtest.world import World
from transferd.web.problems import TYPES

# Replays

SAMPLE = Answered(Request("/transfers", "k1", b"{}"), 201, b'{"id":"1","amount":5}')


@pytest.mark.parametrize(
    ("status", "body", "replayed", "words"),
    [
        (200, SAMPLE.answer, "true", "201 became 200"),
        (409, b'{"code":"request-in-progress"}', "", "201 became 409"),
        (201, b'{"id":"2","amount":5}', "true", "id '1' became '2' when repeated"),
        (201, SAMPLE.answer, "", "not marked as a replay"),
    ],
)
def test_a_replay_has_the_status_and_the_bytes_of_the_first_answer(
    status: int, body: bytes, replayed: str, words: str
) -> None:
    assert replay_violation(SAMPLE, SAMPLE.status, SAMPLE.answer, "true") is None
    violation = replay_violation(SAMPLE, status, body, replayed)
    assert violation is not None
    assert violation.kind == CHANGED_REPLAY
    assert violation.text.startswith("/transfers with key k1: ")
    assert violation.text.endswith(words)


@pytest.mark.parametrize(
    ("first", "second", "text"),
    [
        (b'{"a":1,"b":2}', b'{"a":1,"b":3}', "b 2 became 3"),
        (b'{"a":1}', b"{}", "a 1 became None"),
        # The fields are equal and the bytes differ.
        (b'{"a":1}', b'{"a":1,"b":2}', """b'{"a":1}' became b'{"a":1,"b":2}'"""),
        (b'{"a":1,"b":2}', b'{"b":2,"a":1}', """b'{"a":1,"b":2}' became b'{"b":2,"a":1}'"""),
        (b'{"a":1}', b"[1]", """b'{"a":1}' became b'[1]'"""),
        (b"<html>", b"{}", "b'<html>' became b'{}'"),
        (b"1", b"1\n", r"b'1' became b'1\n'"),
        (b"x" * 500, b"", f"b'{'x' * 80}' became b''"),
    ],
)
def test_the_first_difference_is_reported(first: bytes, second: bytes, text: str) -> None:
    assert change_of((201, first), (201, first)) is None
    assert change_of((201, first), (201, second)) == f"{text} when repeated"


# Attacks

WORLD = World(
    run="r",
    currency="USD",
    shoppers=[f"s{number}" for number in range(20)],
    merchants=["m0", "m1"],
    employers=["e0"],
    treasuries=["t0", "t1"],
    purses=["p0"],
)
NONSENSE = Attack("nonsense", {422: "invalid-request", 400: "malformed-json"})


def answer(status: int, code: str = "") -> Answer:
    body = {"code": code} if code else {}
    return Answer(status, {}, orjson.dumps(body), body)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (422, "invalid-request", None),
        (400, "malformed-json", None),
        (422, "malformed-json", WRONG_ANSWER),
        (400, "invalid-request", WRONG_ANSWER),
        (404, "not-found", WRONG_ANSWER),
        (300, "", WRONG_ANSWER),
        (501, "", WRONG_ANSWER),
        (200, "", BAD_REQUEST_TAKEN),
        (201, "invalid-request", BAD_REQUEST_TAKEN),
        (500, "internal-error", SERVER_ERROR_ON_BAD_REQUEST),
    ],
)
def test_a_bad_request_gets_one_of_the_expected_answers(
    status: int, code: str, kind: str | None
) -> None:
    complaint = complaint_about(NONSENSE, answer(status, code))
    if kind is None:
        assert complaint is None
    else:
        assert complaint is not None
        assert complaint[0] == kind
        assert complaint[1].startswith(f"nonsense: {status} {code}")


@pytest.mark.parametrize("number", range(len(ATTACKS)))
def test_every_attack_expects_a_problem_with_its_status(number: int) -> None:
    attack = ATTACKS[number](WORLD)
    assert attack.expected
    assert {code: TYPES[code].status for code in attack.expected.values()} == {
        code: status for status, code in attack.expected.items()
    }
    assert attack.path.startswith("/")
    assert (attack.body is None) == (attack.method == "GET")


# Violations


def many(kind: str, count: int) -> Violations:
    violations = Violations()
    for number in range(count):
        violations.add(Violation(kind, f"{kind} {number}"))
    return violations


@pytest.mark.parametrize(
    ("mine", "others", "full"),
    [
        (0, 0, 0),
        (3, 4, 7),
        (REPORTED_OF_A_KIND_MAX - 1, 2, REPORTED_OF_A_KIND_MAX),
        (REPORTED_OF_A_KIND_MAX + 9, 2, REPORTED_OF_A_KIND_MAX),
        (2, REPORTED_OF_A_KIND_MAX + 9, REPORTED_OF_A_KIND_MAX),
    ],
)
def test_violations_of_two_processes_add_up(mine: int, others: int, full: int) -> None:
    violations, other = many(LOST_TRANSFER, mine), many(LOST_TRANSFER, others)
    violations.merge(other)
    assert violations.total == mine + others
    assert len(violations.reported) == full
    assert other == many(LOST_TRANSFER, others)
