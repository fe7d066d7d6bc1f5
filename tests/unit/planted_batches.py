"""The anomalies of batches and of frozen wallets, as in `planted`, in `batch_round`."""

from dataclasses import replace

import orjson

from loadtest.proof.record import ChangeRow
from tests.unit.edits import Edit
from tests.unit.hold_rounds import h
from tests.unit.planted import Table
from tests.unit.planted_holds import edit_change, refuse
from tests.unit.true_rounds import Round, t


def edit_result(name: str, number: int, **changes: object) -> Edit:
    """Change one result in all answers to a batch."""

    def edit(done: Round) -> None:
        tries = done.asked[name].tries
        for place, each in enumerate(tries):
            body = orjson.loads(each.body)
            body["results"][number] |= changes
            tries[place] = replace(each, body=orjson.dumps(body))

    return edit


def drop_result(name: str) -> Edit:
    """The answers to a batch lack their last result."""

    def edit(done: Round) -> None:
        tries = done.asked[name].tries
        for place, each in enumerate(tries):
            body = orjson.loads(each.body)
            del body["results"][-1]
            tries[place] = replace(each, body=orjson.dumps(body))

    return edit


def refuse_item(name: str, number: int, code: str) -> Edit:
    """The answers to a batch refuse an item for another reason, or one that was posted."""

    def edit(done: Round) -> None:
        tries = done.asked[name].tries
        for place, each in enumerate(tries):
            body = orjson.loads(each.body)
            body["results"][number] = {"status": 422, "code": code}
            tries[place] = replace(each, body=orjson.dumps(body))

    return edit


def refuse_whole(name: str, code: str) -> Edit:
    """The atomic batch was refused for another reason."""

    def edit(done: Round) -> None:
        tries = done.asked[name].tries
        for place, each in enumerate(tries):
            body = orjson.loads(each.body)
            body["refusal"]["code"] = code
            tries[place] = replace(each, body=orjson.dumps(body))

    return edit


def edit_items(name: str, number: int, **changes: object) -> Edit:
    """Another item was requested."""

    def edit(done: Round) -> None:
        items = list(done.asked[name].items)
        items[number] = replace(items[number], **changes)  # type: ignore[arg-type]
        done.asked[name].items = items

    return edit


def status_change(done: Round, kind: str) -> ChangeRow:
    return next(row for row in done.ledger.changes if row.kind == kind)


def edit_status(of: str, **changes: object) -> Edit:
    """Change a freeze or unfreeze in the ledger."""

    def edit(done: Round) -> None:
        row = status_change(done, of)
        new = replace(row, **changes)  # type: ignore[arg-type]
        done.edit(changes=[new if each == row else each for each in done.ledger.changes])

    return edit


def no_freeze(done: Round) -> None:
    """No client asked for the freeze."""
    asked = done.asked["freeze"]
    done.history.remove(asked)
    done.edit_outcome(asked.key)


def freeze_of_two_keys(done: Round) -> None:
    asked = done.asked["freeze"]
    done.history.append(replace(asked, key="k99"))
    done.edit_outcome("k99", 200, None)


# fmt: off
PLANTED_IN_BATCHES: Table = (
    # The items of a batch are judged like single requests.
    ("an item is answered with another amount",
     "keys.wrong_answer: wrong-answer / invented-transfer wrong-answer",
     edit_result("mixed", 0, amount=6)),
    ("a capture of a batch for another hold",
     "keys.wrong_answer: wrong-answer",
     edit_items("whole", 1, hold=h(2))),
    ("a capture of a batch that was to be final",
     "holds.unpaired_capture: wrong-answer",
     edit_items("mixed", 1, final=True)),
    ("a batch without one of its results",
     "keys.wrong_answer: invented-transfer torn-batch wrong-answer / invented-transfer"
     " wrong-answer",
     drop_result("whole")),
    ("an item that was refused is posted",
     "transfers.unmatched: invented-transfer unexplained-refusal / invented-transfer",
     refuse_item("mixed", 0, "insufficient-funds")),
    ("an item refused for funds, with enough",
     "times.unexplained_refusal: unexplained-refusal",
     edit_items("mixed", 2, amount=50)),
    ("an atomic batch refused for a hold that is not over",
     "holds.unexplained_hold_refusal: unexplained-refusal",
     refuse_whole("none", "hold-expired")),
    ("the outcome of a batch is gone",
     "keys.lost_outcome: lost-outcome lost-transfer",
     lambda r: r.edit_outcome(r.asked["whole"].key)),
    ("the outcome of a refused batch is gone",
     "keys.lost_outcome: lost-refusal",
     lambda r: r.edit_outcome(r.asked["none"].key)),
    # A batch is one transaction.
    ("an atomic batch refuses one item",
     "batches.torn_batch: invented-transfer torn-batch unexplained-refusal / invented-transfer",
     refuse_item("whole", 2, "insufficient-funds")),
    ("a transfer of a batch is gone",
     "batches.torn_batch: invented-event lost-transfer torn-batch version-gap / lost-transfer"
     " version-gap",
     lambda r: r.edit(
        transfers=[row for row in r.ledger.transfers if row.id != t(4)])),
    ("a transfer of a batch has another time",
     "batches.torn_batch: torn-batch",
     lambda r: r.edit_row(t(4), at_us=r.row(t(4)).at_us + 1)),
    # Each freeze and unfreeze is in the ledger once.
    ("a freeze is not in the ledger",
     "frozen.unmatched_status: lost-status-change",
     edit_status("freeze", kind="update")),
    ("a freeze that was never requested",
     "frozen.unmatched_status: invented-status-change unexplained-refusal",
     no_freeze),
    ("a freeze of two keys",
     "frozen.unmatched_status: doubled-status-change",
     freeze_of_two_keys),
    ("a freeze is answered as active",
     "frozen.unmatched_status: wrong-answer",
     lambda r: r.edit_body(
        r.asked["freeze"].key, 0, status="active")),
    ("the outcome of a freeze is gone",
     "keys.lost_outcome: lost-outcome",
     lambda r: r.edit_outcome(r.asked["freeze"].key)),
    # A frozen wallet pays nothing, and reserves no more.
    ("a capture of a frozen wallet",
     "frozen.moved_while_frozen: invented-status-change lost-status-change moved-while-frozen",
     edit_status("unfreeze", kind="freeze")),
    ("a larger hold of a frozen wallet",
     "frozen.moved_while_frozen: moved-while-frozen wrong-answer wrong-held",
     edit_change(h(2), 1, amount=21)),
    # A refusal because of a frozen wallet has its reason.
    ("refused as frozen before the freeze",
     "frozen.unexplained_frozen: invented-transfer unexplained-refusal / invented-transfer",
     refuse("thawed", 409, "wallet-frozen")),
    ("refused as frozen, another wallet",
     "frozen.unexplained_frozen: invented-transfer unexplained-refusal / invented-transfer",
     refuse("credit", 409, "wallet-frozen")),
    ("an item refused as frozen, another wallet",
     "frozen.unexplained_frozen: unexplained-refusal",
     refuse_item("mixed", 2, "wallet-frozen")),
)
# fmt: on
