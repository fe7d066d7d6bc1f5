"""Decisions about commands for a wallet itself: create, freeze, close, update."""

from typing import Any

import pytest

from tests.unit.samples import EARLIER, NOW, book, funding_wallet, wallet
from transferd.domain.book import Book, UserCreated, WalletCreated, WalletSet
from transferd.domain.command import Command
from transferd.domain.decide import decide
from transferd.domain.errors import Reason, Refused
from transferd.domain.money import AMOUNT_MINOR_MAX, BALANCE_MINOR_MIN
from transferd.domain.user import CreateUser, User
from transferd.domain.wallet import (
    ChangeKind,
    CreateWallet,
    SetStatus,
    UpdateWallet,
    Wallet,
    WalletStatus,
)

FREEZE, UNFREEZE, CLOSE = ChangeKind.FREEZE, ChangeKind.UNFREEZE, ChangeKind.CLOSE
ACTIVE, FROZEN, CLOSED = WalletStatus.ACTIVE, WalletStatus.FROZEN, WalletStatus.CLOSED


def new_wallet(initial_minor: int = 0, **changes: Any) -> CreateWallet:
    return CreateWallet("new", "u", "USD", 50, "{}", initial_minor, "fund", "t")._replace(**changes)


def users() -> dict[str, Any]:
    return {"users": {"u": EARLIER}}


def refusal(command: Command, state: Book) -> Refused:
    outcome = decide(command, state)
    assert isinstance(outcome, Refused), outcome
    return outcome


def after(command: Command, state: Book) -> WalletSet:
    outcome = decide(command, state)
    assert isinstance(outcome, WalletSet), outcome
    return outcome


# Creation


def test_a_new_wallet_is_empty_at_version_zero() -> None:
    outcome = decide(new_wallet(metadata='{"n":1}'), book(**users()))
    assert isinstance(outcome, WalletCreated)
    assert outcome.wallet == wallet(
        "new",
        user_id="u",
        overdraft_limit_minor=50,
        version=0,
        metadata='{"n":1}',
        created_at=NOW,
        updated_at=NOW,
    )
    assert outcome.change == ("new", 0, ChangeKind.CREATED, ACTIVE, 0, 50, NOW, 0, None)
    assert outcome.initial is None


def test_the_initial_balance_comes_from_the_funding_wallet() -> None:
    state = book(funding_wallet(-30, version=9), **users())
    outcome = decide(new_wallet(70), state)
    assert isinstance(outcome, WalletCreated)
    initial = outcome.initial
    assert initial is not None
    assert (initial.id, initial.reference) == ("t", "initial balance")
    assert (initial.source_version, initial.source_balance_after_minor) == (10, -100)
    assert (initial.destination_version, initial.destination_balance_after_minor) == (1, 70)
    assert "new" not in state.wallets, "decide leaves the book as it is"
    state.apply(outcome)
    assert state.wallets["new"].balance_minor == 70
    assert state.wallets["new"].version == 1
    assert state.wallets["fund"].balance_minor == -100


CREATION: dict[str, tuple[Reason, dict[str, Any] | None, dict[str, Any]]] = {
    "no user": (Reason.USER_NOT_FOUND, {}, {}),
    "no funding wallet": (Reason.WALLET_NOT_FOUND, None, users()),
    "other currency": (Reason.CURRENCY_MISMATCH, {"currency": "EUR"}, users()),
    "frozen funding wallet": (Reason.WALLET_FROZEN, {"status": FROZEN}, users()),
    "closed funding wallet": (Reason.WALLET_CLOSED, {"status": CLOSED}, users()),
    "out of range": (
        Reason.BALANCE_OUT_OF_RANGE,
        {"balance_minor": BALANCE_MINOR_MIN + 69},
        users(),
    ),
}
# Each error together with all errors that are checked after it.
CREATION_PRECEDENCE: dict[str, tuple[Reason, dict[str, Any] | None, dict[str, Any]]] = {
    "user before funding wallet": (Reason.USER_NOT_FOUND, None, {}),
    "user before currency": (Reason.USER_NOT_FOUND, {"currency": "EUR"}, {}),
    "user before range": (Reason.USER_NOT_FOUND, {"balance_minor": BALANCE_MINOR_MIN}, {}),
    "currency before status": (
        Reason.CURRENCY_MISMATCH,
        {"currency": "EUR", "status": FROZEN},
        users(),
    ),
    "status before range": (
        Reason.WALLET_CLOSED,
        {"status": CLOSED, "balance_minor": BALANCE_MINOR_MIN},
        users(),
    ),
}


@pytest.mark.parametrize("case", [*CREATION, *CREATION_PRECEDENCE])
def test_a_wallet_with_an_initial_balance_is_refused_for(case: str) -> None:
    reason, fund, more = (CREATION | CREATION_PRECEDENCE)[case]
    wallets = [] if fund is None else [funding_wallet(**fund)]
    assert refusal(new_wallet(70), book(*wallets, **more)).reason is reason


def test_a_wallet_without_initial_balance_needs_no_funding_wallet() -> None:
    assert isinstance(decide(new_wallet(0), book(**users())), WalletCreated)


def test_the_largest_initial_balance_takes_the_funding_wallet_to_its_lowest() -> None:
    state = book(funding_wallet(BALANCE_MINOR_MIN + AMOUNT_MINOR_MAX), **users())
    state.apply(decide(new_wallet(AMOUNT_MINOR_MAX), state))
    assert state.wallets["fund"].balance_minor == BALANCE_MINOR_MIN


def test_a_wallet_that_an_earlier_attempt_created_is_not_created_again() -> None:
    made = wallet("new", 70, version=1)
    # Its user and its funding wallet are not looked up: the wallet exists.
    outcome = after(new_wallet(70), book(made))
    assert outcome == WalletSet(made, None)
    assert outcome.wallet is not made


# Freeze, unfreeze, close


@pytest.mark.parametrize(
    ("before", "kind", "status"),
    [
        (ACTIVE, FREEZE, FROZEN),
        (FROZEN, UNFREEZE, ACTIVE),
        (ACTIVE, CLOSE, CLOSED),
        (FROZEN, CLOSE, CLOSED),
    ],
)
def test_a_new_status_is_the_next_version(
    before: WalletStatus, kind: ChangeKind, status: WalletStatus
) -> None:
    state = book(wallet("ada", status=before, version=3, overdraft_limit_minor=5))
    outcome = after(SetStatus("ada", kind), state)
    assert (outcome.wallet.status, outcome.wallet.version) == (status, 4)
    assert outcome.wallet.updated_at == NOW
    assert outcome.change == ("ada", 4, kind, status, 0, 5, NOW, 0, None)
    assert state.wallets["ada"].version == 3, "decide leaves the book as it is"
    state.apply(outcome)
    assert state.wallets["ada"] == outcome.wallet


@pytest.mark.parametrize(
    ("before", "kind"), [(FROZEN, FREEZE), (ACTIVE, UNFREEZE), (CLOSED, CLOSE)]
)
def test_a_repeated_change_of_status_changes_nothing(
    before: WalletStatus, kind: ChangeKind
) -> None:
    ada = wallet("ada", status=before)
    assert after(SetStatus("ada", kind), book(ada)) == WalletSet(ada, None)


@pytest.mark.parametrize("kind", [FREEZE, UNFREEZE, CLOSE])
def test_an_unknown_wallet_has_no_status(kind: ChangeKind) -> None:
    refused = refusal(SetStatus("nobody", kind), book(wallet("ada")))
    assert refused.reason is Reason.WALLET_NOT_FOUND
    assert "nobody" in refused.detail


@pytest.mark.parametrize("kind", [FREEZE, UNFREEZE])
def test_a_closed_wallet_stays_closed(kind: ChangeKind) -> None:
    state = book(wallet("ada", status=CLOSED))
    assert refusal(SetStatus("ada", kind), state).reason is Reason.WALLET_CLOSED


@pytest.mark.parametrize("before", [ACTIVE, FROZEN])
@pytest.mark.parametrize(("balance_minor", "open_holds"), [(1, 0), (-1, 0), (5, 1), (0, 1)])
def test_a_wallet_that_is_not_empty_cannot_be_closed(
    before: WalletStatus, balance_minor: int, open_holds: int
) -> None:
    ada = wallet("ada", balance_minor, open_holds=open_holds, status=before)
    refused = refusal(SetStatus("ada", CLOSE), book(ada))
    assert refused.reason is Reason.WALLET_NOT_EMPTY
    assert refused.facts == {
        "balance": balance_minor,
        "held": 0,
        "open_holds": open_holds,
        "currency": "USD",
    }


def test_the_status_is_checked_before_the_balance() -> None:
    closed = wallet("ada", 7, status=CLOSED)
    assert after(SetStatus("ada", CLOSE), book(closed)).change is None


# New limit, new metadata


@pytest.mark.parametrize(
    ("command", "limit_minor", "metadata"),
    [
        (UpdateWallet("ada", 80, None), 80, "{}"),
        (UpdateWallet("ada", None, '{"n":1}'), 50, '{"n":1}'),
        (UpdateWallet("ada", 0, '{"n":1}'), 0, '{"n":1}'),
    ],
    ids=["limit", "metadata", "both"],
)
def test_an_update_changes_the_fields_that_it_names(
    command: UpdateWallet, limit_minor: int, metadata: str
) -> None:
    outcome = after(command, book(wallet("ada", 9, overdraft_limit_minor=50)))
    assert outcome.wallet == wallet(
        "ada",
        9,
        overdraft_limit_minor=limit_minor,
        metadata=metadata,
        version=4,
        updated_at=NOW,
    )
    assert outcome.change == ("ada", 4, ChangeKind.UPDATE, ACTIVE, 9, limit_minor, NOW, 0, None)


@pytest.mark.parametrize(
    "command",
    [UpdateWallet("ada", None, None), UpdateWallet("ada", 50, "{}")],
    ids=["nothing", "the same"],
)
def test_an_update_to_equal_values_changes_nothing(command: UpdateWallet) -> None:
    ada = wallet("ada", overdraft_limit_minor=50)
    assert after(command, book(ada)) == WalletSet(ada, None)


UPDATE: dict[str, tuple[Reason, UpdateWallet, Wallet]] = {
    "no wallet": (Reason.WALLET_NOT_FOUND, UpdateWallet("nobody", 0, None), wallet("ada", -1)),
    "closed": (Reason.WALLET_CLOSED, UpdateWallet("ada", 9, None), wallet("ada", status=CLOSED)),
    "closed before limit": (
        Reason.WALLET_CLOSED,
        UpdateWallet("ada", 0, None),
        wallet("ada", -1, overdraft_limit_minor=5, status=CLOSED),
    ),
    "limit": (
        Reason.INSUFFICIENT_FUNDS,
        UpdateWallet("ada", 39, '{"n":1}'),
        wallet("ada", -40, overdraft_limit_minor=100),
    ),
}


@pytest.mark.parametrize("case", UPDATE)
def test_an_update_is_refused_for(case: str) -> None:
    reason, command, ada = UPDATE[case]
    assert refusal(command, book(ada)).reason is reason


def test_an_overdraft_limit_may_be_lowered_to_its_use_and_no_further() -> None:
    state = book(wallet("ada", -40, held_minor=10, overdraft_limit_minor=100))
    refused = refusal(UpdateWallet("ada", 49, None), state)
    assert refused.facts == {"available": 50, "shortfall": 1, "currency": "USD"}
    assert after(UpdateWallet("ada", 50, None), state).wallet.available_minor == 0


def test_the_limit_of_a_wallet_below_it_may_be_raised_and_not_lowered() -> None:
    state = book(wallet("ada", -100, overdraft_limit_minor=50))
    assert after(UpdateWallet("ada", 80, None), state).wallet.available_minor == -20
    assert after(UpdateWallet("ada", None, '{"n":1}'), state).wallet.available_minor == -50
    assert refusal(UpdateWallet("ada", 49, None), state).reason is Reason.INSUFFICIENT_FUNDS


def test_a_frozen_wallet_may_be_updated() -> None:
    state = book(wallet("ada", status=FROZEN))
    outcome = after(UpdateWallet("ada", 5, None), state)
    assert (outcome.wallet.status, outcome.wallet.overdraft_limit_minor) == (FROZEN, 5)


# Users


@pytest.mark.parametrize(
    ("more", "created_at"),
    [({}, NOW), ({"users": {"u": EARLIER}}, EARLIER)],
    ids=["new", "made by an earlier attempt"],
)
def test_a_user_keeps_the_time_of_the_attempt_that_made_it(
    more: dict[str, Any], created_at: Any
) -> None:
    outcome = decide(CreateUser("u", "Ada", "{}"), book(**more))
    assert outcome == UserCreated(User("u", "Ada", "{}", created_at))


# At the version that was seen

SEEN: list[SetStatus | UpdateWallet] = [
    SetStatus("ada", FREEZE),
    SetStatus("ada", UNFREEZE),
    SetStatus("ada", CLOSE),
    UpdateWallet("ada", 9, None),
    UpdateWallet("ada", None, '{"n":1}'),
]


@pytest.mark.parametrize("command", SEEN)
@pytest.mark.parametrize("versions", [{7}, {1, 7}, None])
def test_a_change_at_the_version_that_was_seen_is_made(
    command: SetStatus | UpdateWallet, versions: set[int] | None
) -> None:
    allowed = None if versions is None else frozenset(versions)
    assert after(command._replace(versions=allowed), book(wallet("ada", version=7)))


@pytest.mark.parametrize("command", SEEN)
@pytest.mark.parametrize("versions", [set(), {6}, {6, 8}])
@pytest.mark.parametrize(
    "state", [{}, {"status": CLOSED}, {"status": FROZEN}, {"balance_minor": 1}]
)
def test_a_change_at_another_version_is_refused_before_all_other_checks(
    command: SetStatus | UpdateWallet, versions: set[int], state: dict[str, Any]
) -> None:
    ada = wallet("ada", version=7, **state)
    refused = refusal(command._replace(versions=frozenset(versions)), book(ada))
    assert refused.reason is Reason.VERSION_CHANGED
    assert refused.facts == {"version": 7, "etag": '"w7"'}


@pytest.mark.parametrize("command", SEEN)
def test_an_unknown_wallet_is_checked_before_the_version(command: SetStatus | UpdateWallet) -> None:
    unknown = command._replace(wallet_id="nobody", versions=frozenset({7}))
    assert refusal(unknown, book(wallet("ada"))).reason is Reason.WALLET_NOT_FOUND
