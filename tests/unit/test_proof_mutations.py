"""Whatever one mutation breaks in a random true round is noticed, and called by its name."""

from collections.abc import Callable
from dataclasses import replace
from random import Random

import orjson
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from loadtest.proof.check import check
from loadtest.proof.record import Delivery, Entry, Kind, Operation, TransferRow
from tests.unit.edits import answer, deliver_again, drop_row, refuse
from tests.unit.load_test_view import LoadTestView
from tests.unit.true_rounds import NEW, STRANGER, Round, random_round

# Returns the kinds that must tell of it; none where the round has nothing to break that way.
Mutation = Callable[[Round, Random], set[str]]


def some_row(done: Round, random: Random) -> TransferRow:
    return random.choice(list(done.ledger.transfers))


def some_key(done: Round, random: Random, status: int, tries_min: int = 1) -> Operation | None:
    """An operation that was told that status so often."""
    told = [
        operation
        for operation in done.history
        if operation.key and sum(t.status == status for t in operation.tries) >= tries_min
    ]
    return random.choice(told) if told else None


def drop_a_transfer(done: Round, random: Random) -> set[str]:
    drop_row(done, some_row(done, random).id)
    return {"version-gap", "lost-transfer"}


def double_a_transfer(done: Round, random: Random) -> set[str]:
    twin = replace(some_row(done, random), id=NEW)
    done.edit(transfers=[*done.ledger.transfers, twin])
    return {"doubled-transfer", "invented-transfer", "version-gap"}


def change_an_amount(done: Round, random: Random) -> set[str]:
    row = some_row(done, random)
    done.edit_row(row.id, amount=row.amount + random.choice((-1, 1)))
    return {"wrong-balance", "wrong-answer"}


def change_a_side(done: Round, random: Random) -> set[str]:
    name = random.choice(("source", "destination"))
    done.edit_row(some_row(done, random).id, **{name: "other"})
    return {"version-gap", "wrong-answer"}


def bump_a_version(done: Round, random: Random) -> set[str]:
    row, name = some_row(done, random), random.choice(("source_version", "destination_version"))
    done.edit_row(row.id, **{name: getattr(row, name) + random.choice((-1, 1, 100))})
    return {"version-gap"}


def change_a_balance(done: Round, random: Random) -> set[str]:
    row = some_row(done, random)
    name = random.choice(("source_balance_after", "destination_balance_after"))
    done.edit_row(row.id, **{name: getattr(row, name) + random.choice((-1, 1, 100))})
    return {"wrong-balance"}


def change_a_wallet(done: Round, random: Random) -> set[str]:
    wallet, by = random.choice(list(done.ledger.wallets)), random.choice((-1, 1))
    if random.random() < 0.5:
        done.edit_wallet(wallet.id, balance=wallet.balance + by)
        return {"wrong-balance"}
    done.edit_wallet(wallet.id, version=wallet.version + by)
    is_older = wallet.version + by < done.ledger.before[wallet.id].version
    return {"stale-read" if is_older else "version-gap"}


def drop_an_outcome(done: Round, random: Random) -> set[str]:
    status, kind = random.choice(
        ((201, "lost-transfer"), (422, "lost-refusal"), (409, "lost-refusal"))
    )
    operation = some_key(done, random, status)
    if operation is None or done.ledger.outcomes.get(operation.key, (0,))[0] != status:
        return set()
    done.edit_outcome(operation.key)
    return {kind}


def swap_two_outcomes(done: Round, random: Random) -> set[str]:
    first, second = some_key(done, random, 201), some_key(done, random, 201)
    if first is None or second is None or first.key == second.key:
        return set()
    outcomes = done.ledger.outcomes
    mine, other = outcomes[first.key], outcomes[second.key]
    done.edit_outcome(first.key, *other)
    done.edit_outcome(second.key, *mine)
    return {"doubled-transfer"}


def swap_two_events(done: Round, random: Random) -> set[str]:
    first: dict[str, Delivery] = {}
    for each in done.ledger.deliveries:
        first.setdefault(each.event_id, each)
    one, other = (first[some_row(done, random).id] for _ in range(2))
    if one.event_id == other.event_id or not one.versions.keys() & other.versions.keys():
        return set()
    numbers = {one.number: other.number, other.number: one.number}
    done.edit(
        deliveries=[
            replace(each, number=numbers.get(each.number, each.number))
            for each in done.ledger.deliveries
        ]
    )
    return {"unordered-event"}


def lose_an_event(done: Round, random: Random) -> set[str]:
    id = some_row(done, random).id
    done.edit(deliveries=[each for each in done.ledger.deliveries if each.transfer != id])
    return {"lost-event"} if done.ledger.deliveries else set()


def invent_an_event(done: Round, random: Random) -> set[str]:
    row = some_row(done, random)
    deliver_again(done, event_id="e", transfer=NEW, versions={row.source: 10_000})
    return {"invented-event"}


def alter_a_replay(done: Round, random: Random) -> set[str]:
    operation = some_key(done, random, random.choice((201, 422)), tries_min=2)
    if operation is None:
        return set()
    done.edit_try(operation.key, -1, body=operation.tries[-1].body + b" ")
    return {"changed-replay"}


def unmark_a_replay(done: Round, random: Random) -> set[str]:
    operation = some_key(done, random, 201, tries_min=3)
    if operation is None:
        return set()
    done.edit_try(operation.key, -1, replayed=False)
    done.edit_try(operation.key, -2, replayed=False)
    return {"unmarked-replay"}


def tell_something_else(done: Round, random: Random) -> set[str]:
    operation = some_key(done, random, 201)
    if operation is None:
        return set()
    names = ("amount", "source_version", "source_balance_after", "kind", "destination_wallet_id")
    # No balance is as low, so that it is something else.
    done.edit_body(operation.key, -1, **{random.choice(names): -1_000_000_000})
    return {"wrong-answer"}


def tell_of_nothing(done: Round, random: Random) -> set[str]:
    operation = some_key(done, random, 201)
    if operation is None:
        return set()
    done.edit_body(operation.key, -1, id=NEW)
    return {"lost-transfer", "doubled-transfer"}


def refuse_what_was_applied(done: Round, random: Random) -> set[str]:
    operation = some_key(done, random, 201)
    if operation is None:
        return set()
    refuse(done, operation.key, -1, 404, "wallet-not-found")
    told = any(each.status == 201 for each in operation.tries)
    return {"applied-but-refused" if told else "refused-but-applied"}


def apply_what_was_refused(done: Round, random: Random) -> set[str]:
    operation, row = some_key(done, random, 422), some_row(done, random)
    if operation is None:
        return set()
    body = orjson.dumps({"id": row.id})
    done.edit_try(operation.key, -1, status=201, code="", body=body)
    return {"doubled-transfer", "applied-but-refused", "wrong-answer"}


def leave_it_open(done: Round, random: Random) -> set[str]:
    operation = some_key(done, random, random.choice((201, 422)))
    if operation is None:
        return set()
    # The list has them as they began.
    last = max(range(len(operation.tries)), key=lambda number: operation.tries[number].ended_s)
    done.edit_try(operation.key, last, status=random.choice((0, 500, 503)), code="", body=b"")
    return {"unsettled"}


def ask_for_it_last(done: Round, random: Random) -> set[str]:
    """It began after everything was told, and yet others have later versions of its wallet."""
    row = some_row(done, random)
    key = next(key for key, outcome in done.ledger.outcomes.items() if outcome[1] == row.id)
    told = {
        outcome[1]
        for other, outcome in done.ledger.outcomes.items()
        if other != key and any(t.status == 201 for t in done.operation(other).tries)
    }
    tries = done.operation(key).tries
    tries[:] = [replace(t, began_s=t.began_s + 1e6, ended_s=t.ended_s + 1e6) for t in tries]
    later = (r for r in done.ledger.transfers if r.id in told and r.source == row.source)
    return {"wrong-order"} if any(r.source_version > row.source_version for r in later) else set()


def read_another_version(done: Round, random: Random) -> set[str]:
    reads = [o for o in done.history if not o.key and o.min_version and o.tries[0].status == 200]
    if not reads:
        return set()
    read = random.choice(reads)
    view = orjson.loads(read.tries[0].body)
    name, value, kind = random.choice(
        (
            ("version", (read.min_version or 0) - 1, "stale-read"),
            ("version", 10_000, "wrong-answer"),
            ("balance", view["balance"] + 1, "wrong-answer"),
        )
    )
    # Of a version from before the round no balance is known.
    if name == "balance" and view["version"] < done.ledger.before[read.wallet].version:
        return set()
    read.tries[0] = replace(read.tries[0], body=orjson.dumps(view | {name: value}))
    return {kind}


def some_answer(done: Round, random: Random, kind: Kind) -> Operation | None:
    """A question about the past."""
    asked = [each for each in done.history if each.kind is kind]
    return random.choice(asked) if asked else None


def change_a_past_wallet(done: Round, random: Random) -> set[str]:
    asked = some_answer(done, random, Kind.INSTANT)
    if asked is None:
        return set()
    body = orjson.loads(asked.tries[0].body)
    name = random.choice(("version", "balance"))
    answer(asked, **{name: body[name] + random.choice((-1, 1))})
    return {"changed-past"}


def answer_otherwise_later(done: Round, random: Random) -> set[str]:
    asked = some_answer(done, random, random.choice((Kind.INSTANT, Kind.WINDOW)))
    if asked is None:
        return set()
    again = replace(asked, tries=list(asked.tries))
    answer(again, more=True)
    done.history.append(again)
    return {"changed-past"}


def lose_an_entry(done: Round, random: Random) -> set[str]:
    asked = some_answer(done, random, Kind.WINDOW)
    data = [] if asked is None else orjson.loads(asked.tries[0].body)["data"]
    if asked is None or not data:
        return set()
    data.remove(random.choice(data))
    answer(asked, data=data)
    return {"wrong-window"}


def repeat_an_entry(done: Round, random: Random) -> set[str]:
    """Windows that meet have it both, as closed ones would."""
    first = some_answer(done, random, Kind.WINDOW)
    entries = [] if first is None else orjson.loads(first.tries[0].body)["data"]
    if first is None or not entries:
        return set()
    done.history.append(replace(first, since_us=first.until_us, until_us=first.until_us + 1))
    return {"wrong-window"}


def commit_after_the_answer(done: Round, random: Random) -> set[str]:
    """A transfer gets a time before that of an answer that has not seen it."""
    asked = some_answer(done, random, random.choice((Kind.INSTANT, Kind.WINDOW)))
    later = [
        row
        for row in done.ledger.transfers
        if asked is not None
        and asked.wallet in (row.source, row.destination)
        and row.at_us >= asked.until_us > asked.since_us
    ]
    if asked is None or not later:
        return set()
    done.edit_row(random.choice(later).id, at_us=asked.until_us - 1)
    return {"changed-past" if asked.kind is Kind.INSTANT else "wrong-window"}


def set_the_clock_back(done: Round, random: Random) -> set[str]:
    row = some_row(done, random)
    sides = {row.source, row.destination}
    earlier = [
        each.at_us
        for each in done.ledger.transfers
        if each.at_us < row.at_us and not sides.isdisjoint((each.source, each.destination))
    ]
    if not earlier:
        return set()
    done.edit_row(row.id, at_us=min(earlier) - 1)
    return {"decreasing-time"}


MUTATIONS: list[Mutation] = [
    *(change_a_past_wallet, answer_otherwise_later, lose_an_entry, repeat_an_entry),
    *(commit_after_the_answer, set_the_clock_back, drop_a_transfer, double_a_transfer),
    *(change_an_amount, change_a_side, bump_a_version, change_a_balance, change_a_wallet),
    *(drop_an_outcome, swap_two_outcomes, swap_two_events, lose_an_event, invent_an_event),
    *(alter_a_replay, unmark_a_replay, tell_something_else, tell_of_nothing),
    *(refuse_what_was_applied, apply_what_was_refused, leave_it_open, ask_for_it_last),
    read_another_version,
]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
@given(seed=st.integers(0, 2**32))
def test_whatever_a_mutation_breaks_is_noticed(mutation: Mutation, seed: int) -> None:
    random = Random(seed)
    done = random_round(random, operations=25)
    expected = mutation(done, random) if done.ledger.transfers else set()
    event("broken" if expected else "nothing to break that way")
    assert expected <= {each.kind for each in check(done.history, done.ledger)}


# What a load test reads: the statement of one wallet, with one entry that is wrong.

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
def test_no_single_wrong_entry_escapes_the_load_test(row: Row, seed: int, by: int) -> None:
    random = Random(seed)
    view = LoadTestView(random_round(random, operations=12))
    assert view.violations() == []
    entries = random.choice([each for each in view.statements.values() if each] or [[]])
    if entries:
        place = random.randrange(len(entries))
        entries[place : place + 1] = row(entries[place], by)
        assert view.violations() != []


@given(seed=st.integers(0, 2**32))
def test_no_transfer_that_was_not_told_escapes_the_load_test(seed: int) -> None:
    view = LoadTestView(random_round(Random(seed), operations=12))
    if view.history.acknowledged_total:
        size = len(view.history.acknowledged) // view.history.acknowledged_total
        del view.history.acknowledged[:size]
        assert view.kinds() == {"invented-transfer"}
