"""A batch executes its transfers one after the other; an atomic batch all of them or none."""

from copy import deepcopy
from dataclasses import fields

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.samples import book, funding_wallet, transfer, wallet
from transferd.domain.book import BatchPosted, Book, Posted
from transferd.domain.command import touched_wallets
from transferd.domain.decide import decide
from transferd.domain.errors import Reason, Refused
from transferd.domain.transfer import Batch, BatchMode, Transfer
from transferd.domain.wallet import WalletStatus

_WALLETS = st.sampled_from(("ada", "bob", "cy", "frozen", "fund", "nobody"))
_TRANSFERS = st.lists(
    st.builds(
        Transfer,
        id=st.uuids().map(str),
        source_wallet_id=_WALLETS,
        destination_wallet_id=_WALLETS,
        amount_minor=st.integers(1, 80),
        currency=st.sampled_from(("USD", "USD", "USD", "EUR")),
        reference=st.none(),
        metadata=st.just("{}"),
    ),
    min_size=1,
    max_size=12,
).map(tuple)


def ledger() -> Book:
    """Three payers, a frozen wallet and the funding wallet; the wallet `nobody` does not exist."""
    return book(
        wallet("ada", 100),
        wallet("bob", 50, overdraft_limit_minor=20),
        wallet("cy"),
        wallet("frozen", 100, status=WalletStatus.FROZEN),
        funding_wallet(-250),
    )


def one_by_one(transfers: tuple[Transfer, ...], state: Book) -> list[Posted | Refused]:
    """Their outcomes as single transfers; `state` is changed."""
    results = []
    for each in transfers:
        outcome = decide(each, state)
        assert isinstance(outcome, Posted | Refused)
        state.apply(outcome)
        results.append(outcome)
    return results


@given(transfers=_TRANSFERS)
def test_an_independent_batch_has_the_results_of_single_transfers(
    transfers: tuple[Transfer, ...],
) -> None:
    state, expected = ledger(), ledger()
    outcome = decide(Batch(BatchMode.INDEPENDENT, transfers), state)
    assert isinstance(outcome, BatchPosted)
    assert list(outcome.results) == one_by_one(transfers, expected)
    assert state.wallets == ledger().wallets, "deciding changes nothing"
    state.apply(outcome)
    assert state.wallets == expected.wallets


@given(transfers=_TRANSFERS)
def test_an_atomic_batch_posts_everything_or_names_the_first_refused_transfer(
    transfers: tuple[Transfer, ...],
) -> None:
    state, expected = ledger(), ledger()
    outcome = decide(Batch(BatchMode.ATOMIC, transfers), state)
    singles = one_by_one(transfers, expected)
    failed = [n for n, single in enumerate(singles) if isinstance(single, Refused)]
    state.apply(outcome)
    if not failed:
        assert isinstance(outcome, BatchPosted)
        assert list(outcome.results) == singles
        assert state.wallets == expected.wallets
        return
    assert isinstance(outcome, Refused)
    assert outcome.reason is Reason.BATCH_REFUSED
    assert outcome.facts["index"] == failed[0]
    first = singles[failed[0]]
    assert isinstance(first, Refused)
    assert outcome.facts["refusal"] == {
        "code": first.reason,
        "detail": first.detail,
        **first.facts,
    }
    assert state.wallets == ledger().wallets, "nothing was posted"


def test_all_wallets_of_a_batch_are_locked() -> None:
    batch = Batch(
        BatchMode.ATOMIC,
        (transfer(), transfer(source_wallet_id="bob", destination_wallet_id="cy")),
    )
    assert set(touched_wallets(batch)) == {"ada", "bob", "cy"}


def test_a_copy_of_a_wallet_is_equal_in_every_field_and_is_another_one() -> None:
    # A different value in each field, so that no two fields can be confused.
    original = wallet("ada", 1, held_minor=2, overdraft_limit_minor=3, version=4, metadata="{5}")
    copy = original.copy()
    assert copy is not original
    assert copy == deepcopy(original)
    assert {field.name for field in fields(copy)} == set(type(copy).__slots__)
