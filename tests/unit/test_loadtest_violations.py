"""When an answer is a violation, what is said of it, and how many are told in full."""

from collections.abc import Mapping

import orjson
import pytest

from loadtest.attacks import ATTACKS, WRONG_KEYS, Attack, complaint_about, wrong_key
from loadtest.proof.answers import Answer, change_of
from loadtest.proof.bounded import replay_violation
from loadtest.proof.history import Answered, Request
from loadtest.proof.violations import (
    BAD_REQUEST_TAKEN,
    CHANGED_REPLAY,
    LOST_TRANSFER,
    SERVER_ERROR_ON_BAD_REQUEST,
    STALE_READ,
    TOLD_OF_A_KIND_MAX,
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
        (201, SAMPLE.answer, "false", "not marked as a replay"),
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
        (b'{"a":1,"b":2}', b'{"a":0,"b":3}', "a 1 became 0"),
        (b'{"a":1}', b"{}", "a 1 became None"),
        (b'{"a":{"b":1}}', b'{"a":{"b":2}}', "a {'b': 1} became {'b': 2}"),
        # What no field tells, the bytes do.
        (b'{"a":1}', b'{"a":1,"b":2}', """b'{"a":1}' became b'{"a":1,"b":2}'"""),
        (b'{"a":1,"b":2}', b'{"b":2,"a":1}', """b'{"a":1,"b":2}' became b'{"b":2,"a":1}'"""),
        (b'{"a":1}', b"[1]", """b'{"a":1}' became b'[1]'"""),
        (b"[1]", b'{"a":1}', """b'[1]' became b'{"a":1}'"""),
        (b"<html>", b"{}", "b'<html>' became b'{}'"),
        (b"1", b"1\n", r"b'1' became b'1\n'"),
        (b"x" * 500, b"", f"b'{'x' * 80}' became b''"),
    ],
)
def test_the_first_difference_is_told(first: bytes, second: bytes, text: str) -> None:
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
        (404, "", WRONG_ANSWER),
        (422, "", WRONG_ANSWER),
        (300, "", WRONG_ANSWER),
        (501, "", WRONG_ANSWER),
        (200, "", BAD_REQUEST_TAKEN),
        (201, "invalid-request", BAD_REQUEST_TAKEN),
        (299, "", BAD_REQUEST_TAKEN),
        (500, "internal-error", SERVER_ERROR_ON_BAD_REQUEST),
    ],
)
def test_nonsense_gets_the_answer_that_was_promised(
    status: int, code: str, kind: str | None
) -> None:
    complaint = complaint_about(NONSENSE, answer(status, code))
    if kind is None:
        assert complaint is None
    else:
        assert complaint is not None
        assert complaint[0] == kind
        assert complaint[1].startswith(f"nonsense: {status} {code}")


def test_a_wrong_answer_says_what_was_expected() -> None:
    _, text = complaint_about(NONSENSE, answer(404, "not-found")) or ("", "")
    assert text.endswith("expected {422: 'invalid-request', 400: 'malformed-json'}")


def assert_of_the_contract(expected: Mapping[int, str]) -> None:
    assert expected
    for status, code in expected.items():
        assert TYPES[code].status == status


@pytest.mark.parametrize("number", range(len(ATTACKS)))
def test_every_attack_expects_what_the_service_knows(number: int) -> None:
    attack = ATTACKS[number](WORLD)
    assert_of_the_contract(attack.expected)
    assert attack.path.startswith("/")
    assert (attack.body is None) == (attack.method == "GET")


def test_every_attack_has_a_name_of_its_own() -> None:
    names = [make(WORLD).name for make in ATTACKS]
    assert len(set(names)) == len(names) > 20


def test_a_transfer_without_its_fault_would_be_a_good_one() -> None:
    (attack,) = (each for each in (make(WORLD) for make in ATTACKS) if each.name == "no key")
    assert attack.body is not None
    assert orjson.loads(attack.body).keys() == {
        "source_wallet_id",
        "destination_wallet_id",
        "amount",
        "currency",
    }


def test_a_wrong_key_goes_with_a_good_transfer() -> None:
    found: dict[str, str] = {}
    while len(found) < len(WRONG_KEYS):
        attack = wrong_key(WORLD)
        found[attack.name] = attack.headers["Authorization"]
        assert_of_the_contract(attack.expected)
        assert orjson.loads(attack.body or b"")["amount"] == 1
    assert found == {name: headers["Authorization"] for name, headers in WRONG_KEYS}


# Violations


def many(kind: str, count: int) -> Violations:
    violations = Violations()
    for number in range(count):
        violations.add(Violation(kind, f"{kind} {number}"))
    return violations


def test_of_each_kind_only_the_first_are_told_in_full() -> None:
    violations = many(LOST_TRANSFER, TOLD_OF_A_KIND_MAX - 1)
    assert violations.add(Violation(LOST_TRANSFER, "the last")) is True
    assert violations.add(Violation(LOST_TRANSFER, "one too many")) is False
    assert violations.add(Violation(STALE_READ, "of another kind")) is True
    assert len(violations.told) == TOLD_OF_A_KIND_MAX + 1
    assert [each.text for each in violations.told[-2:]] == ["the last", "of another kind"]
    assert violations.counts == {LOST_TRANSFER: TOLD_OF_A_KIND_MAX + 1, STALE_READ: 1}
    assert violations.total == TOLD_OF_A_KIND_MAX + 2


@pytest.mark.parametrize(
    ("mine", "others", "told"),
    [
        (0, 0, 0),
        (0, 3, 3),
        (3, 0, 3),
        (3, 4, 7),
        (TOLD_OF_A_KIND_MAX - 1, 2, TOLD_OF_A_KIND_MAX),
        (TOLD_OF_A_KIND_MAX + 9, 2, TOLD_OF_A_KIND_MAX),
        (2, TOLD_OF_A_KIND_MAX + 9, TOLD_OF_A_KIND_MAX),
    ],
)
def test_those_of_two_processes_add_up(mine: int, others: int, told: int) -> None:
    violations, other = many(LOST_TRANSFER, mine), many(LOST_TRANSFER, others)
    violations.merge(other)
    assert violations.total == mine + others
    assert len(violations.told) == told
    assert other == many(LOST_TRANSFER, others)


def test_another_kind_has_room_of_its_own() -> None:
    violations = many(LOST_TRANSFER, TOLD_OF_A_KIND_MAX)
    violations.merge(many(STALE_READ, 2))
    assert [each.kind for each in violations.told[-2:]] == [STALE_READ, STALE_READ]
    assert violations.counts == {LOST_TRANSFER: TOLD_OF_A_KIND_MAX, STALE_READ: 2}


def test_another_process_gets_all_of_them() -> None:
    violations = many(LOST_TRANSFER, TOLD_OF_A_KIND_MAX + 5)
    violations.merge(many(STALE_READ, 1))
    assert Violations.from_message(violations.to_message()) == violations
