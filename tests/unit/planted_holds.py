"""The anomalies of holds, as in `planted`, in `hold_round`."""

from collections.abc import Callable
from dataclasses import replace

import orjson

from loadtest.proof.record import ChangeRow, HoldState
from tests.unit.edits import Edit, answer, shift, together
from tests.unit.hold_rounds import h, time_of
from tests.unit.planted import Table
from tests.unit.true_rounds import FUNDING, STRANGER, Round, delivery_of, t


def life(done: Round, hold: str) -> list[ChangeRow]:
    """The changes of a hold, in order."""
    return [row for row in done.ledger.changes if row.hold is not None and row.hold.hold == hold]


def edit_change(hold: str, number: int, **changes: object) -> Edit:
    """Change a change of a hold, or its state, and its event."""

    def edit(done: Round) -> None:
        row = life(done, hold)[number]
        assert row.hold is not None
        state = {name: value for name, value in changes.items() if name in HoldState._fields}
        other = {name: value for name, value in changes.items() if name not in state}
        new = replace(row, hold=row.hold._replace(**state), **other)  # type: ignore[arg-type]
        done.edit(
            changes=[new if each == row else each for each in done.ledger.changes],
            deliveries=[
                delivery_of(each.number, new) if each.event_id == row.event_id else each
                for each in done.ledger.deliveries
            ],
        )

    return edit


def edit_hold(hold: str, **changes: object) -> Edit:
    """Change the row of a hold."""

    def edit(done: Round) -> None:
        rows = [
            replace(row, state=row.state._replace(**changes)) if row.id == hold else row  # type: ignore[arg-type]
            for row in done.ledger.holds
        ]
        done.edit(holds=rows)

    return edit


def edit_both(hold: str, **changes: object) -> Edit:
    """Change the row of a hold and its last change."""
    return together(edit_hold(hold, **changes), edit_change(hold, -1, **changes))


def drop_change(hold: str, number: int) -> Edit:
    def edit(done: Round) -> None:
        row = life(done, hold)[number]
        done.edit(changes=[each for each in done.ledger.changes if each != row])

    return edit


def repeat_change(hold: str, number: int, **changes: object) -> Edit:
    """The wallet that pays gets one more change at the end, with its event, as the service would
    write it."""

    def edit(done: Round) -> None:
        row = life(done, hold)[number]
        wallet = next(each for each in done.ledger.wallets if each.id == row.wallet)
        assert row.hold is not None
        state = {name: value for name, value in changes.items() if name in HoldState._fields}
        other = {name: value for name, value in changes.items() if name not in state}
        new = replace(
            row,
            version=wallet.version + 1,
            balance_after=wallet.balance,
            held_after=wallet.held,
            at_us=10**12,
            hold=row.hold._replace(**state),  # type: ignore[arg-type]
        )
        new = replace(new, **other)  # type: ignore[arg-type]
        done.edit_wallet(wallet.id, version=new.version, held=new.held_after)
        event = delivery_of(900, new)
        done.edit(changes=[*done.ledger.changes, new], deliveries=[*done.ledger.deliveries, event])

    return edit


def drop_operation(name: str) -> Edit:
    """No client sent this request, and no key has its outcome."""

    def edit(done: Round) -> None:
        asked = done.asked[name]
        done.history.remove(asked)
        done.edit_outcome(asked.key)

    return edit


def edit_answer(name: str, **changes: object) -> Edit:
    """Change the body of all answers to an operation."""

    def edit(done: Round) -> None:
        asked = done.asked[name]
        for number, each in enumerate(asked.tries):
            if each.body:
                body = orjson.loads(each.body) | changes
                asked.tries[number] = replace(each, body=orjson.dumps(body))

    return edit


def refuse(name: str, status: int, code: str) -> Edit:
    """All answers to an operation, and its outcome, are this refusal."""

    def edit(done: Round) -> None:
        asked = done.asked[name]
        body = orjson.dumps({"code": code})
        asked.tries[:] = [
            replace(each, status=status, code=code, body=body) for each in asked.tries
        ]
        done.edit_outcome(asked.key, status, None)

    return edit


def ask_again(name: str) -> Edit:
    """One more key has the answer of an operation."""

    def edit(done: Round) -> None:
        asked = done.asked[name]
        done.history.append(replace(asked, key="k99", tries=asked.tries[-1:]))
        done.edit_outcome("k99", asked.tries[-1].status, None)

    return edit


def edit_request(name: str, **changes: object) -> Edit:
    def edit(done: Round) -> None:
        for field, value in changes.items():
            setattr(done.asked[name], field, value)

    return edit


def edit_event(of: str, number: int, **changes: object) -> Edit:
    """Change the event of a change of a hold."""

    def edit(done: Round) -> None:
        id = life(done, of)[number].event_id
        done.edit(
            deliveries=[
                replace(each, **changes) if each.event_id == id else each  # type: ignore[arg-type]
                for each in done.ledger.deliveries
            ]
        )

    return edit


def lose_event(hold: str, number: int) -> Edit:
    def edit(done: Round) -> None:
        id = life(done, hold)[number].event_id
        done.edit(deliveries=[each for each in done.ledger.deliveries if each.event_id != id])

    return edit


def invent_event(done: Round) -> None:
    """An event of a version that the wallet does not have."""
    row = replace(life(done, h(3))[0], version=99)
    done.edit(deliveries=[*done.ledger.deliveries, delivery_of(900, row)])


def shrink(done: Round, amount: int) -> None:
    """Cy had this amount less all the time, and the funding wallet more."""
    shift(done, "cy", -amount)
    shift(done, FUNDING, amount)
    rows = [
        replace(row, balance_after=row.balance_after - amount) if row.wallet == "cy" else row
        for row in done.ledger.changes
    ]
    done.edit(changes=rows)
    read = done.asked["read"]
    answer(read, balance=orjson.loads(read.tries[0].body)["balance"] - amount)


def held(name: str, value: int) -> Callable[[Round], None]:
    """A read shows another amount as held."""
    return lambda done: answer(done.asked[name], held=value)


# fmt: off
PLANTED_IN_HOLDS: Table = (
    # A change is acknowledged and written once.
    ("a new hold is gone",
     "holds.unmatched_change: invented-event lost-hold-change version-gap wrong-hold / version-gap",
     drop_change(h(1), 0)),
    ("an adjustment is gone",
     "holds.unmatched_change: invented-event lost-hold-change version-gap / version-gap",
     drop_change(h(0), 2)),
    ("a release is gone",
     "holds.unmatched_change: invented-event lost-hold-change version-gap wrong-held"
     " wrong-hold / version-gap",
     drop_change(h(1), 1)),
    ("the outcome of a hold is gone", "keys.lost_outcome: lost-hold-change",
     lambda r: r.edit_outcome(r.asked["created"].key)),
    ("a release that was never requested",
     "holds.unmatched_change: invented-hold-change", drop_operation("released")),
    ("a hold that was never requested",
     "holds.unmatched_change: invented-hold-change unexplained-refusal", drop_operation("unheard")),
    ("a release that was refused",
     "holds.unmatched_change: invented-hold-change unexplained-refusal",
     refuse("released", 404, "hold-not-found")),
    ("an adjustment that was refused", "holds.unmatched_change: invented-hold-change",
     refuse("adjusted", 422, "expiry-invalid")),
    ("an adjustment twice",
     "holds.unmatched_change: doubled-hold-change hold-ended-twice late-hold-change"
     " unexplained-refusal wrong-answer wrong-held wrong-hold wrong-order",
     repeat_change(h(0), 2)),
    ("a release of two keys", "holds.unmatched_change: doubled-hold-change", ask_again("released")),
    ("a hold of two keys", "holds.unmatched_change: doubled-hold-change", ask_again("second")),
    ("a release with 201", "keys.wrong_answer: wrong-answer",
     lambda r: r.edit_try(r.asked["released"].key, 0, status=201)),
    # An answer about a hold agrees with the request and the ledger.
    *((f"another {name} is answered", "holds.wrong_hold_answer: wrong-answer",
       edit_answer(who, **{name: value}))
      for who, name, value in (
          ("second", "source_wallet_id", "bob"), ("second", "destination_wallet_id", None),
          ("second", "amount", 31), ("adjusted", "captured", 0), ("released", "released", 29),
          ("adjusted", "remaining", 0), ("released", "status", "active"),
          ("adjusted", "expires_at", time_of(1)), ("released", "updated_at", None))),
    ("an answer without a hold",
     "holds.wrong_hold_answer: wrong-answer", edit_answer("released", id=None)),
    ("a hold of another amount was requested", "holds.wrong_hold_answer: wrong-answer",
     edit_request("second", amount=29)),
    ("a hold of another duration was requested", "holds.wrong_hold_answer: wrong-answer",
     edit_request("second", expires_in_s=60)),
    ("another amount was to be adjusted", "holds.wrong_hold_answer: wrong-answer",
     edit_request("adjusted", amount=51)),
    ("a capture of another hold was requested", "keys.wrong_answer: wrong-answer",
     edit_request("whole", hold=h(1))),
    # The amounts of a hold add up.
    ("more captured than paid",
     "holds.wrong_hold: unpaired-capture wrong-hold", edit_both(h(0), captured=36, released=14)),
    ("ended with something left",
     "holds.wrong_hold: wrong-answer wrong-held wrong-hold", edit_both(h(1), released=29)),
    ("active with something released",
     "holds.wrong_hold: wrong-answer wrong-held wrong-hold", edit_both(h(3), released=1)),
    ("more released than held",
     "holds.wrong_hold: wrong-answer wrong-held wrong-hold", edit_both(h(1), released=31)),
    ("a status that the change does not set", "holds.wrong_hold: wrong-answer wrong-hold",
     edit_both(h(1), status="expired")),
    ("a hold that differs from its last change",
     "holds.wrong_hold: wrong-hold", edit_hold(h(3), amount=41)),
    ("a hold without a row", "holds.wrong_hold: wrong-answer wrong-hold",
     lambda r: r.edit(holds=[row for row in r.ledger.holds if row.id != h(1)])),
    ("a capture of no hold",
     "holds.wrong_hold: unpaired-capture wrong-answer wrong-hold",
     lambda r: r.edit_row(t(2), hold=STRANGER)),
    ("a hold begins twice",
     "holds.wrong_step: doubled-hold-change lost-hold-change wrong-answer wrong-hold wrong-order",
     edit_change(h(0), 2, kind="hold_create")),
    ("a release that captures", "holds.wrong_step: wrong-answer wrong-hold",
     edit_change(h(1), 1, captured=1, released=29)),
    ("an expiry before its time", "holds.wrong_step: changed-past wrong-answer wrong-hold",
     edit_change(h(2), 0, expires_us=10**12)),
    # It ends once, and not after its expiry.
    ("a capture when it is due", "holds.late_change: late-hold-change",
     edit_change(h(4), 0, expires_us=1)),
    ("a release when it is due",
     "holds.late_change: late-hold-change", edit_change(h(1), 0, expires_us=1)),
    ("an adjustment when it is due",
     "holds.late_change: late-hold-change", edit_change(h(0), 1, expires_us=1)),
    ("a capture whose transfer is later than its change", "holds.late_change: late-hold-change",
     lambda r: r.edit_row(t(2), at_us=10**12)),
    ("released, then expired", "holds.ended_twice: hold-ended-twice wrong-hold",
     repeat_change(h(1), 1, kind="hold_expire", status="expired")),
    ("expired twice", "holds.ended_twice: hold-ended-twice", repeat_change(h(2), -1)),
    ("released, then adjusted",
     "holds.ended_twice: hold-ended-twice invented-hold-change late-hold-change wrong-held"
     " wrong-hold",
     repeat_change(h(1), 0, kind="hold_adjust")),
    # A capture is a change and a transfer.
    ("another amount is captured than paid",
     "holds.unpaired_capture: unpaired-capture wrong-held wrong-hold",
     edit_change(h(0), 1, captured=24)),
    ("a capture without its transfer",
     "holds.unpaired_capture: unpaired-capture wrong-answer wrong-hold",
     lambda r: r.edit_row(t(2), hold=None)),
    ("a transfer of a capture without its change",
     "holds.unpaired_capture: invented-event unpaired-capture version-gap wrong-held"
     " wrong-hold / version-gap",
     drop_change(h(4), 1)),
    ("a capture that was to be final",
     "holds.unpaired_capture: wrong-answer", edit_request("part", final=True)),
    ("a capture that was not to be final", "holds.unpaired_capture: wrong-answer",
     edit_request("last", final=False)),
    ("a capture of less than all",
     "holds.unpaired_capture: wrong-answer", edit_request("last", amount=0)),
    # A wallet holds what is left of its holds.
    ("a wallet holds too much",
     "holds.wrong_held: wrong-held", lambda r: r.edit_wallet("cy", held=41)),
    ("a wallet holds too much on the way", "holds.wrong_held: wrong-held",
     edit_change(h(1), 0, held_after=31)),
    ("an ended hold is still held", "holds.wrong_held: wrong-held",
     edit_change(h(1), 1, held_after=30)),
    ("more is held than there is", "holds.wrong_held: wrong-held", lambda r: shrink(r, 61)),
    ("a read shows an ended hold", "times.wrong_read: wrong-answer", held("read", 41)),
    ("a read leaves out a hold that is not due", "times.wrong_read: wrong-answer", held("read", 0)),
    ("a read shows what is due", "times.wrong_read: wrong-answer", held("due read", 20)),
    ("a read shows a part of a hold", "times.wrong_read: wrong-answer", held("due read", 10)),
    ("a past that shows what was due", "past.changed_held: changed-past", held("due past", 20)),
    # A refusal has its reason.
    ("refused as expired, not expired", "holds.unexplained_hold_refusal: unexplained-refusal",
     refuse("over", 409, "hold-expired")),
    ("refused as ended, expired", "holds.unexplained_hold_refusal: unexplained-refusal",
     refuse("due", 409, "hold-not-active")),
    ("refused as too much, with enough", "holds.unexplained_hold_refusal: unexplained-refusal",
     edit_request("excess", amount=20)),
    ("refused as below what is captured, above it",
     "holds.unexplained_hold_refusal: unexplained-refusal",
     edit_request("below", amount=36)),
    ("refused as unknown", "holds.unexplained_hold_refusal: unexplained-refusal",
     refuse("over", 404, "hold-not-found")),
    ("refused, with enough beside the hold", "times.unexplained_refusal: unexplained-refusal",
     edit_request("poor", amount=60)),
    ("a new hold refused, with enough", "times.unexplained_refusal: unexplained-refusal",
     edit_request("poor hold", amount=60)),
    ("a capture refused for insufficient funds", "times.unexplained_refusal: unexplained-refusal",
     refuse("excess", 422, "insufficient-funds")),
    # Each change has an event.
    ("a change without an event", "events.lost_event: lost-event", lose_event(h(0), 2)),
    ("an event of a change that did not happen",
     "events.invented_event: invented-event", invent_event),
    ("an event of another type",
     "events.wrong_event: wrong-event", edit_event(h(1), 1, kind="hold.expired")),
    ("an event of another version",
     "events.wrong_event: wrong-event", edit_event(h(3), 0, versions={"cy": 99})),
    ("an event with another hold", "events.wrong_event: wrong-event",
     lambda r: edit_event(h(1), 1, hold=life(r, h(1))[0].hold)(r)),
    ("an entry of a change is gone",
     "books.wrong_statement: invented-event unexplained-refusal version-gap wrong-held"
     " wrong-hold / version-gap",
     drop_change(h(2), -1)),
)
