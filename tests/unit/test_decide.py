"""Decisions about transfers and reversals: a row per reason, in the order of the contract."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import combinations
from typing import NamedTuple

import pytest

from tests.unit.samples import NOW, book, funding_wallet, posted, transfer, wallet
from transferd.domain.book import Book, Outcome, Posted
from transferd.domain.command import Command
from transferd.domain.decide import decide
from transferd.domain.errors import Reason, Refused
from transferd.domain.money import AMOUNT_MINOR_MAX, BALANCE_MINOR_MAX, BALANCE_MINOR_MIN
from transferd.domain.transfer import PostedTransfer, Reversal, Transfer, TransferKind
from transferd.domain.wallet import Wallet, WalletStatus


@dataclass
class Case:
    """100 USD from ada's 1,000 to bob, or back from bob's; violations make it worse."""

    payer: Wallet
    payee: Wallet
    amount_minor: int = 100
    currency: str = "USD"
    original: PostedTransfer = field(default_factory=posted)
    is_same_wallet: bool = False
    is_unknown: bool = False
    missing: set[str] = field(default_factory=set)

    def book(self) -> Book:
        both = (self.payer, self.payee)
        return book(
            *(each for each in both if each.id not in self.missing),
            reversed_minor={"lunch": 0},
        )

    def transfer(self) -> Command:
        payee = self.payer if self.is_same_wallet else self.payee
        return transfer(self.amount_minor, destination_wallet_id=payee.id, currency=self.currency)

    def reversal(self) -> Command:
        original = None if self.is_unknown else self.original._replace(currency=self.currency)
        return Reversal("r", "lunch", original, self.amount_minor)


def same_wallet(case: Case) -> None:
    case.is_same_wallet = True


def no_payer(case: Case) -> None:
    case.missing.add(case.payer.id)


def no_payee(case: Case) -> None:
    case.missing.add(case.payee.id)


def other_currency(case: Case) -> None:
    case.currency = "EUR"


def payer_in_other_currency(case: Case) -> None:
    case.payer.currency = "EUR"


def payee_in_other_currency(case: Case) -> None:
    case.payee.currency = "EUR"


def frozen_payer(case: Case) -> None:
    case.payer.status = WalletStatus.FROZEN


def closed_payer(case: Case) -> None:
    case.payer.status = WalletStatus.CLOSED


def closed_payee(case: Case) -> None:
    case.payee.status = WalletStatus.CLOSED


def too_little(case: Case) -> None:
    case.payer.balance_minor = 40


def full_payee(case: Case) -> None:
    case.payee.balance_minor = BALANCE_MINOR_MAX


def unknown_original(case: Case) -> None:
    case.is_unknown = True


def original_is_reversal(case: Case) -> None:
    case.original = case.original._replace(kind=TransferKind.REVERSAL)


def too_much_back(case: Case) -> None:
    case.original = case.original._replace(amount_minor=case.amount_minor - 1)


class Row(NamedTuple):
    """A violation, its step in the order of the checks, and the expected refusal."""

    step: int
    violate: Callable[[Case], None]
    reason: Reason
    words: str


def moving_rows(payer: str, payee: str) -> tuple[Row, ...]:
    """The checks that transfers and reversals have in common, in documented order."""
    return (
        Row(10, no_payer, Reason.WALLET_NOT_FOUND, f"no wallet {payer}."),
        Row(11, no_payee, Reason.WALLET_NOT_FOUND, f"no wallet {payee}."),
        Row(12, other_currency, Reason.CURRENCY_MISMATCH, "the transfer is in EUR"),
        Row(12, payer_in_other_currency, Reason.CURRENCY_MISMATCH, "source holds EUR"),
        Row(12, payee_in_other_currency, Reason.CURRENCY_MISMATCH, "destination EUR"),
        Row(13, frozen_payer, Reason.WALLET_FROZEN, f"Wallet {payer} is frozen"),
        Row(13, closed_payer, Reason.WALLET_CLOSED, f"Wallet {payer} is closed"),
        Row(14, closed_payee, Reason.WALLET_CLOSED, f"Wallet {payee} is closed"),
        Row(15, too_little, Reason.INSUFFICIENT_FUNDS, "40 USD is available, 60 more"),
        Row(16, full_payee, Reason.BALANCE_OUT_OF_RANGE, "64-bit"),
    )


TRANSFER = (
    Row(1, same_wallet, Reason.SAME_WALLET, "the same wallet"),
    *moving_rows("ada", "bob"),
)
REVERSAL = (
    Row(1, unknown_original, Reason.TRANSFER_NOT_FOUND, "no transfer lunch"),
    Row(2, original_is_reversal, Reason.NOT_REVERSIBLE, "cannot be reversed"),
    Row(3, too_much_back, Reason.REVERSAL_EXCEEDS_TRANSFER, "99 of 99"),
    *moving_rows("bob", "ada"),
)


def violations_of(rows: tuple[Row, ...]) -> list[tuple[Row, ...]]:
    """Every violation alone, and every pair that different steps find, the earlier step first."""
    pairs = [(one, two) for one, two in combinations(rows, 2) if one.step < two.step]
    return [*((row,) for row in rows), *pairs]


def names(violations: tuple[Row, ...]) -> str:
    return "-".join(row.violate.__name__ for row in violations)


def assert_refused(outcome: Outcome, row: Row) -> None:
    assert isinstance(outcome, Refused), outcome
    assert outcome.reason is row.reason
    assert row.words in outcome.detail


@pytest.mark.parametrize("violations", violations_of(TRANSFER), ids=names)
def test_the_earliest_violation_refuses_a_transfer(violations: tuple[Row, ...]) -> None:
    case = Case(payer=wallet("ada", 1_000), payee=wallet("bob"))
    for row in reversed(violations):
        row.violate(case)
    assert_refused(decide(case.transfer(), case.book()), violations[0])


@pytest.mark.parametrize("violations", violations_of(REVERSAL), ids=names)
def test_the_earliest_violation_refuses_a_reversal(violations: tuple[Row, ...]) -> None:
    case = Case(payer=wallet("bob", 1_000), payee=wallet("ada"))
    for row in reversed(violations):
        row.violate(case)
    assert_refused(decide(case.reversal(), case.book()), violations[0])


def moved(command: Command, state: Book) -> PostedTransfer:
    """The transfer that the command posts."""
    outcome = decide(command, state)
    assert isinstance(outcome, Posted), outcome
    return outcome.transfer


def refusal(command: Command, state: Book) -> Refused:
    outcome = decide(command, state)
    assert isinstance(outcome, Refused), outcome
    return outcome


def test_a_transfer_takes_the_next_version_of_both_wallets() -> None:
    state = book(wallet("ada", 1_000, version=7), wallet("bob", 5, version=2))
    command = transfer(100, reference="lunch", metadata='{"n":1}')
    assert moved(command, state) == posted(
        100,
        id="t",
        metadata='{"n":1}',
        source_version=8,
        source_balance_after_minor=900,
        destination_version=3,
        destination_balance_after_minor=105,
        created_at=NOW,
    )


def test_a_reversal_goes_back_and_names_its_original() -> None:
    state = book(wallet("ada"), wallet("bob", 100))
    original = posted(100, metadata='{"n":1}', reference="lunch")
    back = moved(Reversal("r", "lunch", original, 30), state)
    assert (back.source_wallet_id, back.destination_wallet_id) == ("bob", "ada")
    assert (back.kind, back.amount_minor, back.currency) == ("reversal", 30, "USD")
    assert (back.reverses_transfer_id, back.reference, back.metadata) == ("lunch", "lunch", "{}")
    assert (back.source_balance_after_minor, back.destination_balance_after_minor) == (70, 30)


@pytest.mark.parametrize(
    ("payer", "all_of_it_minor"),
    [
        (wallet("ada", 100), 100),
        (wallet("ada", 0, overdraft_limit_minor=100), 100),
        (wallet("ada", -40, overdraft_limit_minor=100), 60),
        (wallet("ada", 100, held_minor=30), 70),
        (wallet("ada", 100, held_minor=30, overdraft_limit_minor=5), 75),
        (wallet("ada", BALANCE_MINOR_MAX), AMOUNT_MINOR_MAX),
    ],
    ids=["funds", "overdraft", "rest of overdraft", "held", "held and overdraft", "largest"],
)
def test_a_wallet_pays_to_the_last_unit(payer: Wallet, all_of_it_minor: int) -> None:
    state = book(payer, wallet("bob"))
    paid = moved(transfer(all_of_it_minor), state)
    assert paid.source_balance_after_minor == payer.balance_minor - all_of_it_minor


@pytest.mark.parametrize(
    ("payer", "available_minor"),
    [
        (wallet("ada", 100), 100),
        (wallet("ada", -40, overdraft_limit_minor=100), 60),
        (wallet("ada", 100, held_minor=30, overdraft_limit_minor=5), 75),
    ],
    ids=["funds", "overdraft", "held and overdraft"],
)
def test_one_unit_more_is_refused_with_the_shortfall(payer: Wallet, available_minor: int) -> None:
    refused = refusal(transfer(available_minor + 1), book(payer, wallet("bob")))
    assert refused.reason is Reason.INSUFFICIENT_FUNDS
    assert refused.facts == {"available": available_minor, "shortfall": 1, "currency": "USD"}


def test_a_funding_wallet_pays_below_zero() -> None:
    command = transfer(AMOUNT_MINOR_MAX, source_wallet_id="fund")
    paid = moved(command, book(funding_wallet(-5), wallet("bob")))
    assert paid.source_balance_after_minor == -5 - AMOUNT_MINOR_MAX


def test_money_has_the_bounds_of_the_contract() -> None:
    assert AMOUNT_MINOR_MAX == 9_007_199_254_740_991
    assert BALANCE_MINOR_MIN == -9_223_372_036_854_775_808
    assert BALANCE_MINOR_MAX == 9_223_372_036_854_775_807


@pytest.mark.parametrize("missing_minor", [0, 1], ids=["to the last unit", "one more"])
def test_balances_stay_inside_64_bits_at_both_ends(missing_minor: int) -> None:
    at_the_bottom = transfer(100, source_wallet_id="fund")
    bottom = book(funding_wallet(BALANCE_MINOR_MIN + 100 - missing_minor), wallet("bob"))
    at_the_top = transfer(100)
    top = book(wallet("ada", 100), wallet("bob", BALANCE_MINOR_MAX - 100 + missing_minor))
    if missing_minor:
        assert refusal(at_the_bottom, bottom).reason is Reason.BALANCE_OUT_OF_RANGE
        assert refusal(at_the_top, top).reason is Reason.BALANCE_OUT_OF_RANGE
    else:
        assert moved(at_the_bottom, bottom).source_balance_after_minor == BALANCE_MINOR_MIN
        assert moved(at_the_top, top).destination_balance_after_minor == BALANCE_MINOR_MAX


def test_a_frozen_wallet_receives() -> None:
    state = book(wallet("ada", 100), wallet("bob", status=WalletStatus.FROZEN))
    assert moved(transfer(100), state).destination_balance_after_minor == 100


@pytest.mark.parametrize("amount_minor", [None, 60], ids=["all that is left", "that much"])
def test_reversals_return_the_amount_of_the_original_and_no_more(amount_minor: int | None) -> None:
    state = book(wallet("ada"), wallet("bob", 1_000))
    original = posted(100)
    first = decide(Reversal("r1", "lunch", original, 40), state)
    state.apply(first)
    rest = moved(Reversal("r2", "lunch", original, amount_minor), state)
    assert rest.amount_minor == 60
    state.apply(Posted(rest))
    assert state.wallets["ada"].balance_minor == 100
    for more_minor in (None, 1):
        refused = refusal(Reversal("r3", "lunch", original, more_minor), state)
        assert refused.reason is Reason.REVERSAL_EXCEEDS_TRANSFER
        assert refused.facts == {"left": 0, "currency": "USD"}


def test_the_second_of_two_full_reversals_in_a_group_is_refused() -> None:
    state = book(wallet("ada"), wallet("bob", 1_000))
    state.apply(decide(Reversal("r1", "lunch", posted(100), 100), state))
    again = Reversal("r2", "lunch", posted(100), 100)
    assert refusal(again, state).reason is Reason.REVERSAL_EXCEEDS_TRANSFER


def test_earlier_reversals_count() -> None:
    state = book(wallet("ada"), wallet("bob", 1_000), reversed_minor={"lunch": 70})
    assert moved(Reversal("r", "lunch", posted(100), None), state).amount_minor == 30
    refused = refusal(Reversal("r", "lunch", posted(100), 31), state)
    assert refused.facts == {"left": 30, "currency": "USD"}


def test_a_command_is_decided_on_the_balances_that_the_previous_one_left() -> None:
    state = book(wallet("ada", 100), wallet("bob"))
    state.apply(decide(transfer(80), state))
    refused = refusal(transfer(21), state)
    assert refused.facts["available"] == 20
    assert isinstance(decide(Transfer("t2", "bob", "ada", 80, "USD", None, "{}"), state), Posted)
