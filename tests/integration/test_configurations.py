"""The same small story has the same ending in every configuration that an operator may choose."""

from typing import Any

import pytest

from tests.conftest import Database, Replicas
from tests.support.api import Api, Reply
from tests.support.pressure import crowd, statuses
from tests.support.truth import faults_in, row_count
from transferd.config import Limits


async def story(apis: list[Api]) -> dict[str, int]:
    """Everything that can race, over all replicas; the balances at the end."""
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


_CONFIGURATIONS: dict[str, tuple[Limits, dict[str, Any]]] = {
    "plain": (Limits(), {}),
    "behind PgBouncer": (Limits(), {"prepared_statements": False}),
    "no cache": (Limits(), {"cache": False}),
    "one by one": (Limits(group_envelopes_max=1, turn_envelopes_max=1), {}),
    "tight gate": (Limits(backlog_high=8, backlog_low=4), {}),
}


async def isolate(database: Database, level: str) -> None:
    """Every transaction of the service runs at this isolation level."""
    await database.fetch(
        f"ALTER DATABASE {database.name} SET default_transaction_isolation = '{level}'"
    )


@pytest.mark.parametrize("name", _CONFIGURATIONS)
@pytest.mark.parametrize("level", ["read committed", "serializable"])
async def test_the_story_ends_alike(
    name: str, level: str, replicas: Replicas, database: Database
) -> None:
    await isolate(database, level)
    limits, settings = _CONFIGURATIONS[name]
    end = await story([await replicas.start(limits, **settings) for _ in range(2)])
    assert end["ada"] + end["bob"] == 100
    assert min(end.values()) >= 0
    assert end["new"] == 9
    assert await row_count(database, "ledger_00.wallets WHERE NOT funding") == 3
    assert await faults_in(database) == []


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
async def test_readers_of_a_stricter_database_hear_of_no_conflict(
    level: str, replicas: Replicas, database: Database
) -> None:
    await isolate(database, level)
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
