"""The damage of each mutation of a random true round with holds is found, under its own name."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.proof.check import check
from loadtest.proof.record import ChangeRow, Delivery, HoldState, Kind, Operation
from tests.unit.edits import answer
from tests.unit.hold_rounds import random_hold_round
from tests.unit.test_proof_mutations import Broken, body, expected_of


def of_a_hold(b: Broken, *kinds: str) -> tuple[ChangeRow, HoldState]:
    """A change of one of these kinds, or of any, and its hold."""
    row: ChangeRow = b.one_of(
        row for row in b.round.ledger.changes if not kinds or row.kind in kinds
    )
    assert row.hold is not None
    return row, row.hold


def rewrite(b: Broken, row: ChangeRow, new: ChangeRow | None) -> None:
    """Replace a change, or drop it."""
    rows = [new if each == row else each for each in b.round.ledger.changes]
    b.round.edit(changes=[each for each in rows if each is not None])


def change_of_hold(b: Broken, *kinds: Kind) -> Operation:
    """An operation with an acknowledged change of a hold."""
    asked: Operation = b.one_of(
        each
        for each in b.round.history
        if each.kind in kinds and any(one.status in (200, 201) for one in each.tries)
    )
    return asked


def lose_a_change(b: Broken) -> str:
    row, _ = of_a_hold(b)
    rewrite(b, row, None)
    return "version-gap"


def double_a_change(b: Broken) -> str:
    row, _ = of_a_hold(b)
    again = replace(row, version=row.version + 100)
    b.round.edit(changes=[*b.round.ledger.changes, again])
    if row.kind in ("hold_release", "hold_expire"):
        return "hold-ended-twice version-gap"
    return "doubled-hold-change" if row.kind != "hold_capture" else "unpaired-capture"


def forget_a_request(b: Broken) -> str:
    asked = change_of_hold(b, Kind.HOLD, Kind.ADJUST, Kind.RELEASE)
    b.round.history.remove(asked)
    b.round.edit_outcome(asked.key)
    return "invented-hold-change"


def drop_an_outcome(b: Broken) -> str:
    b.round.edit_outcome(change_of_hold(b, Kind.HOLD, Kind.ADJUST, Kind.RELEASE).key)
    return "lost-hold-change"


def capture_another_amount(b: Broken) -> str:
    row, hold = of_a_hold(b, "hold_capture")
    rewrite(b, row, replace(row, hold=hold._replace(captured=hold.captured + 1)))
    return "unpaired-capture"


def change_the_row_of_a_hold(b: Broken) -> str:
    row = b.one_of(b.round.ledger.holds)
    name = b.one_of(("amount", "captured", "released", "expires_us"))
    state = row.state._replace(**{name: getattr(row.state, name) + b.one_of((-1, 1))})
    rows = [replace(row, state=state) if each == row else each for each in b.round.ledger.holds]
    b.round.edit(holds=rows)
    return "wrong-hold"


def change_what_is_held(b: Broken) -> str:
    by = b.one_of((-1, 1))
    if b.one_of((True, False)):
        row, _ = of_a_hold(b)
        rewrite(b, row, replace(row, held_after=row.held_after + by))
    else:
        id = of_a_hold(b)[0].wallet
        wallet = next(each for each in b.round.ledger.wallets if each.id == id)
        b.round.edit_wallet(id, held=wallet.held + by)
    return "wrong-held"


def change_it_when_it_is_due(b: Broken) -> str:
    row, hold = of_a_hold(b, "hold_adjust", "hold_capture", "hold_release")
    before = max(
        (
            each
            for each in b.round.ledger.changes
            if each.hold and each.hold.hold == hold.hold and each.version < row.version
        ),
        key=lambda each: each.version,
    )
    assert before.hold is not None
    due = before.hold._replace(expires_us=row.at_us)
    rewrite(b, before, replace(before, hold=due))
    return "late-hold-change"


def lose_an_event(b: Broken) -> str:
    row, _ = of_a_hold(b)
    events = b.round.ledger.deliveries
    b.round.edit(deliveries=[each for each in events if each.event_id != row.event_id])
    return "lost-event" if b.round.ledger.deliveries else ""


def deliver_another_state(b: Broken) -> str:
    event: Delivery = b.one_of(each for each in b.round.ledger.deliveries if each.hold is not None)
    assert event.hold is not None
    other = replace(event, hold=event.hold._replace(amount=event.hold.amount + 1))
    events = [other if each == event else each for each in b.round.ledger.deliveries]
    b.round.edit(deliveries=events)
    return "wrong-event"


def answer_something_else(b: Broken) -> str:
    asked = change_of_hold(b, Kind.HOLD, Kind.ADJUST, Kind.RELEASE)
    number = next(n for n, one in enumerate(asked.tries) if one.status in (200, 201))
    b.round.edit_body(asked.key, number, **{b.one_of(("amount", "captured", "remaining")): -1})
    return "wrong-answer"


def show_more_as_held(b: Broken) -> str:
    asked = b.one_of(
        each
        for each in b.round.history
        if each.kind in (Kind.READ, Kind.INSTANT) and each.tries[0].status == 200
    )
    # A read of a version from before the round shows nothing as held.
    answer(asked, held=body(asked)["held"] + 1_000)
    return "wrong-answer" if asked.kind is Kind.READ else "changed-past"


MUTATIONS = [
    *(lose_a_change, double_a_change, forget_a_request, drop_an_outcome, capture_another_amount),
    *(change_the_row_of_a_hold, change_what_is_held, change_it_when_it_is_due, lose_an_event),
    *(deliver_another_state, answer_something_else, show_more_as_held),
]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
@given(seed=st.integers(0, 2**32))
def test_the_damage_of_a_mutation_is_found(mutation: Callable[[Broken], str], seed: int) -> None:
    broken = Broken(seed, random_hold_round)
    expected = expected_of(mutation, broken)
    done = broken.round
    assert expected <= {each.kind for each in check(done.history, done.ledger)}


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_each_mutation_damages_one_of_ten_rounds(mutation: Callable[[Broken], str]) -> None:
    assert any(expected_of(mutation, Broken(seed, random_hold_round)) for seed in range(10))
