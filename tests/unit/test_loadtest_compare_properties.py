"""Whatever happens in a run: a true history is never a violation, and no single fault escapes."""

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.runs import NOBODY, WALLETS, Run

PAYMENTS = st.tuples(
    st.integers(0, len(WALLETS) - 1), st.integers(1, len(WALLETS) - 1), st.integers(1, 2**53 - 1)
)
OTHER = st.sampled_from((-(2**40), -2, -1, 1, 2, 2**40))


def a_run_of(payments: list[tuple[int, int, int]]) -> Run:
    run = Run()
    for source, further, amount_minor in payments:
        payer, payee = WALLETS[source], WALLETS[(source + further) % len(WALLETS)]
        has_minor = run.final[payer].balance_minor
        if has_minor:
            # Nobody pays what it has not.
            run.pay(payer, payee, 1 + amount_minor % has_minor)
    return run


def dropped(run: Run, wallet: str, place: int, by: int) -> None:
    del run.rows[wallet][place]


def repeated(run: Run, wallet: str, place: int, by: int) -> None:
    run.rows[wallet].insert(place, run.rows[wallet][place])


def of_nobody(run: Run, wallet: str, place: int, by: int) -> None:
    run.change(wallet, place, transfer_id=NOBODY)


def no_transfer(run: Run, wallet: str, place: int, by: int) -> None:
    run.change(wallet, place, transfer_id=None)


def with_another_amount(run: Run, wallet: str, place: int, by: int) -> None:
    run.change(wallet, place, amount_minor=run.rows[wallet][place].amount_minor + by)


def with_another_balance(run: Run, wallet: str, place: int, by: int) -> None:
    balance_minor = run.rows[wallet][place].balance_after_minor
    run.change(wallet, place, balance_after_minor=balance_minor + by)


def with_another_version(run: Run, wallet: str, place: int, by: int) -> None:
    run.change(wallet, place, version=run.rows[wallet][place].version + by)


def never_told(run: Run, wallet: str, place: int, by: int) -> None:
    size = len(run.history.acknowledged) // run.history.acknowledged_total
    del run.history.acknowledged[:size]


FAULTS = (
    dropped,
    repeated,
    of_nobody,
    no_transfer,
    with_another_amount,
    with_another_balance,
    with_another_version,
    never_told,
)


@settings(deadline=None)
@given(st.lists(PAYMENTS, max_size=30))
def test_no_true_history_is_a_violation(payments: list[tuple[int, int, int]]) -> None:
    assert a_run_of(payments).violations() == []


@settings(deadline=None, max_examples=300)
@given(st.data(), st.lists(PAYMENTS, min_size=1, max_size=12), st.sampled_from(FAULTS), OTHER)
def test_no_single_fault_escapes(
    data: st.DataObject,
    payments: list[tuple[int, int, int]],
    fault: Callable[[Run, str, int, int], None],
    by: int,
) -> None:
    run = a_run_of(payments)
    wallet = data.draw(st.sampled_from(sorted(run.rows)))
    place = data.draw(st.integers(0, len(run.rows[wallet]) - 1))
    fault(run, wallet, place, by)
    assert run.violations() != []
