"""Books, order and events: each broken promise is told by its kinds and no other."""

import pytest

from tests.fault.chaos.records import Try, WalletRow
from tests.unit.chaos_plants import (
    Edit,
    Plant,
    add_old_wallet,
    add_wallet,
    answer_read,
    assert_told,
    deliver,
    deliver_again,
    deliver_old,
    explain_nothing,
    forget_before,
    grant,
    late_start,
    lose_wallet,
    read_older,
    refuse_bob,
    shift,
    sink,
    swap_deliveries,
    together,
)
from tests.unit.chaos_rounds import FUNDING

BOOKS: list[Plant] = [
    (
        "a balance in the middle",
        lambda r: r.edit_row("t1", destination_balance_after=1),
        {"wrong-balance"},
    ),
    ("a version is left out", lambda r: r.edit_wallet("cy", version=11), {"version-gap"}),
    (
        "a version too many",
        lambda r: r.edit_wallet("cy", version=9),
        {"version-gap", "wrong-balance"},
    ),
    (
        "a version twice",
        lambda r: r.edit_row("t5", destination_version=9),
        {"version-gap", "wrong-event", "wrong-order"},
    ),
    (
        "a row twice",
        lambda r: r.edit(transfers=[*r.ledger.transfers, r.row("t5")]),
        {"doubled", "version-gap"},
    ),
    (
        "a wallet goes back",
        lambda r: r.edit_wallet("ada", version=6),
        {"version-gap", "wrong-answer"},
    ),
    (
        "an idle wallet goes back",
        lambda r: r.edit(
            wallets=[*r.ledger.wallets, WalletRow("di", "USD", 0, 0, 1)],
            before={**r.ledger.before, "di": WalletRow("di", "USD", 0, 0, 2)},
        ),
        {"version-gap"},
    ),
    (
        "a wallet changes by itself",
        lambda r: r.edit_wallet("cy", overdraft_limit=5),
        {"version-gap"},
    ),
    (
        "a wallet changes its currency",
        lambda r: r.edit_wallet("cy", currency="EUR"),
        {"version-gap", "wrong-balance"},
    ),
    ("a wallet is gone", lambda r: lose_wallet(r, "cy"), {"version-gap", "wrong-balance"}),
    (
        "a wallet was never there",
        together(lambda r: lose_wallet(r, "cy"), lambda r: forget_before(r, "cy")),
        {"version-gap", "wrong-balance"},
    ),
    ("a wallet is new", lambda r: forget_before(r, "cy"), {"version-gap"}),
    ("an idle new wallet", lambda r: add_wallet(r, WalletRow("di", "USD", 0, 0, 0)), set()),
    (
        "a new wallet with money",
        lambda r: add_wallet(
            r, WalletRow("di", "EUR", 5, 0, 0), WalletRow("fe", "EUR", -5, 0, 0, True)
        ),
        {"wrong-balance"},
    ),
    (
        "a balance on the way",
        lambda r: r.edit_row("t5", destination_balance_after=1),
        {"wrong-balance"},
    ),
    (
        "a balance at the source",
        lambda r: r.edit_row("t5", source_balance_after=1),
        {"wrong-balance", "wrong-answer"},
    ),
    ("a balance at the end", lambda r: r.edit_wallet("cy", balance=1), {"wrong-balance"}),
    (
        "other balances before and after",
        together(
            lambda r: shift(r, "cy", 1),
            lambda r: shift(r, "bob", -1),
            lambda r: r.edit_body("k1", 1, source_balance_after=79),
            lambda r: r.edit_body("k3", 0, source_balance_after=69),
        ),
        set(),
    ),
    ("money from nowhere", lambda r: shift(r, "cy", 1), {"wrong-balance"}),
    ("below the limit", lambda r: r.edit_wallet("cy", balance=-1), {"wrong-balance"}),
    (
        "an idle wallet below its limit",
        lambda r: add_old_wallet(
            r, WalletRow("di", "EUR", -6, 5, 3), WalletRow("fe", "EUR", 6, 0, 3, True)
        ),
        {"wrong-balance"},
    ),
    (
        "an idle wallet at its limit",
        lambda r: add_old_wallet(
            r, WalletRow("di", "EUR", -5, 5, 3), WalletRow("fe", "EUR", 5, 0, 3, True)
        ),
        set(),
    ),
    ("below the limit on the way", lambda r: sink(r, 151), {"wrong-balance"}),
    ("at the limit on the way", lambda r: sink(r, 150), set()),
]


@pytest.mark.parametrize(("_name", "edit", "expected"), BOOKS, ids=[name for name, _, _ in BOOKS])
def test_the_books_of_each_wallet_add_up(_name: str, edit: Edit, expected: set[str]) -> None:
    assert_told(edit, expected)


TIMES: list[Plant] = [
    ("an older version than asked for", lambda r: read_older(r, 9, 10, 60), {"stale-read"}),
    ("an older version, not asked for", lambda r: read_older(r, 10, 10, 60), set()),
    ("another balance", lambda r: read_older(r, 10, 11, 56), {"wrong-answer"}),
    ("a version that never was", lambda r: read_older(r, 10, 12, 55), {"wrong-answer"}),
    ("another wallet", lambda r: setattr(r.history[10], "wallet", "bob"), {"wrong-answer"}),
    ("a read of nothing", lambda r: answer_read(r, 10, Try(1, 2, 200, body=b"")), {"wrong-answer"}),
    (
        "a read without version",
        lambda r: answer_read(r, 10, Try(1, 2, 200, body=b"{}")),
        {"wrong-answer"},
    ),
    ("a read that failed", lambda r: answer_read(r, 10, Try(1, 2, 503, "overloaded")), set()),
    (
        "a read that was too early",
        lambda r: answer_read(r, 9, Try(1, 2, 412, "version-not-reached")),
        set(),
    ),
    ("the first was asked for last", lambda r: late_start(r, "k0"), {"wrong-order"}),
    ("a receiver goes first", lambda r: late_start(r, "k1"), {"wrong-order"}),
    ("the last was asked for last", lambda r: late_start(r, "k8"), set()),
    ("refused with enough", lambda r: explain_nothing(r, 70), {"unexplained-refusal"}),
    ("refused with one too little", lambda r: explain_nothing(r, 71), set()),
    (
        "refused with an overdraft",
        together(lambda r: explain_nothing(r, 75), lambda r: grant(r, "ada", 5)),
        {"unexplained-refusal"},
    ),
    (
        "refused, with less before it was asked for",
        lambda r: refuse_bob(r, 72, 800),
        {"unexplained-refusal"},
    ),
    ("refused, with less while it was asked for", lambda r: refuse_bob(r, 72, 1), set()),
    (
        "refused, with enough while it was asked for",
        lambda r: refuse_bob(r, 70, 1),
        {"unexplained-refusal"},
    ),
    (
        "refused to give back what was left",
        lambda r: setattr(r.operation("k7"), "amount", 20),
        {"unexplained-refusal"},
    ),
    (
        "refused to give back one too much",
        lambda r: setattr(r.operation("k7"), "amount", 21),
        set(),
    ),
    (
        "refused to give back before others did",
        lambda r: r.edit_try("k7", 0, began_s=0.1, ended_s=0.2),
        {"unexplained-refusal"},
    ),
    (
        "refused for a transfer of nobody",
        lambda r: setattr(r.operation("k7"), "original", "x"),
        set(),
    ),
    ("refused for a wallet of nobody", lambda r: setattr(r.operation("k2"), "source", "x"), set()),
]


@pytest.mark.parametrize(("_name", "edit", "expected"), TIMES, ids=[name for name, _, _ in TIMES])
def test_whoever_asks_later_sees_what_was_told_before(
    _name: str, edit: Edit, expected: set[str]
) -> None:
    assert_told(edit, expected)


EVENTS: list[Plant] = [
    (
        "an event of none for one wallet",
        lambda r: deliver_again(r, event_id="e", transfer="x", versions={"ada": 99, "bob": 1}),
        {"invented-event", "unordered-event"},
    ),
    ("no event of one", lambda r: r.edit(deliveries=r.ledger.deliveries[:-1]), {"lost-event"}),
    (
        "an event of none",
        lambda r: deliver_again(r, event_id="e", transfer="x", versions={"ada": 8}),
        {"invented-event", "unordered-event"},
    ),
    ("an event of before", deliver_old, set()),
    (
        "an event without transfer",
        lambda r: deliver_again(r, event_id="e", transfer=None, versions={"ada": 99}),
        set(),
    ),
    (
        "another version in an event",
        lambda r: deliver(r, 5, versions={FUNDING: 4, "cy": 11}),
        {"wrong-event"},
    ),
    (
        "another version when it comes again",
        lambda r: deliver_again(r, versions={"ada": 8}),
        {"wrong-event"},
    ),
    ("events the wrong way round", swap_deliveries, {"unordered-event"}),
    ("rows the wrong way round", lambda r: r.edit(deliveries=r.ledger.deliveries[::-1]), set()),
    ("an event again, late", deliver_again, set()),
    ("events that wait", lambda r: r.edit(waiting_events=1), {"waiting-event"}),
]


@pytest.mark.parametrize(("_name", "edit", "expected"), EVENTS, ids=[name for name, _, _ in EVENTS])
def test_each_transfer_has_an_event_that_arrives_in_order(
    _name: str, edit: Edit, expected: set[str]
) -> None:
    assert_told(edit, expected)
