"""Any commands in any order: the sum of money is constant, no balance is below its limit."""

from collections import Counter
from copy import deepcopy

from hypothesis import event, given, settings
from hypothesis import strategies as st

from tests.unit.samples import EARLIER, book, funding_wallet, wallet
from transferd.domain.book import Book, Outcome, Posted, WalletCreated, WalletSet
from transferd.domain.command import Command, touched_wallets
from transferd.domain.decide import decide
from transferd.domain.errors import Refused
from transferd.domain.money import AMOUNT_MINOR_MAX, fits_a_balance
from transferd.domain.transfer import PostedTransfer, Reversal, Transfer
from transferd.domain.wallet import ChangeKind, CreateWallet, SetStatus, UpdateWallet

# c, d and e do not exist at the start; `nobody` never exists.
PEOPLE = ("a", "b", "c", "d", "e")
ANY_WALLET = st.sampled_from((*PEOPLE, "a", "b", "fund", "nobody"))
AMOUNTS = st.one_of(st.integers(1, 200), st.just(AMOUNT_MINOR_MAX))
CURRENCIES = st.sampled_from(("USD", "USD", "USD", "EUR"))

TRANSFERS = st.builds(
    Transfer,
    id=st.just("t"),
    source_wallet_id=ANY_WALLET,
    destination_wallet_id=ANY_WALLET,
    amount_minor=AMOUNTS,
    currency=CURRENCIES,
    reference=st.none(),
    metadata=st.just("{}"),
)
# The reversed transfer is a number: the n-th of the transfers posted so far.
REVERSALS = st.builds(
    Reversal,
    id=st.just("r"),
    original_id=st.integers(0, 9).map(str),
    original=st.none(),
    amount_minor=st.one_of(st.none(), AMOUNTS),
)
CREATIONS = st.builds(
    CreateWallet,
    id=st.sampled_from(PEOPLE),
    user_id=st.sampled_from(("u", "u", "u", "nobody")),
    currency=CURRENCIES,
    overdraft_limit_minor=st.sampled_from((0, 0, 50)),
    metadata=st.just("{}"),
    initial_minor=st.one_of(st.just(0), AMOUNTS),
    funding_wallet_id=st.just("fund"),
    transfer_id=st.just("t"),
)
STATUSES = st.builds(
    SetStatus,
    wallet_id=st.sampled_from((*PEOPLE, "nobody")),
    kind=st.sampled_from((ChangeKind.FREEZE, ChangeKind.UNFREEZE, ChangeKind.CLOSE)),
)
UPDATES = st.builds(
    UpdateWallet,
    wallet_id=st.sampled_from((*PEOPLE, "nobody")),
    overdraft_limit_minor=st.sampled_from((None, 0, 20, 100)),
    metadata=st.sampled_from((None, "{}", '{"n":1}')),
)
# Money moves more often than wallets change.
COMMANDS = st.one_of(TRANSFERS, TRANSFERS, REVERSALS, REVERSALS, CREATIONS, STATUSES, UPDATES)


def opening() -> Book:
    """a and b have money, which is missing in the funding wallet."""
    return book(
        funding_wallet(-1_000),
        wallet("a", 900, overdraft_limit_minor=50),
        wallet("b", 100),
        users={"u": EARLIER},
    )


def with_original(command: Command, history: list[PostedTransfer], number: int) -> Command:
    """The command as the edge sends it: with the stored transfer and a new id."""
    match command:
        case Reversal() if history:
            original = history[int(command.original_id) % len(history)]
            return command._replace(id=f"r{number}", original_id=original.id, original=original)
        case Transfer():
            return command._replace(id=f"t{number}")
        case CreateWallet():
            return command._replace(transfer_id=f"t{number}")
        case _:
            return command


def sums(state: Book) -> dict[str, int]:
    total: Counter[str] = Counter()
    for each in state.wallets.values():
        total[each.currency] += each.balance_minor
    return {currency: amount for currency, amount in total.items() if amount}


def changed_by(outcome: Outcome) -> set[str]:
    """Ids of the wallets that the outcome moves to another version."""
    match outcome:
        case Posted(transfer):
            return {transfer.source_wallet_id, transfer.destination_wallet_id}
        case WalletCreated(made, _, initial):
            return {made.id} if initial is None else {made.id, initial.source_wallet_id}
        case WalletSet(changed, change) if change is not None:
            return {changed.id}
        case _:
            return set()


def assert_versions_follow(before: Book, after: Book, outcome: Outcome) -> None:
    """One more for each change; a new wallet is at 0, or at 1 with its initial balance."""
    changed = changed_by(outcome)
    for id, now in after.wallets.items():
        then = before.wallets.get(id)
        if then is None:
            assert isinstance(outcome, WalletCreated)
            assert now.version == (0 if outcome.initial is None else 1)
        elif id in changed:
            assert now.version == then.version + 1
        else:
            assert now == then


def assert_sound(state: Book, history: list[PostedTransfer]) -> None:
    for each in state.wallets.values():
        assert fits_a_balance(each.balance_minor)
        assert each.available_minor is None or each.available_minor >= 0, each
    amounts = {transfer.id: transfer.amount_minor for transfer in history}
    for id, given_back_minor in state.reversed_minor.items():
        assert given_back_minor <= amounts[id]


@settings(deadline=None, max_examples=300)
@given(st.lists(COMMANDS, max_size=25))
def test_the_books_always_balance(commands: list[Command]) -> None:
    state = opening()
    history: list[PostedTransfer] = []
    for number, recipe in enumerate(commands):
        command = with_original(recipe, history, number)
        before = deepcopy(state)
        outcome = decide(command, state)
        assert state == before, "decide leaves the book as it is"
        state.apply(outcome)
        event(outcome.reason if isinstance(outcome, Refused) else type(outcome).__name__)
        assert changed_by(outcome) <= set(touched_wallets(command)), "only locked wallets change"
        assert_versions_follow(before, state, outcome)
        match outcome:
            case Posted(transfer) | WalletCreated(_, _, PostedTransfer() as transfer):
                history.append(transfer)
        assert sums(state) == {}
        assert_sound(state, history)
