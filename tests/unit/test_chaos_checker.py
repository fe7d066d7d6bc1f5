"""A true round is silent, and each switch looks at what it says."""

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fault.chaos.answers import DECIDED, IN_PROGRESS, TURNED_AWAY_CODES, Word, word_of
from tests.fault.chaos.checker import check
from tests.fault.chaos.records import Try
from tests.unit.chaos_plants import (
    drop_row,
    read_older,
    swap_deliveries,
    true_round,
)
from tests.unit.chaos_rounds import Round, World, random_round
from transferd.web.problems import TYPES


def kinds(done: Round, *, strict_reads: bool = False) -> set[str]:
    return {each.kind for each in check(done.history, done.ledger, strict_reads=strict_reads)}


# True rounds


def test_a_true_round_is_silent() -> None:
    done = true_round()
    assert len(done.ledger.transfers) == 6
    assert check(done.history, done.ledger, strict_reads=True, events=True) == []


def test_an_empty_round_is_silent() -> None:
    done = World.with_people("ada").round()
    assert check(done.history, done.ledger, strict_reads=True, events=True) == []


@given(st.integers(0, 2**32), st.integers(0, 60), st.booleans())
def test_whatever_happens_in_a_true_round_it_is_silent(
    seed: int, operations: int, listening: bool
) -> None:
    done = random_round(Random(seed), operations=operations, listening=listening)
    assert check(done.history, done.ledger, strict_reads=True, events=listening) == []


def test_clients_that_race_for_one_key_are_one_operation() -> None:
    done = true_round()
    racer = replace(done.operation("k0"), tries=[done.operation("k0").tries.pop()])
    done.history.append(racer)
    assert kinds(done) == set()
    racer.tries[0] = replace(racer.tries[0], body=b"{}")
    assert kinds(done) == {"changed-replay", "wrong-answer"}


def test_an_anomaly_names_what_it_is_about() -> None:
    done = true_round()
    drop_row(done, "t1")
    lost, *_ = check(done.history, done.ledger)
    assert (lost.kind, lost.text) == ("lost", "key k1: transfer t1 is not in the ledger")


# What an answer says


@pytest.mark.parametrize(
    ("status", "code", "word"),
    [
        (200, "", Word.APPLIED),
        (201, "", Word.APPLIED),
        (299, "", Word.APPLIED),
        (300, "", Word.OPEN),
        (400, "malformed-json", Word.TURNED_AWAY),
        (401, "unauthenticated", Word.TURNED_AWAY),
        (403, "forbidden", Word.TURNED_AWAY),
        (413, "body-too-large", Word.TURNED_AWAY),
        (415, "unsupported-media-type", Word.TURNED_AWAY),
        (422, "invalid-request", Word.TURNED_AWAY),
        (429, "rate-limited", Word.TURNED_AWAY),
        (429, "mailbox-full", Word.TURNED_AWAY),
        (503, "overloaded", Word.TURNED_AWAY),
        (503, "draining", Word.TURNED_AWAY),
        (503, "database-unavailable", Word.TURNED_AWAY),
        (404, "wallet-not-found", Word.REFUSED),
        (409, "not-reversible", Word.REFUSED),
        (422, "insufficient-funds", Word.REFUSED),
        (422, "idempotency-key-reused", Word.REFUSED),
        (499, "", Word.REFUSED),
        (409, "request-in-progress", Word.OPEN),
        (500, "internal-error", Word.OPEN),
        (502, "", Word.OPEN),
        (503, "", Word.OPEN),
        (504, "deadline-exceeded", Word.OPEN),
        (0, "", Word.OPEN),
    ],
)
def test_an_answer_says_what_the_contract_says_of_it(status: int, code: str, word: Word) -> None:
    assert word_of(Try(0, 1, status, code)) is word


def test_the_codes_are_those_of_the_service() -> None:
    assert {*DECIDED, *TURNED_AWAY_CODES, IN_PROGRESS} <= TYPES.keys()
    assert {TYPES[code].status for code in DECIDED} == {404, 409, 422}


# Switches


def test_a_plain_read_may_be_old_unless_reads_are_strict() -> None:
    done = true_round()
    read_older(done, 10, 10, 60)
    assert kinds(done) == set()
    assert kinds(done, strict_reads=True) == {"old-read"}


def test_a_version_that_only_a_read_has_told_must_not_be_forgotten_either() -> None:
    done = true_round()
    read_older(done, 10, 10, 60)
    for operation in done.history[:9]:
        late = [replace(each, ended_s=each.ended_s + 900) for each in operation.tries]
        operation.tries[:] = late
    assert kinds(done, strict_reads=True) == {"old-read"}
    # It began before the other read had ended, so neither is the first.
    [first], [second] = done.history[9].tries, done.history[10].tries
    done.history[10].tries[:] = [replace(second, began_s=first.ended_s)]
    assert kinds(done, strict_reads=True) == set()


def test_a_read_that_names_its_version_is_held_to_that_one_only() -> None:
    done = true_round()
    done.history[9].min_version = 10
    read_older(done, 9, 10, 60)
    assert kinds(done, strict_reads=True) == set()


def test_events_may_overtake_where_deliveries_are_tried_again() -> None:
    done = true_round()
    swap_deliveries(done)
    assert kinds(done) == {"unordered-event"}
    assert check(done.history, done.ledger, ordered_events=False) == []


def test_without_any_delivery_nobody_listened_unless_events_were_due() -> None:
    done = true_round()
    done.edit(deliveries=[])
    assert check(done.history, done.ledger) == []
    anomalies = check(done.history, done.ledger, events=True)
    assert [each.kind for each in anomalies] == ["lost-event"] * 6
