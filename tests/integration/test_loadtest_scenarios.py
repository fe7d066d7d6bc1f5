"""Scenarios of the load test against two replicas behind Nginx: the ledger is correct."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from tests.conftest import Database
from tests.support.locusts import LEVELS, LoadTest, locust, run_s, run_time
from tests.support.servers import Servers
from tests.support.topology import SupervisedReplicas, admin_token, topology
from tests.support.truth import row_count
from tests.support.waiting import SLOWNESS

# The topology serves all tests of this file.
pytestmark = pytest.mark.asyncio(loop_scope="module")

_WALLETS = 100
# Wallets of merchants, payrolls, treasurers and attackers, by default.
_OTHERS = 10 + 4 + 4 + 8
# Of cardholders, in a run of soak.
_CARDS = 10


@dataclass(frozen=True)
class Scene:
    """A topology that requires an API key, and its database."""

    database: Database
    whole: SupervisedReplicas
    token: str

    async def locust(self, *arguments: str) -> LoadTest:
        """A run with the API key, on the same wallets as all runs of this file."""
        wallets = ("--wallets", str(_WALLETS), "--api-key", self.token)
        return await locust(*wallets, *arguments, host=self.whole.nginx.url)

    async def transfers(self) -> int:
        """Transfers in the ledger except those that create money."""
        return await row_count(
            self.database,
            "ledger_00.transfers AS t JOIN ledger_00.wallets AS source"
            " ON source.id = t.source_wallet_id WHERE NOT source.funding",
        )

    async def hold_changes(self) -> int:
        """The entries of statements about holds, without the transfers of captures."""
        return await row_count(self.database, "ledger_00.wallet_changes WHERE hold_id IS NOT NULL")

    async def wallets(self) -> int:
        return await row_count(self.database, "ledger_00.wallets WHERE NOT funding")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(servers: Servers) -> AsyncIterator[Scene]:
    name, redis_number = await servers.new_database()
    database = Database(name, redis_number, servers)
    token = await admin_token(database)
    async with topology(database, 2, auth="on") as whole:
        yield Scene(database, whole, token)
    await servers.drop_database(name)


async def loaded(scene: Scene, seconds: int, users: int, *arguments: str) -> LoadTest:
    """A run that has passed. `seconds` is longer on a slower machine."""
    before, answered = await scene.transfers(), len(scene.whole.nginx.access_log())
    held_before = await scene.hold_changes()
    test = await scene.locust(*run_time(seconds), "--users", str(users), *LEVELS, *arguments)
    asked = [row for row in scene.whole.nginx.access_log()[answered:] if row["path"] != "/readyz"]
    assert test.code == 0, test.output[-5_000:]
    assert test.violations == []
    assert test.verdict["failures"] == 0
    # Every request belongs to a trace of its own.
    assert len({row["trace"] for row in asked if row["trace"]}) == len(asked)
    assert test.verdict["seconds"] >= run_s(seconds) - 1
    assert test.verdict["users"] == users
    # The acknowledged transfers are exactly those in PostgreSQL.
    transfers = await scene.transfers() - before
    assert test.verdict["audit"]["acknowledged"] == transfers > 0
    # A hold may have expired after the audit.
    changes = await scene.hold_changes() - held_before
    assert 0 <= test.verdict["audit"]["entries"] - 2 * transfers <= changes
    assert test.verdict["audit"]["complete"] is True
    assert test.verdict["audit"]["replays"] > 0
    return test


def requests(test: LoadTest, name: str) -> int:
    """Answers that were counted under this name."""
    row: dict[str, Any] = test.verdict["latencies_ms"].get(name, {"requests": 0})
    return int(row["requests"])


async def test_a_run_without_an_api_key_names_the_command_that_makes_one(scene: Scene) -> None:
    test = await locust("--run-time", "1s", host=scene.whole.nginx.url)
    assert test.code == 1
    assert "transferd keys create" in test.line


async def test_a_soak_in_several_processes_is_audited_as_one_run_and_a_storm_uses_its_wallets(
    scene: Scene,
) -> None:
    # With their pauses some 150 requests/s, which leaves time for tests that run beside them.
    pauses = ("--think", "0.15", "--batch-size", "20")
    soak = ("--scenario", "soak", "--shape", "soak", "--processes", "2")
    first = await loaded(scene, 3, 24, *soak, *pauses)
    assert first.verdict["shape"] == "soak"
    for name in ("/transfers", "/transfers/batch", "/transfers/{id}/reversal"):
        assert requests(first, f"POST {name}") > 0
    assert requests(first, "POST attack") > 0
    assert requests(first, "GET /wallets/{id}/statement") > 0
    assert requests(first, "POST /holds") > 0
    assert first.verdict["audit"]["holds"] > 0
    assert await scene.wallets() == _WALLETS + _OTHERS + _CARDS

    # Each request of the storm is sent five times at once and is executed once.
    storm = ("--scenario", "idempotency-storm", "--tags", "pay")
    later = await loaded(scene, 2, 8, *storm, "--think", "0.2")
    originals = requests(later, "POST /transfers")
    assert originals > 0
    assert requests(later, "POST /transfers (replayed)") >= 3 * originals
    # It makes only payments.
    assert requests(later, "GET /wallets/{id}") == 0
    assert await scene.wallets() == _WALLETS + _OTHERS + _CARDS


async def test_card_payments_are_audited_hold_by_hold(scene: Scene) -> None:
    cards = ("--scenario", "card-payments", "--processes", "2", "--think", "0.1")
    users = 20
    test = await loaded(scene, 6, users, *cards)
    holds = await row_count(scene.database, "ledger_00.holds")
    # The end of the run may cut off the answer to the last request of a user.
    assert holds - users <= test.verdict["audit"]["holds"] <= holds
    assert test.verdict["audit"]["holds"] > 0
    for status in range(4):
        # Active, captured, released and expired ones.
        assert await row_count(scene.database, f"ledger_00.holds WHERE status = {status}") > 0
    for what in ("capture", "adjust", "release"):
        assert requests(test, f"POST /holds/{{id}}/{what}") > 0
        assert requests(test, f"POST /holds/{{id}}/{what} (refused)") > 0
    assert requests(test, "POST /holds/{id}/capture (replayed)") > 0
    assert test.verdict["audit"]["hold_changes"] > test.verdict["audit"]["holds"]


async def test_a_ramp_ends_where_a_service_level_is_broken(scene: Scene) -> None:
    test = await scene.locust(
        *("--shape", "ramp", *run_time(10), "--users", "800", "--think", "0.02"),
        # Far above the latency with 40 users, far below the latency with 800.
        *("--p95", f"{300 * SLOWNESS:.0f}", "--p99", "120000"),
    )
    assert test.code == 0, test.output[-5_000:]
    assert re.search(r"broke at \d+ users", test.line), test.line
    assert test.verdict["seconds"] < run_s(10) * 0.9
