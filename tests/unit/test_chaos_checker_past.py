"""What was said of the past: each broken promise is told by its kinds and no other."""

from collections.abc import Callable
from dataclasses import replace

import orjson
import pytest

from tests.fault.chaos import past_rules
from tests.fault.chaos.checker import check
from tests.fault.chaos.evidence import evidence_of
from tests.fault.chaos.records import Operation
from tests.unit.chaos_rounds import Round, World


class Past:
    """A true round about the past of Ada, and its questions by name."""

    def __init__(self) -> None:
        world = World.with_people("ada", "bob")
        start_us = world.now_us
        self.opening = world.look_back("ada", start_us)
        world.tell(world.asked("ada", "bob", 30))
        world.tell(world.asked("bob", "ada", 5))
        middle_us = world.now_us
        self.first = world.window("ada", start_us, middle_us)
        self.middle = world.look_back("ada", middle_us)
        world.tell(world.asked("ada", "bob", 10))
        end_us = world.now_us + 1
        self.second = world.window("ada", middle_us, end_us)
        self.closing = world.look_back("ada", end_us)
        self.again = world.look_back("ada", middle_us)
        self.round = world.round()


Edit = Callable[[Past], object]


def answer(asked: Operation, **changes: object) -> None:
    body = orjson.loads(asked.tries[0].body)
    asked.tries[0] = replace(asked.tries[0], body=orjson.dumps(body | changes))


def versions(asked: Operation) -> list[int]:
    return [entry["version"] for entry in orjson.loads(asked.tries[0].body)["data"]]


def kinds(done: Round) -> set[str]:
    return {anomaly.kind for anomaly in check(done.history, done.ledger)}


def move_entry(past: Past) -> None:
    """The last change of the first window is told in the second one only."""
    first, second = (orjson.loads(each.tries[0].body)["data"] for each in (past.first, past.second))
    answer(past.first, data=first[1:])
    answer(past.second, data=[*second, first[0]])


def test_a_change_is_not_before_its_own_instant() -> None:
    past = Past()
    assert versions(past.first) == [8]
    assert versions(past.second) == [10, 9]
    assert orjson.loads(past.middle.tries[0].body)["version"] == 8
    assert kinds(past.round) == set()


@pytest.mark.parametrize(
    ("_name", "edit", "expected"),
    [
        (
            "an instant told before its last change was seen",
            lambda p: answer(p.closing, version=9, balance=75),
            {"changed-past", "wrong-window"},
        ),
        (
            "another balance at the right version",
            lambda p: answer(p.again, balance=71),
            {"changed-past", "wrong-window"},
        ),
        (
            "another answer to the same question",
            lambda p: answer(p.again, status="frozen"),
            {"changed-past"},
        ),
        (
            "an entry in no window",
            lambda p: answer(p.first, data=[]),
            {"wrong-window"},
        ),
        (
            "an entry in two windows",
            lambda p: answer(p.second, data=orjson.loads(p.first.tries[0].body)["data"]),
            {"wrong-window"},
        ),
        ("an entry in the window after its own", move_entry, {"wrong-window"}),
        (
            "a window that is told oldest first",
            lambda p: answer(p.second, data=orjson.loads(p.second.tries[0].body)["data"][::-1]),
            {"wrong-window"},
        ),
        (
            "a change that was committed after the answer, with an earlier time",
            lambda p: p.round.edit_row("t1", at_us=p.middle.until_us - 1),
            {"changed-past", "wrong-window"},
        ),
        (
            "a clock that was set back",
            lambda p: p.round.edit_row("t2", at_us=p.opening.until_us + 1),
            {"changed-past", "wrong-window", "decreasing-time"},
        ),
    ],
)
def test_the_past_stays_as_it_was_told(_name: str, edit: Edit, expected: set[str]) -> None:
    past = Past()
    edit(past)
    assert kinds(past.round) == expected


def test_windows_add_up_by_what_was_told_alone() -> None:
    past = Past()
    evidence = evidence_of(past.round.history, past.round.ledger)
    assert list(past_rules.uneven_window(evidence)) == []
    answer(past.closing, balance=66)
    [anomaly] = past_rules.uneven_window(evidence)
    assert "70 and -5 are not 66" in anomaly.text


def test_what_got_no_answer_says_nothing() -> None:
    past = Past()
    for asked in (past.first, past.middle):
        asked.tries[0] = replace(asked.tries[0], status=503, body=b"no")
    assert kinds(past.round) == set()
