"""The damage of each mutation of a random true round is found, under its own name."""

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.proof.check import check
from loadtest.proof.record import Delivery, Entry, Kind, Operation, TransferRow
from tests.unit.edits import answer, deliver_again, drop_row, refuse
from tests.unit.load_test_view import LoadTestView
from tests.unit.planted_ledgers import ELSEWHERE
from tests.unit.true_rounds import NEW, STRANGER, Round, random_round


class NothingToBreak(Exception):
    """The round has no place for the mutation."""


class Broken:
    """A random true round with its parts. A mutation returns the kinds that have to be found."""

    def __init__(self, seed: int, make: Callable[..., Round] = random_round) -> None:
        self.random = Random(seed)
        self.round = make(self.random, operations=25)

    def one_of(self, things: Any) -> Any:
        found = list(things)
        if not found:
            raise NothingToBreak
        return self.random.choice(found)

    def row(self) -> TransferRow:
        row: TransferRow = self.one_of(self.round.ledger.transfers)
        return row

    def edit_row(self, name: str, by: int) -> None:
        row = self.row()
        self.round.edit_row(row.id, **{name: getattr(row, name) + by})

    def key(self, *statuses: int, tries_min: int = 1) -> Operation:
        """An operation that has at least so many answers with these statuses."""
        told: Operation = self.one_of(
            each
            for each in self.round.history
            if each.key and sum(one.status in statuses for one in each.tries) >= tries_min
        )
        return told

    def question(self, *kinds: Kind) -> Operation:
        """A question about the past."""
        asked: Operation = self.one_of(each for each in self.round.history if each.kind in kinds)
        return asked


def body(asked: Operation) -> Any:
    return orjson.loads(asked.tries[0].body)


def drop_a_transfer(b: Broken) -> str:
    drop_row(b.round, b.row().id)
    return "version-gap lost-transfer"


def double_a_transfer(b: Broken) -> str:
    twin = replace(b.row(), id=NEW)
    b.round.edit(transfers=[*b.round.ledger.transfers, twin])
    return "doubled-transfer invented-transfer version-gap"


def change_an_amount(b: Broken) -> str:
    b.edit_row("amount", b.one_of((-1, 1)))
    return "wrong-balance wrong-answer"


def change_a_side(b: Broken) -> str:
    b.round.edit_row(b.row().id, **{b.one_of(("source", "destination")): "other"})
    return "version-gap wrong-answer"


def bump_a_version(b: Broken) -> str:
    b.edit_row(b.one_of(("source_version", "destination_version")), b.one_of((-1, 1, 100)))
    return "version-gap"


def change_a_balance(b: Broken) -> str:
    name = b.one_of(("source_balance_after", "destination_balance_after"))
    b.edit_row(name, b.one_of((-1, 1, 100)))
    return "wrong-balance"


def change_a_wallet(b: Broken) -> str:
    wallet, by = b.one_of(b.round.ledger.wallets), b.one_of((-1, 1))
    if b.one_of((True, False)):
        b.round.edit_wallet(wallet.id, balance=wallet.balance + by)
        return "wrong-balance"
    b.round.edit_wallet(wallet.id, version=wallet.version + by)
    is_older = wallet.version + by < b.round.ledger.before[wallet.id].version
    return "stale-read" if is_older else "version-gap"


def drop_an_outcome(b: Broken) -> str:
    status = b.one_of((201, 422, 409))
    key = b.key(status).key
    if b.round.ledger.outcomes.get(key, (0,))[0] != status:
        raise NothingToBreak
    b.round.edit_outcome(key)
    return "lost-transfer" if status == 201 else "lost-refusal"


def swap_two_outcomes(b: Broken) -> str:
    first, second = b.key(201).key, b.key(201).key
    if first == second:
        raise NothingToBreak
    outcomes = b.round.ledger.outcomes
    mine, other = outcomes[first], outcomes[second]
    b.round.edit_outcome(first, *other)
    b.round.edit_outcome(second, *mine)
    return "doubled-transfer"


def swap_two_events(b: Broken) -> str:
    first: dict[str, Delivery] = {}
    for each in b.round.ledger.deliveries:
        first.setdefault(each.event_id, each)
    one, other = first[b.row().id], first[b.row().id]
    if one.event_id == other.event_id or not one.versions.keys() & other.versions.keys():
        raise NothingToBreak
    numbers = {one.number: other.number, other.number: one.number}
    b.round.edit(
        deliveries=[
            replace(each, number=numbers.get(each.number, each.number))
            for each in b.round.ledger.deliveries
        ]
    )
    return "unordered-event"


def lose_an_event(b: Broken) -> str:
    id = b.row().id
    b.round.edit(deliveries=[e for e in b.round.ledger.deliveries if e.transfer != id])
    return "lost-event" if b.round.ledger.deliveries else ""


def invent_an_event(b: Broken) -> str:
    deliver_again(b.round, event_id="e", transfer=NEW, versions={b.row().source: 10_000})
    return "invented-event"


def alter_a_replay(b: Broken) -> str:
    operation = b.key(b.one_of((201, 422)), tries_min=2)
    b.round.edit_try(operation.key, -1, body=operation.tries[-1].body + b" ")
    return "changed-replay"


def unmark_a_replay(b: Broken) -> str:
    key = b.key(201, tries_min=3).key
    b.round.edit_try(key, -1, replayed=False)
    b.round.edit_try(key, -2, replayed=False)
    return "unmarked-replay"


def tell_something_else(b: Broken) -> str:
    names = ("amount", "source_version", "source_balance_after", "kind", "destination_wallet_id")
    # No balance is as low.
    b.round.edit_body(b.key(201).key, -1, **{b.one_of(names): -1_000_000_000})
    return "wrong-answer"


def tell_of_nothing(b: Broken) -> str:
    b.round.edit_body(b.key(201).key, -1, id=NEW)
    return "lost-transfer doubled-transfer"


def refuse_what_was_applied(b: Broken) -> str:
    operation = b.key(201)
    refuse(b.round, operation.key, -1, 404, "wallet-not-found")
    told = any(each.status == 201 for each in operation.tries)
    return "applied-but-refused" if told else "refused-but-applied"


def apply_what_was_refused(b: Broken) -> str:
    told = orjson.dumps({"id": b.row().id})
    b.round.edit_try(b.key(422).key, -1, status=201, code="", body=told)
    return "doubled-transfer applied-but-refused wrong-answer"


def leave_it_open(b: Broken) -> str:
    operation = b.key(201, 422)
    # The list has them in the order of their beginnings.
    last = max(range(len(operation.tries)), key=lambda number: operation.tries[number].ended_s)
    b.round.edit_try(operation.key, last, status=b.one_of((0, 500, 503)), code="", body=b"")
    return "unsettled"


def ask_for_it_last(b: Broken) -> str:
    """It began after all answers, and others have later versions of its wallet."""
    row, outcomes = b.row(), b.round.ledger.outcomes
    key = next(key for key, outcome in outcomes.items() if outcome[1] == row.id)
    told = {
        outcome[1]
        for other, outcome in outcomes.items()
        if other != key and any(t.status == 201 for t in b.round.operation(other).tries)
    }
    tries = b.round.operation(key).tries
    tries[:] = [replace(t, began_s=t.began_s + 1e6, ended_s=t.ended_s + 1e6) for t in tries]
    later = (r for r in b.round.ledger.transfers if r.id in told and r.source == row.source)
    return "wrong-order" if any(r.source_version > row.source_version for r in later) else ""


def read_another_version(b: Broken) -> str:
    read = b.one_of(
        o for o in b.round.history if not o.key and o.min_version and o.tries[0].status == 200
    )
    view = body(read)
    # The balance of a version from before the round is unknown.
    is_new = view["version"] >= b.round.ledger.before[read.wallet].version
    changes = {"version": (read.min_version - 1, 10_000), "balance": (view["balance"] + 1,)}
    name = b.one_of(("version", "balance") if is_new else ("version",))
    value = b.one_of(changes[name])
    answer(read, **{name: value})
    return "stale-read" if name == "version" and value < read.min_version else "wrong-answer"


def change_a_past_wallet(b: Broken) -> str:
    asked, name = b.question(Kind.INSTANT), b.one_of(("version", "balance"))
    answer(asked, **{name: body(asked)[name] + b.one_of((-1, 1))})
    return "changed-past"


def answer_otherwise_later(b: Broken) -> str:
    asked = b.question(Kind.INSTANT, Kind.WINDOW)
    again = replace(asked, tries=list(asked.tries))
    answer(again, more=True)
    b.round.history.append(again)
    return "changed-past"


def lose_an_entry(b: Broken) -> str:
    asked = b.question(Kind.WINDOW)
    data = body(asked)["data"]
    data.remove(b.one_of(data))
    answer(asked, data=data)
    return "wrong-window"


def repeat_an_entry(b: Broken) -> str:
    """Two windows that meet both have the entry, as closed intervals would."""
    first = b.question(Kind.WINDOW)
    b.one_of(body(first)["data"])
    again = replace(first, since_us=first.until_us, until_us=first.until_us + 1)
    b.round.history.append(again)
    return "wrong-window"


def commit_after_the_answer(b: Broken) -> str:
    """A transfer gets a time before the instant of an answer that lacks it."""
    asked = b.question(Kind.INSTANT, Kind.WINDOW)
    later = b.one_of(
        row
        for row in b.round.ledger.transfers
        if asked.wallet in (row.source, row.destination)
        and row.at_us >= asked.until_us > asked.since_us
    )
    b.round.edit_row(later.id, at_us=asked.until_us - 1)
    return "changed-past" if asked.kind is Kind.INSTANT else "wrong-window"


def set_the_clock_back(b: Broken) -> str:
    row = b.row()
    earlier = [
        each.at_us
        for each in b.round.ledger.transfers
        if each.at_us < row.at_us and each.versions.keys() & row.versions.keys()
    ]
    b.one_of(earlier)
    b.round.edit_row(row.id, at_us=min(earlier) - 1)
    return "decreasing-time"


def name_another_ledgers_wallet(b: Broken) -> str:
    read = b.question(Kind.READ, Kind.INSTANT)
    told = {**orjson.loads(read.tries[0].body or b"{}"), "user_id": ELSEWHERE}
    read.tries[0] = replace(read.tries[0], body=orjson.dumps(told))
    return "foreign-id"


MUTATIONS = [
    *(drop_a_transfer, double_a_transfer, change_an_amount, change_a_side, bump_a_version),
    *(change_a_balance, change_a_wallet, drop_an_outcome, swap_two_outcomes, swap_two_events),
    *(lose_an_event, invent_an_event, alter_a_replay, unmark_a_replay, tell_something_else),
    *(tell_of_nothing, refuse_what_was_applied, apply_what_was_refused, leave_it_open),
    *(ask_for_it_last, read_another_version, change_a_past_wallet, answer_otherwise_later),
    *(lose_an_entry, repeat_an_entry, commit_after_the_answer, set_the_clock_back),
    name_another_ledgers_wallet,
]


def expected_of(mutation: Callable[[Broken], str], broken: Broken) -> set[str]:
    """The kinds that have to be found now; none if the round has no place for the mutation."""
    try:
        return set(mutation(broken).split())
    except NothingToBreak:
        return set()


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
@given(seed=st.integers(0, 2**32))
def test_the_damage_of_a_mutation_is_found(mutation: Callable[[Broken], str], seed: int) -> None:
    broken = Broken(seed)
    expected = expected_of(mutation, broken)
    done = broken.round
    assert expected <= {each.kind for each in check(done.history, done.ledger)}


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_each_mutation_damages_one_of_ten_rounds(mutation: Callable[[Broken], str]) -> None:
    assert any(expected_of(mutation, Broken(seed)) for seed in range(10))


# The statement of one wallet, as a load test reads it, with one wrong entry.

Row = Callable[[Entry, int], list[Entry]]
ROWS: dict[str, Row] = {
    "dropped": lambda entry, by: [],
    "repeated": lambda entry, by: [entry, entry],
    "of a stranger": lambda entry, by: [entry._replace(transfer=STRANGER)],
    "no transfer": lambda entry, by: [entry._replace(transfer=None)],
    "another amount": lambda entry, by: [entry._replace(amount_minor=entry.amount_minor + by)],
    "another balance": lambda entry, by: [
        entry._replace(balance_after_minor=entry.balance_after_minor + by)
    ],
    "another version": lambda entry, by: [entry._replace(version=entry.version + by)],
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
@given(seed=st.integers(0, 2**32), by=st.sampled_from((-(2**40), -2, -1, 1, 2, 2**40)))
def test_the_load_test_finds_every_single_wrong_entry(row: Row, seed: int, by: int) -> None:
    random = Random(seed)
    view = LoadTestView(random_round(random, operations=12))
    assert view.violations() == []
    entries = random.choice([each for each in view.statements.values() if each] or [[]])
    if entries:
        place = random.randrange(len(entries))
        entries[place : place + 1] = row(entries[place], by)
        assert view.violations() != []


@given(seed=st.integers(0, 2**32))
def test_the_load_test_finds_a_transfer_that_was_not_acknowledged(seed: int) -> None:
    view = LoadTestView(random_round(Random(seed), operations=12))
    if view.history.acknowledged_total:
        size = len(view.history.acknowledged) // view.history.acknowledged_total
        del view.history.acknowledged[:size]
        assert view.kinds() == {"invented-transfer"}
