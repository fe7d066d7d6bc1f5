"""The load test against a server with planted faults: it fails and names each fault."""

from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from tests.conftest import Database, Replicas
from tests.support.faulty_front import Damage, Fault, FaultyFront, faulty_front
from tests.support.locusts import LEVELS, LoadTest, locust, run_time

_VIOLATED = 3
_LEVEL_BROKEN = 4


@asynccontextmanager
async def fronts(
    target: str, *faults: Fault, every: int | None = None, damage: Damage | None = None
) -> AsyncIterator[list[FaultyFront]]:
    """One front for each fault, each before the one that precedes it in the list."""
    async with AsyncExitStack() as exits:
        opened: list[FaultyFront] = []
        for fault in faults:
            url = opened[-1].url if opened else target
            front = faulty_front(url, fault, every=every, damage=damage)
            opened.append(await exits.enter_async_context(front))
        yield opened


async def run_against(opened: list[FaultyFront], scenario: str, *arguments: str) -> LoadTest:
    """A short run against the last front, in which each fault was planted."""
    test = await locust(
        *("--scenario", scenario, *run_time(2), "--users", "10", "--think", "0.1"),
        *("--wallets", "40", "--merchants", "2", *arguments),
        host=opened[-1].url,
    )
    assert [front for front in opened if not front.planted] == []
    return test


async def test_each_fault_of_payments_is_named(replicas: Replicas, database: Database) -> None:
    api = await replicas.start()
    credited: set[str] = set()

    async def credit_again(wallet_id: str, amount: int) -> None:
        credited.add(wallet_id)
        await database.fetch(
            "UPDATE ledger_00.wallets SET balance = balance + $2 WHERE id = $1", wallet_id, amount
        )

    kinds = {
        Fault.LOST: "lost-transfer",
        Fault.DOUBLED: "invented-transfer",
        Fault.CHANGED_REPLAY: "changed-replay",
        Fault.WRONG_AMOUNT: "wrong-answer",
        Fault.DOUBLE_CREDIT: "wrong-balance",
    }
    async with fronts(api.url, *kinds, every=10, damage=credit_again) as opened:
        test = await run_against(opened, "hot-wallet")
    assert_named(test, kinds.values())
    wrong = [each["text"] for each in test.violations if each["kind"] == "wrong-balance"]
    assert any(wallet in text for text in wrong for wallet in credited), wrong
    [hottest, *_] = await payments_by(database, "destination")
    assert hottest > sum(await payments_by(database, "destination")) / 2


@pytest.mark.parametrize(
    ("scenario", "kinds"),
    [
        ("idempotency-storm", {Fault.NEW_ON_REPLAY: "doubled-transfer"}),
        (
            "mixed",
            {
                Fault.STALE_READ: "stale-read",
                Fault.FAILING_ON_MALFORMED: "server-error-on-bad-request",
                Fault.FOREIGN_USER: "foreign-id",
            },
        ),
    ],
    ids=["idempotency-storm", "mixed"],
)
async def test_each_fault_is_named(
    replicas: Replicas, scenario: str, kinds: dict[Fault, str]
) -> None:
    api = await replicas.start()
    async with fronts(api.url, *kinds) as opened:
        test = await run_against(opened, scenario)
    assert_named(test, kinds.values())


async def test_each_fault_of_holds_is_named(replicas: Replicas) -> None:
    api = await replicas.start()
    # A release that the last front keeps from the service reaches no other front.
    faults = (Fault.CAPTURED_AGAIN, Fault.REFUSED_AND_RELEASED, Fault.HOLD_KEPT)
    async with fronts(api.url, *faults) as opened:
        test = await run_against(opened, "card-payments", *run_time(4), "--users", "20")
    assert_named(
        test, ("invented-transfer", "invented-hold-change", "lost-hold-change", "wrong-hold")
    )


def assert_named(test: LoadTest, kinds: Collection[str]) -> None:
    """The run has failed, and its last line names violations of these kinds."""
    assert test.code == _VIOLATED, test.output[-5_000:]
    assert {violation["kind"] for violation in test.violations} >= set(kinds)
    assert all(kind in test.line for kind in kinds)
    assert test.output.rstrip().endswith(test.line)


async def payments_by(database: Database, side: str) -> list[int]:
    """How many payments each wallet has on this side, the most first; without initial balances."""
    rows = await database.fetch(
        f"SELECT count(*) FROM ledger_00.transfers AS t JOIN ledger_00.wallets AS source"
        f" ON source.id = t.source_wallet_id WHERE NOT source.funding"
        f" GROUP BY t.{side}_wallet_id ORDER BY 1 DESC"
    )
    return [row["count"] for row in rows]


async def test_broken_service_levels_are_named(replicas: Replicas, database: Database) -> None:
    api = await replicas.start()
    async with fronts(api.url, Fault.SLOW, Fault.FAILING, every=40) as opened:
        # So many payments that each wallet of the ring pays and is paid.
        test = await run_against(opened, "contention-ring", "--users", "20", "--think", "0.05")
    assert test.code == _LEVEL_BROKEN, test.output[-5_000:]
    assert "p99 of transfers" in test.line
    assert "error rate" in test.line
    assert test.violations == []
    # The wallets of the ring pay only each other.
    for side in ("source", "destination"):
        assert len(await payments_by(database, side)) == 16


async def test_back_pressure_is_no_failure(replicas: Replicas) -> None:
    api = await replicas.start()
    async with fronts(api.url, Fault.BUSY) as opened:
        test = await run_against(opened, "mixed", *LEVELS)
    assert test.code == 0, test.output[-5_000:]
    assert test.violations == []
    assert test.verdict["failures"] == 0
    assert test.verdict["turned_away"] > 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--host", "http://127.0.0.1:9"), "make run"),
        (("--scenario", "chaos"), "invalid choice: 'chaos'"),
        (("--ledgers", "2"), "transferd keys create --ledger NAME"),
    ],
)
async def test_a_run_that_cannot_start_is_one_line(arguments: tuple[str, ...], said: str) -> None:
    test = await locust(*arguments, "--run-time", "1s", host="http://127.0.0.1:9")
    assert test.code in (1, 2)
    assert said in test.output.rstrip().splitlines()[-1]
