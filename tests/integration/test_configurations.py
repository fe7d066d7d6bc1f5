"""The same races end alike in every configuration that an operator may choose."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import Database, Replicas
from tests.support.api import Api, Reply
from tests.support.configurations import CONFIGURATIONS, Configuration
from tests.support.pressure import crowd, statuses
from tests.support.project import ROOT
from tests.support.servers import Servers
from tests.support.truth import faults_in, row_count
from transferd.config import Limits
from transferd.domain.ledger import MAIN
from transferd.ledger.store import database as store

pytestmark = pytest.mark.needs_configuration(
    "no other configuration", why="these tests use all of them"
)


async def race_all(apis: list[Api]) -> dict[str, int]:
    """Races of all kinds over all replicas; the balances afterwards."""
    first, last = apis[0], apis[-1]
    ada, bob = await first.wallet(100), await first.wallet()
    spent = await crowd(apis[n % len(apis)].transfer(ada, bob, 1) for n in range(150))
    assert statuses(spent) == {201: 100, 422: 50}
    there = [first.transfer(bob, ada, 1) for _ in range(50)]
    back = [last.transfer(ada, bob, 1) for _ in range(50)]
    replies = await crowd(call for pair in zip(there, back, strict=True) for call in pair)
    assert {r.code for r in replies if r.status != 201} <= {"insufficient-funds"}
    same: list[Reply] = await crowd(
        apis[n % len(apis)].transfer(bob, ada, 5, key="rent") for n in range(20)
    )
    assert statuses(same) == {201: 20}
    assert len({reply.body for reply in same}) == 1
    assert (await last.transfer(bob, ada, 6, key="rent")).code == "idempotency-key-reused"
    reversals = await crowd(
        api.post(f"/transfers/{same[0].json['id']}/reversal", key=f"back-{n}")
        for api in apis
        for n in range(3)
    )
    assert {r.code for r in reversals if r.status != 201} == {"reversal-exceeds-transfer"}
    assert len({reply.body for reply in reversals if reply.status == 201}) == 1
    user = (await first.get(f"/wallets/{ada}")).json["user_id"]
    body = {"user_id": user, "currency": "USD", "initial_balance": 9}
    wallets = await crowd(apis[n % len(apis)].post("/wallets", body, key="new") for n in range(8))
    assert statuses(wallets) == {201: 8}
    frozen = await crowd(api.post(f"/wallets/{ada}/freeze") for api in apis * 4)
    assert len({reply.body for reply in frozen}) == 1
    assert (await last.transfer(ada, bob, 1)).code == "wallet-frozen"
    return {
        "ada": await last.balance(ada),
        "bob": await last.balance(bob),
        "new": await last.balance(wallets[0].json["id"]),
    }


# Raises a serialization failure in every serializable transaction.
_CONFLICT = """
CREATE FUNCTION conflict() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('transaction_isolation') = 'serializable' THEN
        RAISE EXCEPTION 'could not serialize access' USING ERRCODE = '40001';
    END IF;
    RETURN current_setting('transaction_isolation');
END $$"""

# Each is tested at the isolation level serializable too. Citus needs servers of its own, and
# another ledger needs a database that was made with it.
_TRIED = {
    name: each
    for name, each in CONFIGURATIONS.items()
    if name != "serializable" and not each.has_nodes and each.ledger == MAIN
} | {"tight-gate": Configuration(limits={"backlog_high": 8, "backlog_low": 4})}


@pytest.fixture(params=_TRIED)
async def configured(
    request: pytest.FixtureRequest, servers: Servers, tmp_path: Path
) -> AsyncIterator[Database]:
    """A database in this configuration."""
    own = replace(servers, configuration=_TRIED[request.param])
    await own.start_pooler(tmp_path)
    database_name, redis_number = await own.new_database()
    yield Database(database_name, redis_number, own)
    await own.drop_database(database_name)
    await own.stop_pooler()


@pytest.mark.parametrize("level", ["read committed", "serializable"])
async def test_the_races_end_alike_in_every_configuration(level: str, configured: Database) -> None:
    await configured.isolate(level)
    async with AsyncExitStack() as exits:
        replicas = Replicas(configured, exits)
        end = await race_all([await replicas.start() for _ in range(2)])
    assert end["ada"] + end["bob"] == 100
    assert min(end.values()) >= 0
    assert end["new"] == 9
    assert await row_count(configured, "ledger_00.wallets WHERE NOT funding") == 3
    assert await faults_in(configured) == []


# `make test-configurations` runs the other tests of correctness. This test proves that its option
# `--configuration` works, on the contract of transfers.
# It starts its own servers.
@pytest.mark.timeout(120)
def test_the_contract_of_transfers_holds_with_a_pooler() -> None:
    process = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "--quiet", "-p", "no:cacheprovider"),
            *("--configuration", "pgbouncer", "tests/acceptance/test_transfers.py"),
        ],
        cwd=ROOT,
        env={key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stdout + process.stderr


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
async def test_reads_at_stricter_isolation_levels_meet_no_conflict(
    level: str, replicas: Replicas, database: Database
) -> None:
    await database.isolate(level)
    apis = [await replicas.start(cache=False) for _ in range(2)]
    wallets = [await apis[0].wallet(1_000) for _ in range(4)]
    paths = ["", "/statement?limit=3", "?min_version=1"]
    calls = [
        call
        for n in range(150)
        for call in (
            apis[n % 2].transfer(wallets[n % 4], wallets[(n + 1) % 4], 1, key=f"key-{n}"),
            apis[n % 2].get(f"/wallets/{wallets[n % 4]}{paths[n % 3]}"),
            apis[(n + 1) % 2].get(f"/transfers?wallet_id={wallets[n % 4]}"),
            apis[(n + 1) % 2].get(f"/idempotency-keys/key-{n}"),
        )
    ]
    replies = await crowd(calls, at_once=60)
    assert set(statuses(replies)) <= {200, 201, 404}
    assert await faults_in(database) == []


async def test_a_read_with_a_serialization_failure_is_repeated(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await database.isolate("serializable")
    await database.fetch(_CONFLICT)
    async with store.Database(database.settings(), Limits(), connections=1) as reads:
        monkeypatch.setattr(store, "query", lambda *_: "SELECT conflict() AS level")
        [row] = await reads.fetch("ping")
    assert row["level"] == "read committed"
