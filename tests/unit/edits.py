"""Edits that make a true round wrong, step by step."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson

from loadtest.proof.record import Delivery, Kind, Operation, TransferRow, Try, WalletRow
from tests.unit.true_rounds import FUNDING, NEW, STRANGER, Round, body_of, t

Edit = Callable[[Round], object]


def together(*edits: Edit) -> Edit:
    """One edit after the other."""

    def edit(done: Round) -> None:
        for each in edits:
            each(done)

    return edit


def drop_row(done: Round, id: str) -> None:
    done.edit(transfers=[row for row in done.ledger.transfers if row.id != id])


def add_row(done: Round, row: TransferRow) -> None:
    """As the service would write it: both wallets and an event follow."""
    wallets = {wallet.id: wallet for wallet in done.ledger.wallets}
    source, destination = wallets[row.source], wallets[row.destination]
    row = replace(
        row,
        source_version=source.version + 1,
        source_balance_after=source.balance - row.amount,
        destination_version=destination.version + 1,
        destination_balance_after=destination.balance + row.amount,
        at_us=10**12,
    )
    done.edit_wallet(source.id, version=source.version + 1, balance=row.source_balance_after)
    destination_balance = row.destination_balance_after
    done.edit_wallet(row.destination, version=row.destination_version, balance=destination_balance)
    event = Delivery(900, row.id, "transfer.posted", row.id, row.versions)
    done.edit(transfers=[*done.ledger.transfers, row], deliveries=[*done.ledger.deliveries, event])


def copy_row(done: Round, id: str, **changes: object) -> None:
    add_row(done, replace(done.row(id), id=NEW, **changes))  # type: ignore[arg-type]


def copy_for_key(done: Round, id: str, key: str) -> None:
    copy_row(done, id)
    done.edit_outcome(key, 201, NEW)


def answer_other_id(done: Round, key: str, id: str) -> None:
    for number in range(len(done.operation(key).tries)):
        done.edit_body(key, number, id=id)


def apply_asked(done: Round, key: str) -> None:
    """The request is executed, although its client got another answer or none."""
    asked = done.operation(key)
    original = asked.original or None
    add_row(
        done,
        TransferRow(NEW, asked.source, asked.destination, asked.amount, 0, 0, 0, 0, original),
    )
    done.edit_outcome(key, 201, NEW)


def refuse(done: Round, key: str, number: int, status: int, code: str) -> None:
    done.edit_try(key, number, status=status, code=code, body=b"no")


def one_refusal_of_many(done: Round) -> None:
    """k0 was applied; the answer to its repetition is that the key belongs to another request."""
    refuse(done, "k0", 1, 422, "idempotency-key-reused")


def read_older(done: Round, read: int, version: int, balance: int) -> None:
    """Change version and balance in the answer to one of the two reads at the end."""
    answer(done.history[read], version=version, balance=balance)


def answer(asked: Operation, **changes: object) -> None:
    """Change members of the answer to a question."""
    body = orjson.loads(asked.tries[0].body)
    asked.tries[0] = replace(asked.tries[0], body=orjson.dumps(body | changes))


def window(done: Round, name: str) -> Any:
    """The entries in the answer about a window."""
    return orjson.loads(done.asked[name].tries[0].body)["data"]


def move_entry(done: Round) -> None:
    """The last change of the first window is in the answer about the second one only."""
    first, second = window(done, "first"), window(done, "second")
    answer(done.asked["first"], data=first[1:])
    answer(done.asked["second"], data=[*second, first[0]])


def ask_again(done: Round, **changes: object) -> None:
    """One more operation whose answer is t4."""
    told = done.operation("k6")
    done.history.append(replace(told, key="k99", tries=told.tries[-1:], **changes))  # type: ignore[arg-type]
    done.edit_outcome("k99", 201, t(4))


def reverse_above(done: Round) -> None:
    """k7, which was refused, returns 25 of the 30, of which 10 had been returned."""
    apply_asked(done, "k7")
    done.operation("k7").tries[:] = [Try(900, 901, 0), told(done, NEW, 902)]


def reverse(done: Round, original: str, source: str, destination: str) -> None:
    """One more reversal, which is executed and acknowledged."""
    done.history.append(
        Operation(Kind.REVERSAL, "k99", source, destination, 1, original, tries=[Try(900, 901, 0)])
    )
    apply_asked(done, "k99")
    done.operation("k99").tries.append(told(done, NEW, 902))


def told(done: Round, id: str, at_s: float) -> Try:
    return Try(at_s, at_s + 1, 201, body=body_of(done.row(id)))


def end_open(done: Round, key: str, status: int, code: str = "") -> None:
    done.operation(key).tries.append(Try(900, 901, status, code))


def only_open_then(done: Round, status: int, code: str) -> None:
    """k5 got no answer and then back-pressure: its outcome is unknown."""
    done.operation("k5").tries[:] = [Try(900, 901, 0), Try(902, 903, status, code)]


def move_by(done: Round, amount: int) -> None:
    """t5 and everything after it on its wallets moves another amount than the requested one."""
    row = done.row(t(5))
    done.edit_row(
        t(5),
        amount=row.amount + amount,
        source_balance_after=row.source_balance_after - amount,
        destination_balance_after=row.destination_balance_after + amount,
    )
    for wallet, sign in ((row.source, -1), (row.destination, 1)):
        holds = next(w.balance for w in done.ledger.wallets if w.id == wallet)
        done.edit_wallet(wallet, balance=holds + sign * amount)


def deliver(done: Round, number: int, **changes: object) -> None:
    """Change one delivery; None drops it."""
    deliveries = [
        replace(each, **changes) if each.number == number else each  # type: ignore[arg-type]
        for each in done.ledger.deliveries
    ]
    done.edit(deliveries=deliveries)


def deliver_again(done: Round, **changes: object) -> None:
    """The first event arrives once more, after all others."""
    again = replace(done.ledger.deliveries[0], number=99, **changes)  # type: ignore[arg-type]
    done.edit(deliveries=[*done.ledger.deliveries, again])


def swap_deliveries(done: Round) -> None:
    first, second, *rest = done.ledger.deliveries
    done.edit(deliveries=[replace(first, number=1), replace(second, number=0), *rest])


def explain_nothing(done: Round, amount: int) -> None:
    """k2 requested this amount, and was refused."""
    done.operation("k2").amount = amount


def late_start(done: Round, key: str) -> None:
    """All tries of the operation happened after all others."""
    tries = done.operation(key).tries
    tries[:] = [replace(t, began_s=t.began_s + 900, ended_s=t.ended_s + 900) for t in tries]


def forget_before(done: Round, wallet: str) -> None:
    done.edit(before={id: row for id, row in done.ledger.before.items() if id != wallet})


def lose_wallet(done: Round, wallet: str) -> None:
    done.edit(wallets=[each for each in done.ledger.wallets if each.id != wallet])


def shift(done: Round, wallet: str, amount: int) -> None:
    """The wallet had this amount more all the time, and the funding wallet less."""
    rows = [
        replace(
            row,
            source_balance_after=row.source_balance_after + amount * (row.source == wallet),
            destination_balance_after=row.destination_balance_after
            + amount * (row.destination == wallet),
        )
        for row in done.ledger.transfers
    ]
    before = dict(done.ledger.before)
    before[wallet] = replace(before[wallet], balance=before[wallet].balance + amount)
    done.edit(transfers=rows, before=before)
    holds = {each.id: each.balance for each in done.ledger.wallets}
    done.edit_wallet(wallet, balance=holds[wallet] + amount)


def sink(done: Round, amount: int) -> None:
    """Cy had this amount less all the time, down to a balance below zero."""
    shift(done, "cy", -amount)
    shift(done, FUNDING, amount)
    done.edit_body("k8", 0, source_balance_after=done.row(t(5)).source_balance_after)


def deliver_old(done: Round) -> None:
    """An event from before the round arrives first."""
    old = Delivery(-1, "e", "transfer.posted", STRANGER, {"ada": 7})
    done.edit(deliveries=[old, *done.ledger.deliveries])


def refuse_bob(done: Round, amount: int, began_s: float) -> None:
    """Bob, who had 70 before k6 and has 75 since, is refused."""
    refused = replace(done.operation("k2").tries[0], began_s=began_s, ended_s=900.0)
    done.history.append(Operation(Kind.TRANSFER, "k99", "bob", "ada", amount, tries=[refused]))
    done.edit_outcome("k99", 422, None)


def grant(done: Round, wallet: str, overdraft_limit: int) -> None:
    """The wallet has this overdraft limit, since before the round."""
    before = dict(done.ledger.before)
    before[wallet] = replace(before[wallet], overdraft_limit=overdraft_limit)
    done.edit_wallet(wallet, overdraft_limit=overdraft_limit)
    done.edit(before=before)


def add_wallet(done: Round, *rows: WalletRow) -> None:
    """New wallets that no transfer touches."""
    done.edit(wallets=[*done.ledger.wallets, *rows])


def add_old_wallet(done: Round, *rows: WalletRow) -> None:
    """Unchanged wallets that no transfer touches."""
    add_wallet(done, *rows)
    done.edit(before={**done.ledger.before, **{row.id: row for row in rows}})


def answer_read(done: Round, read: int, each: Try) -> None:
    """Replace the answer to one of the two reads at the end."""
    done.history[read].tries[0] = each
