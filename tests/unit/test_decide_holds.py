"""Decisions about holds: a row per reason, in the order of the contract, and their effects."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import combinations

import pytest

from tests.unit.samples import NOW, book, funding_wallet, hold, wallet
from transferd.domain.book import BatchPosted, Book, Captured, HoldSet, WalletSet
from transferd.domain.command import Command
from transferd.domain.decide import decide
from transferd.domain.decide_holds import expired
from transferd.domain.errors import Reason, Refused
from transferd.domain.hold import AdjustHold, Capture, CreateHold, Hold, HoldStatus, ReleaseHold
from transferd.domain.money import BALANCE_MINOR_MAX
from transferd.domain.transfer import Batch, BatchMode, TransferKind
from transferd.domain.wallet import ChangeKind, Wallet, WalletStatus

TOMORROW = NOW + timedelta(days=1)
OPEN_HOLDS_MAX = 5
CREATION = CreateHold("new", "ada", "bob", 300, "USD", None, 3_600, None, "{}", OPEN_HOLDS_MAX)
CAPTURING = Capture("t", "h", hold(), 60, True, None, None, "{}")
ADJUSTMENT = AdjustHold("h", hold(), 500, None)
RELEASING = ReleaseHold("h", hold())


@dataclass
class Case:
    """ada has 1,000 USD and a hold of 100 for bob; violations make it worse."""

    ada: Wallet = field(
        default_factory=lambda: wallet(
            "ada", 1_000, held_minor=100, open_holds=1, hold_expires_at=TOMORROW
        )
    )
    bob: Wallet = field(default_factory=lambda: wallet("bob", 50))
    hold: Hold = field(default_factory=hold)
    missing: set[str] = field(default_factory=set)
    create: CreateHold = CREATION
    capture: Capture = CAPTURING
    adjust: AdjustHold = ADJUSTMENT
    release: ReleaseHold = RELEASING

    def book(self) -> Book:
        wallets = [each for each in (self.ada, self.bob) if each.id not in self.missing]
        holds = {} if "h" in self.missing else {"h": self.hold}
        return book(*wallets, holds=holds)


Violation = Callable[[Case], None]


def same_wallet(case: Case) -> None:
    case.create = case.create._replace(destination_wallet_id="ada")
    case.capture = case.capture._replace(destination_wallet_id="ada")
    case.hold = case.hold._replace(destination_wallet_id=None)


def no_payer(case: Case) -> None:
    case.missing.add("ada")


def no_payee(case: Case) -> None:
    case.missing.add("bob")


def other_currency(case: Case) -> None:
    case.bob.currency = "EUR"


def frozen_payer(case: Case) -> None:
    case.ada.status = WalletStatus.FROZEN


def closed_payee(case: Case) -> None:
    case.bob.status = WalletStatus.CLOSED


def too_little(case: Case) -> None:
    case.create = case.create._replace(amount_minor=901)
    case.adjust = case.adjust._replace(amount_minor=1_001)


def too_much(case: Case) -> None:
    case.bob.balance_minor = BALANCE_MINOR_MAX


def past_expiry(case: Case) -> None:
    case.create = case.create._replace(expires_at=NOW)
    case.adjust = case.adjust._replace(expires_at=NOW)


def many_holds(case: Case) -> None:
    case.ada.open_holds = OPEN_HOLDS_MAX


def no_hold(case: Case) -> None:
    case.missing.add("h")


def over(case: Case) -> None:
    case.hold = case.hold.ended(HoldStatus.RELEASED, NOW)


def more_than_left(case: Case) -> None:
    case.capture = case.capture._replace(amount_minor=101)


def less_than_captured(case: Case) -> None:
    case.hold = case.hold._replace(captured_minor=80)
    case.adjust = case.adjust._replace(amount_minor=79)


def no_destination(case: Case) -> None:
    case.hold = case.hold._replace(destination_wallet_id=None)


def other_destination(case: Case) -> None:
    case.capture = case.capture._replace(destination_wallet_id="carl")


CREATE: list[tuple[Violation, Reason]] = [
    (same_wallet, Reason.SAME_WALLET),
    (no_payer, Reason.WALLET_NOT_FOUND),
    (no_payee, Reason.WALLET_NOT_FOUND),
    (other_currency, Reason.CURRENCY_MISMATCH),
    (frozen_payer, Reason.WALLET_FROZEN),
    (closed_payee, Reason.WALLET_CLOSED),
    (too_little, Reason.INSUFFICIENT_FUNDS),
    (past_expiry, Reason.EXPIRY_INVALID),
    (many_holds, Reason.TOO_MANY_HOLDS),
]
CAPTURE: list[tuple[Violation, Reason]] = [
    (no_hold, Reason.HOLD_NOT_FOUND),
    (over, Reason.HOLD_NOT_ACTIVE),
    (more_than_left, Reason.CAPTURE_EXCEEDS_HOLD),
    (other_destination, Reason.DESTINATION_MISMATCH),
    (no_payee, Reason.WALLET_NOT_FOUND),
    (other_currency, Reason.CURRENCY_MISMATCH),
    (frozen_payer, Reason.WALLET_FROZEN),
    (closed_payee, Reason.WALLET_CLOSED),
    (too_much, Reason.BALANCE_OUT_OF_RANGE),
]
ADJUST: list[tuple[Violation, Reason]] = [
    (no_hold, Reason.HOLD_NOT_FOUND),
    (over, Reason.HOLD_NOT_ACTIVE),
    (less_than_captured, Reason.AMOUNT_BELOW_CAPTURED),
    (past_expiry, Reason.EXPIRY_INVALID),
    (frozen_payer, Reason.WALLET_FROZEN),
    (too_little, Reason.INSUFFICIENT_FUNDS),
]
RELEASE: list[tuple[Violation, Reason]] = [
    (no_hold, Reason.HOLD_NOT_FOUND),
    (over, Reason.HOLD_NOT_ACTIVE),
]
ROWS = [
    (name, first, second, reason)
    for name, table in (
        ("create", CREATE),
        ("capture", CAPTURE),
        ("adjust", ADJUST),
        ("release", RELEASE),
    )
    for (first, reason), second in [
        *((row, None) for row in table),
        *((row, later) for row, (later, _) in combinations(table, 2)),
    ]
]


def command_of(case: Case, name: str) -> Command:
    command: Command = getattr(case, name)
    return command


@pytest.mark.parametrize(
    ("name", "first", "second", "reason"),
    ROWS,
    ids=[f"{name} {a.__name__} {b.__name__ if b else ''}" for name, a, b, _ in ROWS],
)
def test_the_first_violation_refuses(
    name: str, first: Violation, second: Violation | None, reason: Reason
) -> None:
    case = Case()
    if second is not None:
        second(case)
    first(case)
    state = case.book()
    outcome = decide(command_of(case, name), state)
    assert isinstance(outcome, Refused)
    assert outcome.reason is reason
    assert state == case.book()


def test_a_hold_that_was_captured_names_its_final_transfer() -> None:
    case = Case(hold=hold().ended(HoldStatus.CAPTURED, NOW)._replace(final_transfer_id="last"))
    refused = decide(case.release, case.book())
    assert isinstance(refused, Refused)
    assert (refused.reason, refused.facts) == (
        Reason.HOLD_NOT_ACTIVE,
        {
            "hold_status": "captured",
            "ended_at": "2030-01-02T03:04:05.678901Z",
            "transfer_id": "last",
        },
    )


@pytest.mark.parametrize("name", ["capture", "adjust", "release"])
def test_a_hold_that_has_expired_says_so(name: str) -> None:
    case = Case(hold=hold().ended(HoldStatus.EXPIRED, NOW))
    refused = decide(command_of(case, name), case.book())
    assert isinstance(refused, Refused)
    assert refused.reason is Reason.HOLD_EXPIRED


def test_without_a_destination_in_hold_or_capture_nothing_is_captured() -> None:
    case = Case()
    no_destination(case)
    refused = decide(case.capture, case.book())
    assert isinstance(refused, Refused)
    assert refused.reason is Reason.DESTINATION_MISSING


def test_a_hold_without_a_destination_is_not_checked_for_one() -> None:
    case = Case(missing={"bob"})
    outcome = decide(case.create._replace(destination_wallet_id=None), case.book())
    assert isinstance(outcome, HoldSet)


@pytest.mark.parametrize(
    ("expires_at", "is_valid"),
    [
        (NOW, False),
        (NOW + timedelta(microseconds=1), True),
        (NOW + timedelta(days=366), True),
        (NOW + timedelta(days=366, microseconds=1), False),
    ],
)
def test_an_expiry_is_in_the_future_and_within_366_days(
    expires_at: datetime, is_valid: bool
) -> None:
    case = Case()
    commands: list[Command] = [
        case.create._replace(expires_at=expires_at),
        case.adjust._replace(expires_at=expires_at),
    ]
    outcomes = [decide(command, case.book()) for command in commands]
    assert [isinstance(outcome, HoldSet) for outcome in outcomes] == [is_valid] * 2


# Effects


def test_a_new_hold_reserves_its_amount() -> None:
    case = Case()
    state = case.book()
    outcome = decide(case.create, state)
    assert isinstance(outcome, HoldSet)
    state.apply(outcome)
    ada = state.wallets["ada"]
    assert (ada.balance_minor, ada.held_minor, ada.available_minor) == (1_000, 400, 600)
    assert (ada.version, ada.open_holds, ada.updated_at) == (4, 2, NOW)
    assert ada.hold_expires_at == outcome.hold.expires_at == NOW + timedelta(hours=1)
    assert state.holds["new"].remaining_minor == 300
    change = outcome.change
    assert change is not None
    assert (change.kind, change.version, change.held_minor) == (ChangeKind.HOLD_CREATE, 4, 400)


@pytest.mark.parametrize("is_final", [True, False])
def test_a_capture_pays_and_a_final_one_releases_the_rest(is_final: bool) -> None:
    case = Case()
    state = case.book()
    outcome = decide(case.capture._replace(is_final=is_final), state)
    assert isinstance(outcome, Captured)
    state.apply(outcome)
    ada, bob, after = state.wallets["ada"], state.wallets["bob"], state.holds["h"]
    assert (ada.balance_minor, ada.held_minor) == (940, 0 if is_final else 40)
    assert bob.balance_minor == 110
    # One version for the hold, one for the transfer.
    assert (outcome.change.version, outcome.transfer.source_version, ada.version) == (4, 5, 5)
    assert (outcome.transfer.kind, outcome.transfer.hold_id) == (TransferKind.CAPTURE, "h")
    assert outcome.transfer.reference == "room 12"
    if is_final:
        assert (after.status, after.captured_minor, after.released_minor) == ("captured", 60, 40)
        assert (after.final_transfer_id, ada.open_holds, ada.hold_expires_at) == ("t", 0, None)
    else:
        assert (after.status, after.captured_minor, after.remaining_minor) == ("active", 60, 40)
        assert (after.final_transfer_id, ada.open_holds) == (None, 1)
        assert ada.hold_expires_at == TOMORROW


def test_a_hold_with_nothing_left_stays_active_and_captures_nothing() -> None:
    case = Case()
    state = case.book()
    everything = case.capture._replace(amount_minor=None, is_final=False)
    state.apply(decide(everything, state))
    assert (state.holds["h"].status, state.holds["h"].remaining_minor) == ("active", 0)
    refused = decide(everything._replace(is_final=True), state)
    assert isinstance(refused, Refused)
    assert (refused.reason, refused.facts["remaining"]) == (Reason.CAPTURE_EXCEEDS_HOLD, 0)
    assert isinstance(decide(case.release, state), HoldSet)


def test_a_capture_needs_no_further_funds() -> None:
    """What other commands can take is what is available, which leaves out what is held."""
    case = Case()
    case.ada.balance_minor = -50
    case.ada.overdraft_limit_minor = 150
    assert case.ada.available_minor == 0
    assert isinstance(decide(case.capture, case.book()), Captured)


@pytest.mark.parametrize(
    ("amount_minor", "held_minor"), [(500, 500), (100, 100), (20, 20)], ids=["up", "no", "down"]
)
def test_an_adjustment_sets_the_total(amount_minor: int, held_minor: int) -> None:
    case = Case()
    state = case.book()
    later = TOMORROW + timedelta(days=1)
    outcome = decide(AdjustHold("h", hold(), amount_minor, later), state)
    state.apply(outcome)
    assert state.wallets["ada"].held_minor == held_minor
    assert state.holds["h"].amount_minor == amount_minor
    assert state.holds["h"].expires_at == later
    assert state.wallets["ada"].hold_expires_at == TOMORROW, "a lower bound"


def test_an_adjustment_to_equal_values_changes_nothing() -> None:
    case = Case()
    outcome = decide(AdjustHold("h", hold(), 100, TOMORROW), case.book())
    assert isinstance(outcome, HoldSet)
    assert outcome.change is None


def test_a_frozen_wallet_may_adjust_down_and_release() -> None:
    case = Case()
    frozen_payer(case)
    assert isinstance(decide(case.adjust._replace(amount_minor=50), case.book()), HoldSet)
    assert isinstance(decide(case.release, case.book()), HoldSet)


@pytest.mark.parametrize("status", [HoldStatus.RELEASED, HoldStatus.EXPIRED])
def test_the_end_of_a_hold_gives_back_what_is_left(status: HoldStatus) -> None:
    case = Case(hold=hold(captured_minor=30))
    case.ada.held_minor = 70
    state = case.book()
    outcome = (
        decide(case.release, state) if status is HoldStatus.RELEASED else expired(case.hold, state)
    )
    assert isinstance(outcome, HoldSet)
    state.apply(outcome)
    after, ada = state.holds["h"], state.wallets["ada"]
    assert (after.status, after.released_minor, after.remaining_minor) == (status, 70, 0)
    ended_at = NOW if status is HoldStatus.RELEASED else case.hold.expires_at
    assert (after.updated_at, ada.held_minor, ada.open_holds) == (ended_at, 0, 0)
    assert ada.hold_expires_at is None


def test_a_wallet_with_an_open_hold_cannot_be_closed() -> None:
    from transferd.domain.wallet import SetStatus

    case = Case(hold=hold(captured_minor=100))
    case.ada.balance_minor = case.ada.held_minor = 0
    refused = decide(SetStatus("ada", ChangeKind.CLOSE), case.book())
    assert isinstance(refused, Refused)
    assert refused.reason is Reason.WALLET_NOT_EMPTY
    case.ada.open_holds = 0
    assert isinstance(decide(SetStatus("ada", ChangeKind.CLOSE), case.book()), WalletSet)


def test_a_funding_wallet_holds_without_a_limit_but_within_the_range() -> None:
    fund = funding_wallet(0)
    command = Case().create._replace(source_wallet_id="fund")
    assert isinstance(decide(command, book(fund, wallet("bob"))), HoldSet)
    full = funding_wallet(0, held_minor=BALANCE_MINOR_MAX)
    refused = decide(command, book(full, wallet("bob")))
    assert isinstance(refused, Refused)
    assert refused.reason is Reason.BALANCE_OUT_OF_RANGE


def test_a_batch_captures_on_what_the_items_before_have_left() -> None:
    case = Case()
    item = case.capture._replace(is_final=False)
    batch = Batch(
        BatchMode.INDEPENDENT,
        (item, item._replace(id="u"), item._replace(id="v", amount_minor=None)),
    )
    state = case.book()
    outcome = decide(batch, state)
    assert isinstance(outcome, BatchPosted)
    first, second, third = outcome.results
    assert isinstance(first, Captured)
    assert isinstance(second, Refused)
    assert second.reason is Reason.CAPTURE_EXCEEDS_HOLD
    assert isinstance(third, Captured)
    assert state.holds["h"].captured_minor == 0, "decide leaves the book as it is"
    state.apply(outcome)
    assert state.holds["h"].captured_minor == 100
    assert state.wallets["bob"].balance_minor == 150
