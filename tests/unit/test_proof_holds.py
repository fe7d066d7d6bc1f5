"""Planted damage of holds: each is found under its own name, and true records have none."""

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.proof import violations
from loadtest.proof.hold_record import (
    ADJUST,
    CAPTURE,
    CREATE,
    EXPIRE,
    HOLD_RECORD_BYTES,
    RELEASE,
)
from loadtest.proof.record import Entry
from tests.unit.true_holds import ADA, BOB, HoldRecord, h, random_holds, true_holds
from tests.unit.true_rounds import STRANGER, t

Edit = Callable[[HoldRecord], object]


def several(*edits: Edit) -> Edit:
    """One edit after the other."""

    def edit(record: HoldRecord) -> None:
        for each in edits:
            each(record)

    return edit


def place_of(record: HoldRecord, kind: str, hold: int, number: int = 0) -> int:
    """The place of an entry in Ada's statement."""
    entries = enumerate(record.statements[ADA])
    places = [place for place, each in entries if (each.kind, each.hold) == (kind, h(hold))]
    return places[number]


def edit_entry(record: HoldRecord, of_kind: str, of_hold: int, **changes: object) -> None:
    edit_entry_at(record, place_of(record, of_kind, of_hold), **changes)


def edit_entry_at(record: HoldRecord, place: int, **changes: object) -> None:
    entry = record.statements[ADA][place]
    record.statements[ADA][place] = entry._replace(**changes)  # type: ignore[arg-type]


def drop(record: HoldRecord, kind: str, hold: int) -> None:
    """The change never happened: later versions move up, and what is held stays."""
    place = place_of(record, kind, hold)
    entries = record.statements[ADA]
    before = entries[place - 1].held_after_minor if place else 0
    by_minor = entries[place].held_after_minor - before
    del entries[place]
    for later, entry in list(enumerate(entries))[place:]:
        held = entry.held_after_minor - by_minor
        entries[later] = entry._replace(version=entry.version - 1, held_after_minor=held)
    final = record.final[ADA]
    held = final.held_minor - by_minor
    record.final[ADA] = final._replace(version=final.version - 1, held_minor=held)


def edit_hold(record: HoldRecord, hold: int, **changes: object) -> None:
    """GET shows another value, also in the list of active holds."""
    state = record.known[h(hold)]
    assert state is not None
    record.known[h(hold)] = changed = state._replace(**changes)  # type: ignore[arg-type]
    record.active = [changed if each.id == changed.id else each for each in record.active]


def unanswered(record: HoldRecord, act: Callable[[HoldRecord], object]) -> None:
    """The service does this, and no answer has it."""
    changes = bytes(record.history.hold_changes)
    transfers = bytes(record.history.acknowledged)
    act(record)
    record.history.hold_changes[:] = changes
    record.history.acknowledged[:] = transfers


def executed(record: HoldRecord, act: Callable[[HoldRecord], object], id: str) -> None:
    """Like `unanswered`; its key shows that it was executed."""
    unanswered(record, act)
    record.executed.add(id)


def unwritten(record: HoldRecord, act: Callable[[HoldRecord], object]) -> None:
    """An answer has this, and the service has not done it."""
    final, known, active = dict(record.final), dict(record.known), list(record.active)
    statements = {wallet: list(entries) for wallet, entries in record.statements.items()}
    act(record)
    record.final, record.known, record.active = final, known, active
    record.statements = statements


def reserve_otherwise(record: HoldRecord, by_minor: int) -> None:
    """Wallet and active holds agree, and the statement says something else."""
    final = record.final[ADA]
    record.final[ADA] = final._replace(held_minor=final.held_minor + by_minor)
    edit_hold(record, 3, amount_minor=60 + by_minor, remaining_minor=50 + by_minor)


def drop_transfer(record: HoldRecord, id: str) -> None:
    """Ada's statement lacks the transfer of a capture; versions and balances have no gap."""
    entries = record.statements[ADA]
    [place] = [place for place, each in enumerate(entries) if each.transfer == id]
    amount = entries.pop(place).amount_minor
    for later, entry in list(enumerate(entries))[place:]:
        balance = entry.balance_after_minor - amount
        entries[later] = entry._replace(version=entry.version - 1, balance_after_minor=balance)
    final = record.final[ADA]
    balance = final.balance_minor - amount
    record.final[ADA] = final._replace(version=final.version - 1, balance_minor=balance)


def adjust_nothing(record: HoldRecord) -> None:
    """The answer about h3 is as after its last change, and has the time of that change."""
    now_us = record.now_us
    entries = record.statements[ADA]
    record.now_us = entries[place_of(record, CAPTURE, 3)].at_us - 1_000_000
    unwritten(record, lambda record: record.adjust(h(3), 60))
    record.now_us = now_us


def end_again(record: HoldRecord) -> None:
    """One more answer says that it was the final capture of h0; it has the same transfer."""
    changes = record.history.hold_changes
    [final] = [
        changes[start : start + HOLD_RECORD_BYTES]
        for start in range(0, len(changes), HOLD_RECORD_BYTES)
        if changes[start + 21]
    ]
    changes += final


def capture_at_expiry(record: HoldRecord) -> None:
    record.now_us = record.made[h(3)].expires_us - 1_000_000
    record.capture(h(3), 1)


# fmt: off
PLANTED: tuple[tuple[str, str, Edit], ...] = (
    ("nothing", "", lambda r: None),
    # Each acknowledged change is in the statement once, and nothing else is.
    ("a creation is gone", "invented-hold-change lost-hold-change wrong-answer wrong-held",
     several(lambda r: r.capture(r.create(9), 2),
             lambda r: drop(r, CREATE, 5))),
    ("a hold is in no statement", "lost-hold-change",
     lambda r: unwritten(r, lambda r: r.create(9))),
    ("an adjustment is gone", "lost-hold-change wrong-answer wrong-held wrong-hold",
     lambda r: drop(r, ADJUST, 0)),
    ("a release was not written", "lost-hold-change wrong-hold",
     lambda r: unwritten(r, lambda r: r.release(h(3)))),
    ("a capture was not written", "lost-hold-change lost-transfer wrong-hold",
     lambda r: unwritten(r, lambda r: r.capture(h(3), 1))),
    ("a refused adjustment changed the hold", "invented-hold-change wrong-hold",
     lambda r: unanswered(r, lambda r: r.adjust(h(3), 61))),
    ("a refused hold was made", "invented-hold-change",
     lambda r: unanswered(r, lambda r: r.create(9))),
    ("a refused release ended the hold", "invented-hold-change wrong-hold",
     lambda r: unanswered(r, lambda r: r.release(h(3)))),
    ("a refused capture was paid", "invented-hold-change invented-transfer wrong-hold",
     lambda r: unanswered(r, lambda r: r.capture(h(3), 1))),
    ("a capture is paid twice", "invented-hold-change invented-transfer wrong-hold",
     lambda r: unanswered(r, lambda r: r.capture(h(3), 10))),
    ("a change under a key that was turned away", "",
     lambda r: executed(r, lambda r: r.adjust(h(3), 61), h(3))),
    ("an expiry, for which nothing asks", "", lambda r: r.expire(h(3))),
    ("an adjustment that changes nothing", "", adjust_nothing),
    ("another time than answered", "invented-hold-change lost-hold-change",
     lambda r: edit_entry(r, ADJUST, 0, at_us=r.now_us + 1)),
    ("another hold than answered", "wrong-held wrong-hold lost-hold-change invented-hold-change",
     lambda r: edit_entry(r, ADJUST, 0, hold=h(3))),
    ("a hold is created twice", "invented-hold-change lost-hold-change wrong-held wrong-hold",
     lambda r: edit_entry(r, ADJUST, 0, kind=CREATE)),
    # A capture is a change of the hold and then a transfer.
    ("a capture without its transfer", "lost-transfer wrong-answer wrong-held wrong-hold",
     lambda r: drop_transfer(r, t(0))),
    ("a capture of another hold", "invented-hold-change lost-transfer wrong-held wrong-hold",
     lambda r: edit_entry(r, "capture", 0, hold=h(3))),
    ("a capture without a change of the hold",
     "invented-hold-change lost-hold-change wrong-held wrong-hold",
     lambda r: edit_entry(r, CAPTURE, 4, kind="freeze", hold=None)),
    # No hold is captured above its amount, and its parts add up.
    ("captured above the hold", "captured-above-hold wrong-hold", lambda r: r.capture(h(3), 51)),
    ("adjusted below what is captured", "captured-above-hold wrong-hold",
     lambda r: r.adjust(h(3), 9)),
    ("more is captured than answered", "wrong-hold",
     lambda r: edit_hold(r, 0, captured_minor=81, released_minor=69)),
    ("parts that do not add up", "wrong-hold", lambda r: edit_hold(r, 1, released_minor=39)),
    ("a negative part", "wrong-hold",
     lambda r: edit_hold(r, 1, released_minor=41, remaining_minor=-1)),
    ("another amount", "wrong-hold",
     lambda r: edit_hold(r, 0, amount_minor=151, released_minor=71)),
    ("another wallet", "wrong-hold", lambda r: edit_hold(r, 0, wallet=BOB)),
    ("another expiry than answered", "wrong-hold",
     lambda r: edit_hold(r, 3, expires_us=10**15 * 2)),
    ("a hold that cannot be read", "wrong-hold", lambda r: r.known.update({h(0): None})),
    # Its status names its end.
    ("released, shown as expired", "wrong-hold", lambda r: edit_hold(r, 1, status="expired")),
    ("captured, shown as active", "wrong-hold", lambda r: edit_hold(r, 0, status="active")),
    ("active, shown as captured", "wrong-hold", lambda r: edit_hold(r, 4, status="captured")),
    ("active, and not in the list", "wrong-held wrong-hold", lambda r: r.active.pop(0)),
    # What a wallet holds is what its active holds reserve.
    ("a wallet holds too much", "wrong-held",
     lambda r: r.final.update({ADA: r.final[ADA]._replace(held_minor=51)})),
    ("wallet and holds differ from the statement", "wrong-held wrong-hold",
     lambda r: reserve_otherwise(r, 1)),
    ("another amount than answered, until the next change", "wrong-hold",
     several(lambda r: r.adjust(h(3), 70), lambda r: r.adjust(h(3), 80),
             lambda r: edit_entry_at(r, -2, held_after_minor=61))),
    ("held on the way", "wrong-held",
     lambda r: edit_entry(r, RELEASE, 1, held_after_minor=1)),
    ("a transfer changes what is held", "wrong-held",
     lambda r: edit_entry(r, "capture", 4, held_after_minor=1)),
    # A hold ends once, and its expiry is exact.
    ("released after its release", "hold-ended-twice", lambda r: r.release(h(1))),
    ("captured after its end", "captured-above-hold hold-ended-twice wrong-held wrong-hold",
     lambda r: r.capture(h(1), 1)),
    ("two answers ended it", "hold-ended-twice lost-hold-change wrong-hold", end_again),
    ("a release of a hold that was captured", "hold-ended-twice lost-hold-change wrong-hold",
     lambda r: unwritten(r, lambda r: r.release(h(0)))),
    ("an expiry after its release", "hold-ended-twice wrong-hold", lambda r: r.expire(h(1))),
    ("expired before its expiry", "wrong-expiry",
     lambda r: edit_entry(r, EXPIRE, 2, at_us=r.made[h(2)].expires_us - 1)),
    ("captured at its expiry", "wrong-expiry", capture_at_expiry),
)
# fmt: on


@pytest.mark.parametrize(("kinds", "edit"), [pytest.param(*row[1:], id=row[0]) for row in PLANTED])
def test_planted_damage_of_holds_is_named(kinds: str, edit: Edit) -> None:
    record = true_holds()
    edit(record)
    found = record.violations()
    assert {each.kind for each in found} == set(kinds.split()), found


def test_each_kind_has_planted_damage() -> None:
    of_holds = {
        *(violations.LOST_HOLD_CHANGE, violations.INVENTED_HOLD_CHANGE, violations.WRONG_HOLD),
        *(violations.WRONG_HELD, violations.CAPTURED_ABOVE_HOLD, violations.HOLD_ENDED_TWICE),
        violations.WRONG_EXPIRY,
    }
    assert of_holds <= {kind for _, kinds, _ in PLANTED for kind in kinds.split()}


@given(seed=st.integers(0, 2**32), operations=st.integers(0, 40))
def test_a_true_record_of_holds_has_no_violation(seed: int, operations: int) -> None:
    assert random_holds(Random(seed), operations=operations).violations() == []


# One wrong entry of the payer's statement.

Row = Callable[[Entry], list[Entry]]
ROWS: dict[str, Row] = {
    "dropped": lambda entry: [],
    "repeated": lambda entry: [entry, entry],
    "of another hold": lambda entry: [entry._replace(hold=STRANGER)],
    "of no hold": lambda entry: [entry._replace(hold=None)],
    "another held": lambda entry: [entry._replace(held_after_minor=entry.held_after_minor + 1)],
    "another time": lambda entry: [entry._replace(at_us=entry.at_us - 10**13)],
    **{
        f"as {kind}": lambda entry, kind=kind: [entry._replace(kind=kind)]  # type: ignore[misc]
        for kind in (CREATE, ADJUST, RELEASE, EXPIRE, CAPTURE)
    },
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
@given(seed=st.integers(0, 2**32))
def test_every_single_wrong_entry_about_a_hold_is_found(row: Row, seed: int) -> None:
    random = Random(seed)
    record = random_holds(random, operations=12)
    entries = record.statements[ADA]
    place = random.choice([n for n, each in enumerate(entries) if each.transfer is None])
    edited = row(entries[place])
    if edited != [entries[place]]:
        entries[place : place + 1] = edited
        assert record.violations() != []


# One wrong value of a hold.

AMOUNTS = ("amount_minor", "captured_minor", "released_minor", "remaining_minor", "expires_us")
STATUSES = ("active", "captured", "released", "expired")


@given(seed=st.integers(0, 2**32), by=st.sampled_from((-(2**40), -1, 1, 2**40)))
def test_every_single_wrong_value_of_a_hold_is_found(seed: int, by: int) -> None:
    random = Random(seed)
    record = random_holds(random, operations=12)
    id = random.choice(list(record.known))
    state = record.known[id]
    assert state is not None
    name = random.choice(AMOUNTS)
    edit_hold(record, int(id[:8]), **{name: getattr(state, name) + by})
    assert record.violations() != []


@given(seed=st.integers(0, 2**32), status=st.sampled_from(STATUSES))
def test_every_wrong_status_of_a_hold_is_found(seed: int, status: str) -> None:
    random = Random(seed)
    record = random_holds(random, operations=12)
    id = random.choice(list(record.known))
    state = record.known[id]
    assert state is not None
    if status != state.status:
        edit_hold(record, int(id[:8]), status=status)
        assert record.violations() != []


@given(seed=st.integers(0, 2**32))
def test_a_change_that_no_answer_has_is_found(seed: int) -> None:
    random = Random(seed)
    record = random_holds(random, operations=12)
    changes = record.history.hold_changes
    start = HOLD_RECORD_BYTES * random.randrange(len(changes) // HOLD_RECORD_BYTES)
    del changes[start : start + HOLD_RECORD_BYTES]
    assert "invented-hold-change" in record.kinds()


def test_without_answers_statements_and_holds_are_still_compared() -> None:
    record = true_holds()
    assert record.kinds(keep=False) == set()
    edit_hold(record, 0, captured_minor=81, released_minor=69)
    assert record.kinds(keep=False) == {"wrong-hold"}
