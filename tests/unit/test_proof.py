"""A true round breaks no rule, and each planted anomaly is found by its rule."""

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.proof.answers import (
    BACK_PRESSURE,
    DECIDED,
    IN_PROGRESS,
    REFUSALS,
    TURNED_AWAY_CODES,
    Meaning,
    meaning_of,
)
from loadtest.proof.check import RULES, check
from loadtest.proof.evidence import evidence_of
from loadtest.proof.rules import past
from loadtest.proof.rules.events import lost_event, unordered_event
from loadtest.proof.rules.times import old_read
from tests.unit.batch_rounds import batch_round, random_batch_round
from tests.unit.edits import Edit, answer, drop_row, read_older, swap_deliveries
from tests.unit.hold_rounds import hold_round, random_hold_round
from tests.unit.load_test_view import LoadTestView
from tests.unit.planted import PLANTED, PLANTED_IN_THE_PAST
from tests.unit.planted_batches import PLANTED_IN_BATCHES
from tests.unit.planted_holds import PLANTED_IN_HOLDS
from tests.unit.planted_ledgers import PLANTED_IN_LEDGERS
from tests.unit.true_rounds import Round, World, past_round, random_round, t, true_round
from transferd.web.problems import TYPES

NAMED = {
    f"{rule.__module__.rpartition('.')[2]}.{rule.__name__}": rule
    for rule in (*RULES, lost_event, unordered_event)
}
TABLES = (
    (true_round, PLANTED),
    (past_round, PLANTED_IN_THE_PAST),
    (hold_round, PLANTED_IN_HOLDS),
    (batch_round, PLANTED_IN_BATCHES),
    (true_round, PLANTED_IN_LEDGERS),
)
ROWS = [pytest.param(make, *row[1:], id=row[0]) for make, table in TABLES for row in table]


def kinds(done: Round, *, strict_reads: bool = False) -> set[str]:
    return {each.kind for each in check(done.history, done.ledger, strict_reads=strict_reads)}


# Planted anomalies


@pytest.mark.parametrize(("make", "found", "edit"), ROWS)
def test_each_planted_anomaly_is_found_by_its_rule(
    make: Callable[[], Round], found: str, edit: Edit
) -> None:
    name, _, expected = found.partition(": ")
    by_all, _, by_load_test = expected.partition(" / ")
    done = make()
    edit(done)
    assert kinds(done) == set(by_all.split())
    assert LoadTestView(done).kinds() == set(by_load_test.split())
    if name:
        assert list(NAMED[name](evidence_of(done.history, done.ledger))) != []


def test_every_rule_has_a_planted_anomaly() -> None:
    named = {found.partition(":")[0] for _, table in TABLES for _, found, _ in table}
    assert named - {""} == set(NAMED)


def test_a_violation_names_its_subject() -> None:
    done = true_round()
    drop_row(done, t(1))
    texts = [each.text for each in check(done.history, done.ledger) if "lost" in each.kind]
    assert texts == [f"transfer {t(1)} was acknowledged and is not in the ledger"]


# True rounds


@pytest.mark.parametrize(
    "done",
    [
        *(true_round(), past_round(), hold_round(), batch_round()),
        World.with_people("ada").round(),
    ],
)
def test_a_true_round_breaks_no_rule(done: Round) -> None:
    assert check(done.history, done.ledger, strict_reads=True, events=True) == []
    assert LoadTestView(done).violations() == []


@pytest.mark.parametrize("make", [random_round, random_hold_round, random_batch_round])
@given(st.integers(0, 2**32), st.integers(0, 60), st.booleans())
def test_a_random_true_round_breaks_no_rule(
    make: Callable[..., Round], seed: int, operations: int, listening: bool
) -> None:
    done = make(Random(seed), operations=operations, listening=listening)
    assert check(done.history, done.ledger, strict_reads=True, events=listening) == []


def test_clients_that_race_for_one_key_are_one_operation() -> None:
    done = true_round()
    racer = replace(done.operation("k0"), tries=[done.operation("k0").tries.pop()])
    done.history.append(racer)
    assert kinds(done) == set()
    racer.tries[0] = replace(racer.tries[0], body=b"{}")
    assert kinds(done) == {"changed-replay", "wrong-answer"}


# The meaning of answers


@pytest.mark.parametrize(
    ("meaning", "answers"),
    [
        (Meaning.APPLIED, "200 201 299"),
        (Meaning.REFUSED, "404:wallet-not-found 409:not-reversible 422:insufficient-funds 499"),
        (Meaning.REFUSED, "422:idempotency-key-reused"),
        (Meaning.TURNED_AWAY, "400:malformed-json 401:unauthenticated 403:forbidden 413 415"),
        (Meaning.TURNED_AWAY, "422:invalid-request 429:rate-limited 429:mailbox-full"),
        (Meaning.TURNED_AWAY, "503:overloaded 503:draining 503:database-unavailable"),
        (Meaning.OPEN, "0 300 409:request-in-progress 500:internal-error 502 503"),
        (Meaning.OPEN, "504:deadline-exceeded"),
    ],
)
def test_an_answer_has_the_meaning_of_the_contract(meaning: Meaning, answers: str) -> None:
    for each in answers.split():
        status, _, code = each.partition(":")
        assert meaning_of(int(status), code) is meaning, each


def test_each_code_of_the_service_has_one_meaning() -> None:
    assert {*DECIDED, *TURNED_AWAY_CODES, IN_PROGRESS} <= TYPES.keys()
    assert {TYPES[code].status for code in DECIDED} == {404, 409, 422}
    assert {TYPES[code].status for code in REFUSALS} <= {409, 422}
    assert {TYPES[code].status for code in BACK_PRESSURE} == {429}
    assert not DECIDED & (TURNED_AWAY_CODES | BACK_PRESSURE)


# Switches


def test_a_plain_read_may_be_old_unless_reads_are_strict() -> None:
    done = true_round()
    read_older(done, 10, 10, 60)
    assert kinds(done) == set()
    assert kinds(done, strict_reads=True) == {"old-read"}
    assert list(old_read(evidence_of(done.history, done.ledger))) != []


def test_a_version_that_only_a_read_has_shown_counts_as_well() -> None:
    done = true_round()
    read_older(done, 10, 10, 60)
    for operation in done.history[:9]:
        late = [replace(each, ended_s=each.ended_s + 900) for each in operation.tries]
        operation.tries[:] = late
    assert kinds(done, strict_reads=True) == {"old-read"}
    # The reads overlapped until now, so neither was the first.
    [first], [second] = done.history[9].tries, done.history[10].tries
    done.history[10].tries[:] = [replace(second, began_s=first.ended_s)]
    assert kinds(done, strict_reads=True) == set()


def test_a_read_with_a_version_may_be_as_old_as_that_version() -> None:
    done = true_round()
    done.history[9].min_version = 10
    read_older(done, 9, 10, 60)
    assert kinds(done, strict_reads=True) == set()


def test_events_may_overtake_where_deliveries_are_retried() -> None:
    done = true_round()
    swap_deliveries(done)
    assert kinds(done) == {"unordered-event"}
    assert check(done.history, done.ledger, ordered_events=False) == []


def test_a_round_without_deliveries_has_no_receiver_unless_events_are_due() -> None:
    done = true_round()
    done.edit(deliveries=[])
    assert check(done.history, done.ledger) == []
    violations = check(done.history, done.ledger, events=True)
    assert [each.kind for each in violations] == ["lost-event"] * 6


# The past


def test_windows_add_up_from_answers_alone() -> None:
    done = past_round()
    evidence = evidence_of(done.history, done.ledger)
    answer(done.asked["closing"], balance=66)
    [violation] = past.uneven_window(evidence)
    assert "70 plus -5 is not 66" in violation.text


def test_a_question_without_an_answer_proves_nothing() -> None:
    done = past_round()
    for name in ("first", "middle"):
        tries = done.asked[name].tries
        tries[0] = replace(tries[0], status=503, body=b"no")
    assert kinds(done) == set()
