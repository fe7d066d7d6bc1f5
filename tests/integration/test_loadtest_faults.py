"""A server with one planted fault: the load test has to fail, and to say which fault it is."""

import pytest

from tests.conftest import Database, Replicas
from tests.support.faulty_front import Fault, FaultyFront, faulty_front
from tests.support.locusts import LEVELS, LoadTest, locust, run_time

_VIOLATED = 3
_LEVEL_BROKEN = 4


async def run_against(front: FaultyFront, scenario: str, *arguments: str) -> LoadTest:
    """A short run against the front."""
    return await locust(
        *("--scenario", scenario, *run_time(3), "--users", "20", "--think", "0.1"),
        *("--wallets", "40", "--merchants", "2", *arguments),
        host=front.url,
    )


@pytest.mark.parametrize(
    ("fault", "scenario", "named"),
    [
        (Fault.LOST, "uniform", "lost-transfer"),
        (Fault.DOUBLED, "uniform", "invented-transfer"),
        (Fault.CHANGED_REPLAY, "uniform", "changed-replay"),
        (Fault.NEW_ON_REPLAY, "uniform", "changed-replay"),
        (Fault.NEW_ON_REPLAY, "idempotency-storm", "doubled-transfer"),
        (Fault.STALE_READ, "read-mostly", "stale-read"),
        (Fault.WRONG_AMOUNT, "uniform", "wrong-answer"),
        (Fault.CRASHING_ON_NONSENSE, "mixed", "server-error-on-bad-request"),
    ],
)
async def test_a_fault_is_named(
    replicas: Replicas, fault: Fault, scenario: str, named: str
) -> None:
    api = await replicas.start()
    async with faulty_front(api.url, fault) as front:
        test = await run_against(front, scenario)
    assert front.planted > 0
    assert test.code == _VIOLATED, test.output[-5_000:]
    assert named in test.line
    assert named in {violation["kind"] for violation in test.violations}
    # It is the last thing that is said.
    assert test.output.rstrip().endswith(test.line)


async def test_a_balance_that_was_credited_twice_is_named(
    replicas: Replicas, database: Database
) -> None:
    api = await replicas.start()

    async def credit_again(wallet_id: str, amount: int) -> None:
        await database.fetch(
            "UPDATE ledger_00.wallets SET balance = balance + $2 WHERE id = $1", wallet_id, amount
        )

    async with faulty_front(api.url, Fault.DOUBLE_CREDIT, damage=credit_again) as front:
        test = await run_against(front, "hot-wallet")
    assert front.planted > 0
    assert test.code == _VIOLATED, test.output[-5_000:]
    assert "wrong-balance" in test.line


@pytest.mark.parametrize(
    ("fault", "named"), [(Fault.SLOW, "p99 of transfers"), (Fault.FAILING, "error rate")]
)
async def test_a_broken_service_level_is_named(
    replicas: Replicas, fault: Fault, named: str
) -> None:
    api = await replicas.start()
    async with faulty_front(api.url, fault, every=20) as front:
        test = await run_against(front, "uniform")
    assert front.planted > 0
    assert test.code == _LEVEL_BROKEN, test.output[-5_000:]
    assert named in test.line
    assert test.violations == []


async def test_a_storm_of_back_pressure_is_no_failure(replicas: Replicas) -> None:
    api = await replicas.start()
    async with faulty_front(api.url, Fault.BUSY) as front:
        test = await run_against(front, "mixed", *LEVELS)
    assert front.planted > 0
    assert test.code == 0, test.output[-5_000:]
    assert test.verdict["failures"] == 0
    assert test.verdict["turned_away"] > 0


async def test_without_a_fault_the_same_run_passes(replicas: Replicas) -> None:
    api = await replicas.start()
    async with faulty_front(api.url, None) as front:
        test = await run_against(front, "mixed", *LEVELS)
    assert test.code == 0, test.output[-5_000:]
    assert test.violations == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--host", "http://127.0.0.1:9"), "make run"),
        (("--scenario", "chaos"), "invalid choice: 'chaos'"),
    ],
)
async def test_what_cannot_run_says_why_in_one_line(arguments: tuple[str, ...], said: str) -> None:
    test = await locust(*arguments, "--run-time", "1s", host="http://127.0.0.1:9")
    assert test.code in (1, 2)
    assert said in test.output.rstrip().splitlines()[-1]
