"""Scenarios of the load test against two replicas behind Nginx: the ledger is correct."""

import re
from typing import Any

from tests.conftest import Database
from tests.support.locusts import LEVELS, LoadTest, locust, run_s, run_time
from tests.support.topology import admin_token, topology
from tests.support.truth import row_count
from tests.support.waiting import SLOWNESS

# Longer on a slower machine.
_SECONDS = 3
# With their pauses some 150 requests/s, which leaves time for tests that run beside them.
_USERS = 24
_THINK_S = "0.15"
_WALLETS = 100
# Wallets of merchants, payrolls, treasurers and attackers, by default.
_OTHERS = 10 + 4 + 4 + 8


async def loaded(database: Database, scenario: str, *arguments: str) -> LoadTest:
    """A run that has passed."""
    async with topology(database, 2) as whole:
        test = await locust(
            *("--scenario", scenario, *run_time(_SECONDS), "--users", str(_USERS)),
            *("--wallets", str(_WALLETS), "--think", _THINK_S, "--batch-size", "20"),
            *LEVELS,
            *arguments,
            host=whole.nginx.url,
        )
        asked = [row for row in whole.nginx.access_log() if row["path"] != "/readyz"]
    assert test.code == 0, test.output[-5_000:]
    assert test.violations == []
    assert test.verdict["failures"] == 0
    # Every request belongs to a trace of its own.
    assert len({row["trace"] for row in asked if row["trace"]}) == len(asked)
    assert test.verdict["seconds"] >= run_s(_SECONDS) - 1
    assert test.verdict["users"] == _USERS
    # The acknowledged transfers are exactly those in PostgreSQL.
    assert test.verdict["audit"]["acknowledged"] == await in_the_ledger(database)
    assert test.verdict["audit"]["entries"] == 2 * await in_the_ledger(database)
    assert test.verdict["audit"]["complete"] is True
    assert test.verdict["audit"]["replays"] > 0
    return test


async def in_the_ledger(database: Database) -> int:
    """Transfers except the initial balances."""
    return await row_count(
        database,
        "ledger_00.transfers AS t JOIN ledger_00.wallets AS source"
        " ON source.id = t.source_wallet_id WHERE NOT source.funding",
    )


def requests(test: LoadTest, name: str) -> int:
    """Answers that were counted under this name."""
    row: dict[str, Any] = test.verdict["latencies_ms"].get(name, {"requests": 0})
    return int(row["requests"])


async def test_a_storm_does_each_request_once(database: Database) -> None:
    test = await loaded(database, "idempotency-storm")
    originals = requests(test, "POST /transfers")
    assert originals > 0
    assert requests(test, "POST /transfers (replayed)") >= 3 * originals


async def test_a_mix_has_all_kinds_of_users_and_a_later_run_uses_its_wallets(
    database: Database,
) -> None:
    token = await admin_token(database)
    arguments = ("--scenario", "mixed", "--users", str(_USERS), "--wallets", "100", *LEVELS)
    level = ("--think", _THINK_S, *run_time(_SECONDS))
    async with topology(database, 2, auth="on") as whole:
        host = whole.nginx.url
        refused = await locust(*arguments, *level, host=host)
        first = await locust(*arguments, *level, "--api-key", token, host=host)
        before = await in_the_ledger(database)
        only = ("--think", _THINK_S, *run_time(3), "--tags", "pay", "--api-key", token)
        later = await locust(*arguments, *only, host=host)
    assert refused.code == 1
    assert "transferd keys create" in refused.line
    assert first.code == 0, first.output[-5_000:]
    assert first.verdict["failures"] == 0
    for name in ("/transfers", "/transfers/batch", "/transfers/{id}/reversal"):
        assert requests(first, f"POST {name}") > 0
    assert requests(first, "POST attack") > 0
    assert requests(first, "GET /wallets/{id}/statement") > 0
    assert first.verdict["audit"]["acknowledged"] == before
    assert later.code == 0, later.output[-5_000:]
    assert later.violations == []
    # The later run uses the same wallets and makes only payments.
    assert requests(later, "GET /wallets/{id}") == 0
    assert later.verdict["audit"]["acknowledged"] == await in_the_ledger(database) - before > 0
    assert await row_count(database, "ledger_00.wallets WHERE NOT funding") == 100 + _OTHERS


async def test_a_soak_in_several_processes_is_audited_as_one_run(
    database: Database,
) -> None:
    test = await loaded(database, "soak", "--shape", "soak", "--processes", "2")
    assert requests(test, "POST /transfers/batch") > 0
    assert test.verdict["shape"] == "soak"
    assert await row_count(database, "ledger_00.wallets WHERE NOT funding") == _WALLETS + _OTHERS


async def test_a_ramp_ends_where_a_service_level_is_broken(database: Database) -> None:
    async with topology(database, 2) as whole:
        test = await locust(
            *("--shape", "ramp", *run_time(10), "--users", "800", "--think", "0.02"),
            # Far above the latency with 40 users, far below the latency with 800.
            *("--wallets", "100", "--p95", f"{300 * SLOWNESS:.0f}", "--p99", "120000"),
            host=whole.nginx.url,
        )
    assert test.code == 0, test.output[-5_000:]
    assert re.search(r"broke at \d+ users", test.line), test.line
    assert test.verdict["seconds"] < run_s(10) * 0.9
