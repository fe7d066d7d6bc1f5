"""Redis dies, hangs, fills up or comes back: answers are slower for a moment and never wrong."""

import asyncio
import time
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.conftest import Database, Replicas
from tests.support.api import Api
from tests.support.pressure import counted, crowd, statuses
from tests.support.truth import faults_in, row_count
from tests.support.waiting import until
from transferd.cache.keyspace import Keyspace
from transferd.cache.link import Link
from transferd.config import Limits
from transferd.devstack import RedisServer

pytestmark = pytest.mark.needs_configuration("cache", why="the tests break Redis")

# The breaker stays open until the end of the test.
_NEVER_S = 60.0


def failed_calls(replicas: Replicas) -> float:
    """How many calls to Redis have failed so far."""
    registry = replicas.opened[0].context.metrics.registry
    return sum(
        sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == "transferd_cache_failures_total"
    )


async def break_it(redis: RedisServer, fault: str) -> None:
    """Redis is killed (`dead`), or it hangs."""
    if fault == "dead":
        await redis.kill()
    else:
        redis.pause()


async def pay_and_read(api: Api, source: str, destination: str, count: int) -> None:
    """Make transfers one after the other, each followed by a read of the source."""
    for _ in range(count):
        reply = await api.transfer(source, destination, 1)
        assert reply.status == 201
        assert await api.balance(source) == reply.json["source_balance_after"]


@pytest.mark.parametrize("fault", ["dead", "hung"])
async def test_a_broken_redis_costs_one_failed_call(
    fault: str, replicas: Replicas, redis: RedisServer, database: Database
) -> None:
    limits = Limits(breaker_open_s=_NEVER_S, redis_timeout_s=0.3)
    api = await replicas.start(limits, redis_url=redis.url)
    ada, bob = await api.wallet(100), await api.wallet()
    await break_it(redis, fault)
    started = time.monotonic()
    await api.transfer(ada, bob, 1)
    assert fault == "dead" or time.monotonic() - started >= limits.redis_timeout_s
    await pay_and_read(api, ada, bob, 20)
    assert failed_calls(replicas) == 1
    assert (await api.get(f"/wallets/{bob}")).headers["X-Cache"] == "bypass"
    assert counted(replicas, "transferd_idempotency_keys_total", state="unknown") == 21
    assert (await api.get("/readyz")).status == 200
    assert await faults_in(database) == []


async def test_without_the_breaker_every_group_waits_for_a_hung_redis(
    replicas: Replicas, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Link, "is_broken", False)
    limits = Limits(breaker_open_s=_NEVER_S, redis_timeout_s=0.1)
    api = await replicas.start(limits, redis_url=redis.url)
    ada, bob = await api.wallet(100), await api.wallet()
    redis.pause()
    started = time.monotonic()
    await pay_and_read(api, ada, bob, 3)
    # Each transfer waits for claim and refresh, each read for look-up, reservation and fill.
    assert failed_calls(replicas) == 15
    assert time.monotonic() - started >= 15 * limits.redis_timeout_s


async def test_many_readers_share_one_timeout(replicas: Replicas, redis: RedisServer) -> None:
    api = await replicas.start(Limits(breaker_open_s=_NEVER_S), redis_url=redis.url)
    wallets = [await api.wallet(n + 1) for n in range(10)]
    redis.pause()
    balances = await crowd(api.balance(wallets[n % 10]) for n in range(100))
    assert sorted(set(balances)) == list(range(1, 11))
    # Each wait for Redis is a failed call: calls in flight waited together,
    # not one reader after the other.
    assert failed_calls(replicas) <= 2


async def test_no_request_waits_for_the_probe_of_a_hanging_redis(
    replicas: Replicas, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = Limits(breaker_open_s=0.02, redis_timeout_s=1.0)
    api = await replicas.start(limits, redis_url=redis.url)
    ada, bob = await api.wallet(100_000), await api.wallet()
    true, asked = Redis.ping, asyncio.Event()

    async def ping(self: Any, **options: Any) -> Any:
        asked.set()
        return await true(self, **options)

    monkeypatch.setattr(Redis, "ping", ping)
    redis.pause()
    await api.transfer(ada, bob, 1)
    await asked.wait()
    # Transfer and read while the probe waits for its timeout, the second failed call.
    await pay_and_read(api, ada, bob, 1)
    assert failed_calls(replicas) == 1
    await until(lambda: failed_calls(replicas) == 2)


async def test_after_any_error_of_the_probe_redis_is_probed_again(
    replicas: Replicas, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = await replicas.start(Limits(breaker_open_s=0.02), redis_url=redis.url)
    ada, bob = await api.wallet(100), await api.wallet()
    true, failures = Redis.ping, iter([ValueError("no pong"), KeyError("pong")])

    async def ping(self: Any, **options: Any) -> Any:
        for failure in failures:
            raise failure
        return await true(self, **options)

    monkeypatch.setattr(Redis, "ping", ping)
    await redis.kill()
    await pay_and_read(api, ada, bob, 1)
    await redis.start()
    await until(lambda: replicas.opened[0].context.link.is_available)
    assert failed_calls(replicas) >= 3


@pytest.mark.parametrize("fault", ["dead", "hung"])
async def test_redis_is_used_again_when_it_is_back(
    fault: str, replicas: Replicas, redis: RedisServer
) -> None:
    api = await replicas.start(Limits(breaker_open_s=0.1), redis_url=redis.url)
    ada, bob = await api.wallet(100), await api.wallet()
    await break_it(redis, fault)
    await pay_and_read(api, ada, bob, 3)
    if fault == "dead":
        await redis.start()
    else:
        redis.resume()

    async def hit() -> bool:
        return (await api.get(f"/wallets/{ada}")).headers["X-Cache"] == "hit"

    await until(hit)
    written = await api.transfer(ada, bob, 1)
    reply = await api.get(f"/wallets/{ada}")
    assert reply.headers["X-Cache"] == "hit"
    assert reply.json["balance"] == written.json["source_balance_after"] == 96


async def test_a_snapshot_that_was_not_refreshed_is_old_until_its_ttl_ends(
    replicas: Replicas, redis: RedisServer, keyspace: Keyspace
) -> None:

    api = await replicas.start(Limits(breaker_open_s=0.05, snapshot_ttl_s=1), redis_url=redis.url)
    ada, bob = await api.wallet(100), await api.wallet()
    redis.pause()
    written = (await api.transfer(ada, bob, 1)).json["source_version"]
    redis.resume()
    link = replicas.opened[0].context.link
    await until(lambda: link.is_available)
    client: Any = Redis.from_url(redis.url)
    lives_s = [await client.ttl(keyspace.of_wallet(id)) for id in (ada, bob)]
    await client.aclose()
    # -2: it has expired already. Without an expiry it would be -1.
    lives_max_s = replicas.opened[0].context.limits.snapshot_ttl_s
    assert all(life_s == -2 or 0 <= life_s <= lives_max_s for life_s in lives_s)
    assert (await api.get(f"/wallets/{ada}?min_version={written}")).json["balance"] == 99

    async def fresh() -> bool:
        return await api.balance(ada) == 99 and await api.balance(bob) == 1

    await until(fresh)


async def test_a_replica_starts_and_serves_while_redis_is_down(
    replicas: Replicas, redis: RedisServer
) -> None:
    await redis.kill()
    api = await replicas.start(redis_url=redis.url)
    ada, bob = await api.wallet(100), await api.wallet()
    await pay_and_read(api, ada, bob, 3)
    assert (await api.get("/idempotency-keys/unknown")).code == "not-found"


async def test_a_full_redis_refuses_writes_and_requests_still_succeed(
    replicas: Replicas, redis: RedisServer, database: Database
) -> None:
    api = await replicas.start(redis_url=redis.url)
    ada, bob = await api.wallet(100), await api.wallet()
    client: Any = Redis.from_url(redis.url)
    await client.flushall()
    await client.config_set("maxmemory", "1")
    await client.aclose()
    replies = await crowd(api.transfer(ada, bob, 1, key="rent") for _ in range(10))
    assert statuses(replies) == {201: 10}
    await pay_and_read(api, ada, bob, 5)
    assert await api.balance(ada) == 94
    assert await faults_in(database) == []


async def test_redis_dies_and_comes_back_under_load_over_two_replicas(
    replicas: Replicas, redis: RedisServer, database: Database
) -> None:
    limits = Limits(breaker_open_s=0.05)
    apis = [await replicas.start(limits, redis_url=redis.url) for _ in range(2)]
    ada, bob = await apis[0].wallet(1_000), await apis[0].wallet()
    transfers = await row_count(database, "ledger_00.transfers")

    async def restart() -> None:
        await redis.kill()
        await redis.start()

    for number in range(5):
        restarting = asyncio.create_task(restart())
        # Every key goes to both replicas, twice.
        calls = [
            api.transfer(ada, bob, 1, key=f"{number}-{n}") for n in range(20) for api in apis * 2
        ]
        assert statuses(await crowd(calls, at_once=20)) == {201: 80}
        await restarting
    assert await row_count(database, "ledger_00.transfers") == transfers + 100
    assert await faults_in(database) == []
