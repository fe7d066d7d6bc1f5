"""The ledger against what was acknowledged: silent if all is well, and no planted fault escapes."""

import pytest

from loadtest.truth.compare import compare_sums
from loadtest.truth.history import Acknowledged, by_id, unpacked
from loadtest.truth.violations import (
    DOUBLED_TRANSFER,
    INVENTED_TRANSFER,
    LOST_TRANSFER,
    STALE_READ,
    VERSION_GAP,
    WRONG_ANSWER,
    WRONG_BALANCE,
)
from loadtest.world import State
from tests.unit.runs import ADA, BOB, EVE, IDA, NOBODY, Run


def busy_run() -> Run:
    """Ada pays one by one, Bob pays a batch, and Ida has nothing to do with it."""
    run = Run()
    run.pay(ADA, BOB, 100)
    run.pay(ADA, EVE, 30)
    for amount_minor in (5, 6, 7):
        run.pay(BOB, EVE, amount_minor)
    run.pay(EVE, ADA, 1)
    return run


def test_a_run_without_fault_has_no_violation() -> None:
    assert busy_run().violations() == []


def test_a_run_in_which_nothing_happened_has_no_violation() -> None:
    assert Run().violations() == []


def test_entries_that_are_no_transfer_have_no_sides_and_keep_their_place() -> None:
    run = busy_run()
    run.post(ADA, None, 0)
    run.pay(ADA, BOB, 2)
    assert run.violations() == []
    del run.rows[ADA][-2]
    assert run.kinds == [VERSION_GAP]


def test_an_acknowledged_transfer_is_lost_if_it_is_on_neither_side() -> None:
    run = busy_run()
    lost = run.new_id()
    run.tell(lost, ADA, BOB, 10)
    assert run.kinds == [LOST_TRANSFER]
    assert lost in run.texts[0]


@pytest.mark.parametrize(("wallet", "amount_minor"), [(ADA, -10), (BOB, 10)])
def test_an_acknowledged_transfer_is_lost_if_it_is_on_one_side(
    wallet: str, amount_minor: int
) -> None:
    run = busy_run()
    half = run.new_id()
    run.post(wallet, half, amount_minor)
    run.tell(half, ADA, BOB, 10)
    assert run.kinds == [LOST_TRANSFER, WRONG_BALANCE]
    assert any(half in text for text in run.texts)


def test_a_transfer_that_nobody_was_told_of_is_invented_once() -> None:
    run = busy_run()
    run.post(ADA, NOBODY, -10)
    run.post(BOB, NOBODY, 10)
    assert run.kinds == [INVENTED_TRANSFER]
    assert NOBODY in run.texts[0]


def test_each_invented_transfer_is_told() -> None:
    run = Run()
    ids = [run.new_id() for _ in range(3)]
    for each in ids:
        run.post(ADA, each, -1)
        run.post(BOB, each, 1)
    assert [each in text for each, text in zip(ids, run.texts, strict=True)] == [True] * 3


@pytest.mark.parametrize(
    ("again", "kinds"),
    [
        # The second entry of the source has another version than the answer said.
        ([(ADA, -10)], [DOUBLED_TRANSFER, WRONG_ANSWER, WRONG_BALANCE]),
        ([(BOB, 10)], [DOUBLED_TRANSFER, WRONG_BALANCE]),
        ([(ADA, -10), (BOB, 10)], [DOUBLED_TRANSFER, DOUBLED_TRANSFER, WRONG_ANSWER]),
    ],
)
def test_a_transfer_that_stands_twice_is_doubled(
    again: list[tuple[str, int]], kinds: list[str]
) -> None:
    run = busy_run()
    twice = run.pay(ADA, BOB, 10)
    for wallet, amount_minor in again:
        run.post(wallet, twice, amount_minor)
    assert run.kinds == kinds
    assert any(f"{twice} stands twice" in text for text in run.texts)


def test_one_transfer_for_two_requests_is_doubled() -> None:
    run = busy_run()
    sold = run.pay(ADA, BOB, 10)
    run.tell(sold, ADA, BOB, 10)
    assert run.kinds == [DOUBLED_TRANSFER]
    assert f"{sold} was the answer to two requests" in run.texts[0]


def test_another_amount_than_was_told_is_noticed_on_both_sides() -> None:
    run = busy_run()
    wrong = run.new_id()
    run.post(ADA, wrong, -20)
    run.post(BOB, wrong, 20)
    run.tell(wrong, ADA, BOB, 10)
    assert run.kinds == [WRONG_ANSWER, WRONG_ANSWER]


def test_a_wallet_that_paid_what_it_had_not_is_noticed() -> None:
    run = Run()
    run.pay(ADA, BOB, 1_000)
    assert run.kinds == []
    run.pay(ADA, BOB, 1)
    assert run.kinds == [WRONG_BALANCE]
    assert "below zero" in run.texts[0]


@pytest.mark.parametrize(
    ("payer", "payee", "kinds"),
    [
        (ADA, BOB, []),
        # Both have the same version, so that only the wallet is wrong.
        (IDA, BOB, [WRONG_ANSWER]),
        (ADA, IDA, [WRONG_ANSWER]),
        (BOB, ADA, [WRONG_ANSWER, WRONG_ANSWER]),
    ],
)
def test_other_wallets_than_were_told_are_noticed(payer: str, payee: str, kinds: list[str]) -> None:
    run = Run()
    wrong = run.new_id()
    run.final[ADA] = State(990, 4)
    run.tell(wrong, ADA, BOB, 10)
    run.final[ADA] = run.start[ADA]
    run.post(payer, wrong, -10)
    run.post(payee, wrong, 10)
    assert run.kinds == kinds


@pytest.mark.parametrize("later", [False, True])
def test_another_version_of_the_source_than_was_told_is_noticed(later: bool) -> None:
    run = busy_run()
    wrong = run.new_id()
    if later:
        run.post(ADA, None, 0)
    run.post(ADA, wrong, -10)
    run.post(BOB, wrong, 10)
    actual = run.final[ADA]
    run.final[ADA] = State(0, actual.version + (-1 if later else 1))
    run.tell(wrong, ADA, BOB, 10)
    run.final[ADA] = actual
    assert run.kinds == [WRONG_ANSWER]


@pytest.mark.parametrize(
    ("place", "by"),
    [
        pytest.param(0, 1, id="a gap after the start"),
        pytest.param(2, 1, id="a gap"),
        pytest.param(3, 7, id="a large gap"),
        pytest.param(0, -1, id="the version of the start once more"),
        pytest.param(2, -1, id="a version that stands twice"),
    ],
)
def test_versions_go_up_one_by_one(place: int, by: int) -> None:
    run = Run()
    # Versions of a destination are not told, so that only their order can be wrong.
    for amount_minor in (1, 2, 3, 4):
        run.pay(ADA, BOB, amount_minor)
    assert run.violations() == []
    run.shift(BOB, place, by)
    assert run.kinds == [VERSION_GAP]
    assert "wallet bob: version" in run.texts[0]


def test_a_balance_in_the_middle_that_is_off_is_noticed() -> None:
    run = busy_run()
    row = run.rows[EVE][1]
    run.change(EVE, 1, balance_after_minor=row.balance_after_minor + 1)
    # The one after it does not follow from it either.
    assert run.kinds == [WRONG_BALANCE, WRONG_BALANCE]
    assert f"wallet eve: at version {row.version} the balance is +1 off" in run.texts[0]
    assert f"{row.version + 1} the balance is -1 off" in run.texts[1]


def test_an_amount_that_did_not_move_the_balance_is_noticed() -> None:
    run = busy_run()
    run.change(EVE, 1, amount_minor=run.rows[EVE][1].amount_minor + 1)
    assert run.kinds == [WRONG_ANSWER, WRONG_BALANCE]


@pytest.mark.parametrize("wallet", [EVE, IDA])
def test_a_wallet_that_says_something_else_than_its_statement_is_noticed(wallet: str) -> None:
    run = busy_run()
    last = run.final[wallet]
    run.final[wallet] = State(last.balance_minor - 1, last.version)
    assert run.kinds == [WRONG_BALANCE, WRONG_BALANCE]
    assert "4000 and is 3999 (-1)" in run.texts[0]
    assert run.texts[1] == (
        f"wallet {wallet}: {last.balance_minor - 1}, its statement says {last.balance_minor}"
    )


@pytest.mark.parametrize("wallet", [EVE, IDA])
def test_a_version_beyond_the_statement_is_a_gap(wallet: str) -> None:
    run = busy_run()
    last = run.final[wallet]
    run.final[wallet] = State(last.balance_minor, last.version + 1)
    assert run.kinds == [VERSION_GAP]
    assert f"{last.version + 1}, its statement ends at {last.version}" in run.texts[0]


def test_a_statement_that_was_read_later_may_be_longer() -> None:
    run = Run()
    run.pay(ADA, BOB, 10)
    read = dict(run.final)
    run.pay(ADA, BOB, 20)
    run.final = read
    assert run.violations() == []


@pytest.mark.parametrize("payments", [0, 1])
def test_the_balance_has_to_be_that_of_its_version_in_a_longer_statement(payments: int) -> None:
    run = Run()
    for _ in range(payments):
        run.pay(ADA, BOB, 10)
    read = dict(run.final)
    run.pay(ADA, BOB, 20)
    run.final = read
    for wallet, wrong in ((ADA, -1), (BOB, 1)):
        run.final[wallet] = State(read[wallet].balance_minor + wrong, read[wallet].version)
    assert run.kinds == [WRONG_BALANCE, WRONG_BALANCE]


def test_a_wallet_that_went_back_in_time_is_noticed() -> None:
    run = Run()
    run.final[ADA] = State(1_000, 2)
    assert run.kinds == [STALE_READ]
    assert run.texts == ["wallet ada: version 2, and 3 at the start"]


@pytest.mark.parametrize(("change", "sign"), [(1, "(+1)"), (-1, "(-1)")])
def test_a_sum_that_changed_is_noticed(change: int, sign: str) -> None:
    start = {ADA: State(10, 0), BOB: State(-10, 0)}
    (violation,) = compare_sums(start, start | {BOB: State(-10 + change, 1)})
    assert violation.kind == WRONG_BALANCE
    assert sign in violation.text


def test_a_sum_that_only_moved_is_no_violation() -> None:
    start = {ADA: State(10, 0), BOB: State(-10, 0)}
    assert compare_sums(start, {ADA: State(-5, 1), BOB: State(5, 1)}) == []


def test_what_was_acknowledged_is_unpacked_as_it_was_told() -> None:
    run = Run()
    run.final[IDA] = State(0, 2**31 - 1)
    run.tell(NOBODY, IDA, BOB, 2**53)
    first = run.pay(ADA, EVE, 1)
    expected = [
        Acknowledged(NOBODY, 3, 1, 2**53, 2**31 - 1, 0),
        Acknowledged(first, 0, 2, 1, 4, 999),
    ]
    assert list(unpacked(run.history.acknowledged)) == expected
    assert by_id(bytes(run.history.acknowledged)) == (
        {each.transfer_id: each for each in expected},
        [],
    )
