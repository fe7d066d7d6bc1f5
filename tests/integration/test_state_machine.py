"""Random requests in random order: the API answers like a small model of a ledger."""

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.support.hold_machine import HoldMachine
from tests.support.ledger_machine import LedgerMachine
from tests.support.live import running_replica
from tests.support.servers import Servers
from transferd.commit.state import Expired
from transferd.config import Limits
from transferd.domain import wallet as domain
from transferd.domain.book import Book, WalletSet
from transferd.domain.key import Fingerprint

# Without a sweep the machine knows which request writes the end of a hold that is due.
LIMITS = Limits(expiry_sweep_s=3_600.0, open_holds_max=3)

RUNS = settings(
    # A planted fault of transfers is found within four.
    max_examples=15,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


# Making a failing example small takes much longer than the test itself.
@pytest.mark.timeout(120)
def test_the_api_answers_like_a_model_of_a_ledger(servers: Servers) -> None:
    with running_replica(servers, LIMITS) as LedgerMachine.live:
        run_state_machine_as_test(HoldMachine, settings=RUNS)


async def forget_reversals(_: object, ids: object) -> dict[str, int]:
    return {}


def ignore_the_status(book: Book, wallet: domain.Wallet, *_: object) -> WalletSet:
    return WalletSet(wallet, None)


async def expire_nothing(*_: object) -> Expired:
    return Expired([], set())


def reserve_anything(*_: object) -> None:
    return None


def answer_anyhow(*_: object) -> Fingerprint:
    return Fingerprint(bytes(16))


@pytest.mark.parametrize(
    ("machine", "part", "broken"),
    [
        (LedgerMachine, "transferd.commit.transaction.store.reversed_sums", forget_reversals),
        (LedgerMachine, "transferd.domain.decide._set", ignore_the_status),
        (LedgerMachine, "transferd.web.routes.transfers.fingerprint_of", answer_anyhow),
        (HoldMachine, "transferd.commit.transaction.expire_due_holds", expire_nothing),
        (HoldMachine, "transferd.domain.decide_holds._reserve", reserve_anything),
    ],
)
def test_the_model_finds_a_faulty_service(
    servers: Servers,
    monkeypatch: pytest.MonkeyPatch,
    machine: type[LedgerMachine],
    part: str,
    broken: object,
) -> None:
    monkeypatch.setattr(part, broken)
    # The first example that shows the fault ends the run.
    once = settings(
        RUNS, max_examples=500, phases=[Phase.generate], derandomize=True, database=None
    )
    with running_replica(servers, LIMITS) as LedgerMachine.live, pytest.raises(AssertionError):
        run_state_machine_as_test(machine, settings=once)
