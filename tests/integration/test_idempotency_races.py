"""One key, many requests: one effect and one answer, in any state of Redis and other replicas."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.conftest import Database, Replicas
from tests.support.api import Api, Reply
from tests.support.contract import ApiWithKey, api_key
from tests.support.pressure import (
    arrived,
    busy_committers,
    counted,
    crowd,
    held,
    held_rows,
    statuses,
    until_sessions_wait,
)
from tests.support.truth import faults_in, row_count, transfers_of
from tests.support.waiting import SLOWNESS
from transferd.cache.keyspace import Keyspace
from transferd.config import Limits
from transferd.devstack import RedisServer
from transferd.ledger.store import database as store
from transferd.ledger.store.queries import query


@pytest.fixture
async def own_redis(tmp_path: Path) -> AsyncIterator[RedisServer]:
    """A Redis that only this test uses, and may kill."""
    server = RedisServer(tmp_path / "redis")
    await server.start()
    yield server
    await server.stop()


def assert_one_effect(replies: list[Reply]) -> None:
    """Assert that one was executed and the others replayed it with the same bytes."""
    assert statuses(replies) == {201: len(replies)}
    assert len({reply.body for reply in replies}) == 1
    executed = [reply for reply in replies if "Idempotent-Replayed" not in reply.headers]
    assert len(executed) == 1


@pytest.mark.parametrize("replica_count", [1, 2])
@pytest.mark.parametrize("cache", [True, False])
async def test_the_same_request_50_times_at_once_has_one_effect(
    replica_count: int, cache: bool, replicas: Replicas, database: Database
) -> None:
    apis = [await replicas.start(cache=cache) for _ in range(replica_count)]
    ada, bob = await apis[0].wallet(100), await apis[0].wallet()
    calls = [apis[n % replica_count].transfer(ada, bob, 7, key="rent") for n in range(50)]
    assert_one_effect(await crowd(calls))
    assert await apis[0].balance(ada) == 93
    assert await faults_in(database) == []


async def test_the_same_refused_request_50_times_has_one_answer(
    replicas: Replicas,
) -> None:
    apis = [await replicas.start(), await replicas.start()]
    ada, bob = await apis[0].wallet(100), await apis[0].wallet()
    calls = [apis[n % 2].transfer(ada, bob, 101, key="yacht") for n in range(50)]
    replies = await crowd(calls)
    assert statuses(replies) == {422: 50}
    # The bytes contain the id of the executed request.
    assert len({reply.body for reply in replies}) == 1
    await apis[0].transfer(await apis[0].wallet(1), ada, 1)
    again = await apis[1].transfer(ada, bob, 101, key="yacht")
    assert again.body == replies[0].body


async def test_the_same_wallet_and_user_50_times_are_created_once(
    replicas: Replicas, database: Database
) -> None:
    apis = [await replicas.start(), await replicas.start()]
    calls = [apis[n % 2].post("/users", {"name": "Eve"}, key="eve") for n in range(50)]
    users = await crowd(calls)
    assert_one_effect(users)
    body = {"user_id": users[0].json["id"], "currency": "USD"}
    for key, balance in (("empty", 0), ("full", 500)):
        wanted = body | {"initial_balance": balance}
        wallets = await crowd(apis[n % 2].post("/wallets", wanted, key=key) for n in range(50))
        assert_one_effect(wallets)
        assert wallets[0].json["balance"] == balance
    rows = await database.fetch("SELECT 1 FROM ledger_00.wallets WHERE NOT funding")
    assert len(rows) == 2
    assert await row_count(database, "ledger_00.users") == 1
    assert await faults_in(database) == []


async def test_without_redis_the_same_key_has_one_effect(
    replicas: Replicas, database: Database, own_redis: RedisServer
) -> None:
    apis = [await replicas.start(redis_url=own_redis.url) for _ in range(2)]
    ada, bob = await apis[0].wallet(100), await apis[0].wallet()
    first = await apis[0].transfer(ada, bob, 7, key="before")
    await own_redis.kill()
    replies = await crowd(apis[n % 2].transfer(ada, bob, 7, key="rent") for n in range(50))
    assert_one_effect(replies)
    again = await apis[1].transfer(ada, bob, 7, key="before")
    assert (again.status, again.body) == (201, first.body)
    await own_redis.start()
    for api in apis:
        assert (await api.transfer(ada, bob, 7, key="rent")).body == replies[0].body
    assert await row_count(database, "ledger_00.transfers") == 3
    assert await faults_in(database) == []


async def test_a_flush_of_redis_forgets_no_key(api: Api, database: Database, redis: Any) -> None:
    ada, bob = await api.wallet(100), await api.wallet()
    done = await api.transfer(ada, bob, 7, key="rent")
    refused = await api.transfer(ada, bob, 700, key="yacht")
    for flush in (redis.flushdb, redis.script_flush):
        await flush()
        for key, amount, first in (("rent", 7, done), ("yacht", 700, refused)):
            again = await api.transfer(ada, bob, amount, key=key)
            assert (again.status, again.body) == (first.status, first.body)
            assert again.headers["Idempotent-Replayed"] == "true"
            other = await api.transfer(ada, bob, amount + 1, key=key)
            assert other.code == "idempotency-key-reused"
    assert await api.balance(ada) == 93


@pytest.mark.needs_configuration("cache", why="claims are in Redis")
async def test_the_claim_of_a_killed_replica_only_delays(
    replicas: Replicas, redis: Any, keyspace: Keyspace
) -> None:
    api = await replicas.start()
    ada, bob = await api.wallet(100), await api.wallet()
    await redis.set(keyspace.of_key((1, "rent")), "cdeadbeef", ex=3_600)
    assert (await api.get("/idempotency-keys/rent")).json["state"] == "pending"
    started = time.monotonic()
    replies = await crowd(api.transfer(ada, bob, 7, key="rent") for _ in range(3))
    took_s = time.monotonic() - started
    assert_one_effect(replies)
    # It waits at most for the lifetime of a claim, not for an hour.
    assert Limits().claim_wait_s * 0.9 < took_s < 600
    assert counted(replicas, "transferd_idempotency_keys_total", state="busy") == 1
    # The replay has replaced the foreign claim.
    again = await api.transfer(ada, bob, 7, key="rent")
    assert again.body == replies[0].body
    assert await api.balance(ada) == 93


@pytest.mark.needs_configuration("cache", why="claims are in Redis")
async def test_a_foreign_claim_does_not_delay_its_neighbours(
    replicas: Replicas, redis: Any, keyspace: Keyspace
) -> None:

    api = await replicas.start(Limits(claim_wait_s=SLOWNESS))
    ada, bob = await api.wallet(100), await api.wallet()
    keys = [str(uuid4()) for _ in range(20)]
    await redis.set(keyspace.of_key((1, keys[0])), "cdeadbeef", ex=3_600)
    order: list[str] = []

    async def paid(key: str) -> Reply:
        reply = await api.transfer(ada, bob, 1, key=key)
        order.append(key)
        return reply

    assert statuses(await crowd(map(paid, keys))) == {201: 20}
    assert order[-1] == keys[0]


async def test_a_replica_waits_for_the_claim_of_another_and_answers_alike(
    replicas: Replicas, database: Database
) -> None:
    apis = [await replicas.start(), await replicas.start()]
    ada, bob = await apis[0].wallet(100), await apis[0].wallet()
    async with held_rows(database, ada):
        calls = [api.transfer(ada, bob, 7, key="rent") for api in apis]
        running = [asyncio.create_task(call) for call in calls]
        for number in range(2):
            await arrived(replicas, 1, replica=number)
    assert_one_effect([await task for task in running])


@pytest.mark.parametrize("cache", [True, False])
async def test_two_replicas_with_the_same_keys_in_opposite_order(
    cache: bool, replicas: Replicas, database: Database
) -> None:
    apis = [await replicas.start(cache=cache), await replicas.start(cache=cache)]
    pairs = [(await apis[0].wallet(10), await apis[0].wallet()) for _ in range(12)]
    keys = [f"key-{n:02}" for n in range(12)]
    plan = list(zip(keys, pairs, strict=True))
    running = []
    # Each replica has all of them in one group, and the groups conflict.
    async with busy_committers(database, *apis):
        for number, (api, order) in enumerate(zip(apis, (plan, plan[::-1]), strict=True)):
            for key, (source, destination) in order:
                call = api.transfer(source, destination, 10, key=key)
                running.append((key, asyncio.create_task(call)))
            await arrived(replicas, 13, replica=number)
    answers: dict[str, list[Reply]] = {}
    for key, task in running:
        answers.setdefault(key, []).append(await task)
    for replies in answers.values():
        assert_one_effect(replies)
    assert await faults_in(database) == []


async def _one_key_for_two_requests(
    replicas: Replicas, database: Database, *, cache: bool
) -> list[Reply]:
    """A key that is used at once on two replicas, for transfers between other wallets."""
    apis = [await replicas.start(cache=cache), await replicas.start(cache=cache)]
    pairs = [(await api.wallet(10), await api.wallet()) for api in apis]
    # Both have looked up the key and found nothing before one of them writes it.
    async with held(database, "LOCK TABLE ledger_00.outcomes IN SHARE MODE"):
        running = [
            asyncio.create_task(api.transfer(source, destination, 1, key="rent"))
            for api, (source, destination) in zip(apis, pairs, strict=True)
        ]
        # A claim in Redis keeps one of them away from PostgreSQL.
        await until_sessions_wait(database, 1 if cache else 2)
    return sorted(await asyncio.gather(*running), key=lambda reply: reply.status)


@pytest.mark.parametrize("cache", [True, False])
async def test_a_key_used_at_once_for_two_requests_serves_one_of_them(
    cache: bool, replicas: Replicas, database: Database
) -> None:
    served, refused = await _one_key_for_two_requests(replicas, database, cache=cache)
    assert served.status == 201
    assert refused.code == "idempotency-key-reused"
    assert await row_count(database, "ledger_00.transfers") == 2 + 1
    assert await faults_in(database) == []


@pytest.mark.needs_configuration(
    "read committed", why="PostgreSQL refuses one of two that race, with or without our count"
)
async def test_without_the_count_such_a_key_moves_money_twice(
    replicas: Replicas, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "query", _without_the_count)
    replies = await _one_key_for_two_requests(replicas, database, cache=False)
    assert statuses(replies) == {201: 2}
    assert await row_count(database, "ledger_00.transfers") == 2 + 2


def _without_the_count(schema: str, name: str, *file: str) -> str:
    """A replica that believes it has won every claim."""
    intact = query(schema, name, *file)
    if name != "write_group":
        return intact
    broken = intact.replace("(SELECT count(*) FROM kept)", "cardinality($17::text[])")
    assert broken != intact
    return broken


async def test_a_key_belongs_to_one_request_of_any_resource(api: Api) -> None:
    ada, bob = await api.wallet(100), await api.wallet()
    done = await api.transfer(ada, bob, 7, key="rent")
    path = f"/transfers/{done.json['id']}/reversal"
    others = [
        await api.transfer(ada, bob, 8, key="rent"),
        await api.transfer(bob, ada, 7, key="rent"),
        await api.transfer(ada, bob, 7, key="rent", reference="June"),
        await api.transfer(ada, bob, 7, key="rent", metadata={"n": 1}),
        await api.post(path, key="rent"),
        await api.post(f"/wallets/{ada}/freeze", key="rent"),
        await api.post("/users", {"name": "Eve"}, key="rent"),
    ]
    assert [reply.code for reply in others] == ["idempotency-key-reused"] * 7
    assert (await api.transfer(ada, bob, 7, key="rent")).body == done.body
    assert await api.balance(ada) == 93


async def test_the_keys_of_two_clients_are_independent(
    replicas: Replicas, database: Database
) -> None:
    local = await replicas.start()
    api = await replicas.start(auth="on")
    ada, bob = await local.wallet(100), await local.wallet()
    alice, carol = [
        ApiWithKey(api, await api_key(database, name, "admin")) for name in ("alice", "carol")
    ]
    calls = [
        client.transfer(ada, bob, amount, key="rent", reference=f"by-{amount}")
        for _ in range(10)
        for client, amount in ((alice, 7), (carol, 8))
    ]
    replies = await crowd(calls)
    assert_one_effect(replies[0::2])
    assert_one_effect(replies[1::2])
    assert await transfers_of(database, "by-7", "by-8") == {"by-7": 1, "by-8": 1}
    known = await carol.get("/idempotency-keys/rent")
    assert known.json["answer"] == replies[1].json
