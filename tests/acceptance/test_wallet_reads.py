"""Reads of one wallet: cached, conditional, with a minimal version, and at a time."""

from datetime import timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.conftest import Database, Replicas
from tests.support.api import Api
from tests.support.contract import UNKNOWN_ID, exactly, time_of


async def test_a_known_version_is_answered_with_304(replicas: Replicas) -> None:
    api = await replicas.start(cache=True)
    ada = await api.wallet(100)
    for known in ('"w1"', 'W/"w1"', '"w0", "w1"', '"w0","w1","w7"', "*"):
        reply = await api.get(f"/wallets/{ada}", {"If-None-Match": known})
        assert (reply.status, reply.body) == (304, b""), known
        assert reply.headers["ETag"] == '"w1"'
        assert reply.headers["X-Cache"] == "hit"
        assert reply.headers["Cache-Control"] == "private, no-cache"
    for other in ('"w0"', "w1", '"w11"', '"W1"', ""):
        reply = await api.get(f"/wallets/{ada}", {"If-None-Match": other})
        assert (reply.status, reply.json["balance"]) == (200, 100), other
    await api.transfer(ada, await api.wallet(), 5)
    reply = await api.get(f"/wallets/{ada}", {"If-None-Match": '"w1"'})
    assert (reply.status, reply.json["balance"]) == (200, 95)
    assert (reply.headers["ETag"], reply.json["version"]) == ('"w2"', 2)


async def test_x_cache_names_the_source_of_an_answer(
    replicas: Replicas, database: Database
) -> None:
    cached, bare = await replicas.start(cache=True), await replicas.start(cache=False)
    ada = await cached.wallet(100)
    path = f"/wallets/{ada}"
    first = await cached.get(path)
    redis: Any = Redis.from_url(database.settings().required("redis_url"))
    await redis.flushdb()
    await redis.aclose()
    replies = [first, await cached.get(path), await cached.get(path), await bare.get(path)]
    assert [reply.headers["X-Cache"] for reply in replies] == ["hit", "miss", "hit", "bypass"]
    assert {reply.body for reply in replies} == {first.body}


async def test_an_answer_is_never_older_than_asked_for(replicas: Replicas) -> None:
    cached, bare = await replicas.start(cache=True), await replicas.start(cache=False)
    ada = await cached.wallet(100)
    # A replica without Redis does not update the cache.
    assert (await bare.transfer(ada, await bare.wallet(), 5)).json["source_version"] == 2
    stale = await cached.get(f"/wallets/{ada}")
    assert (stale.headers["X-Cache"], stale.json["version"]) == ("hit", 1)
    assert (await cached.get(f"/wallets/{ada}?min_version=1")).body == stale.body
    fresh = await cached.get(f"/wallets/{ada}?min_version=2")
    assert (fresh.headers["X-Cache"], fresh.json["version"]) == ("miss", 2)
    assert fresh.json["balance"] == 95
    # The read filled the cache, so the next read is a hit.
    assert (await cached.get(f"/wallets/{ada}")).body == fresh.body


@pytest.mark.parametrize("cache", [True, False])
async def test_a_version_that_does_not_exist_yet_is_not_reached(
    replicas: Replicas, cache: bool
) -> None:
    api = await replicas.start(cache=cache)
    ada = await api.wallet(100)
    for version in (2, 2**63 - 1):
        refused = await api.get(f"/wallets/{ada}?min_version={version}", {"If-None-Match": '"w1"'})
        assert (refused.status, refused.code) == (412, "version-not-reached")
        assert refused.json["version"] == 1
    assert (await api.get(f"/wallets/{UNKNOWN_ID}?min_version=1")).code == "wallet-not-found"
    known = await api.get(f"/wallets/{ada}?min_version=1", {"If-None-Match": '"w1"'})
    assert known.status == 304


async def test_a_wallet_is_shown_as_it_was_at_a_time(api: Api) -> None:
    ada, bob = await api.wallet(100), await api.wallet()
    shown = [(await api.get(f"/wallets/{ada}")).json]
    for step in (
        ("POST", f"/wallets/{ada}/freeze", None),
        ("POST", f"/wallets/{ada}/unfreeze", None),
        ("PATCH", f"/wallets/{ada}", {"overdraft_limit": 30}),
    ):
        assert (await api.call(*step)).status == 200
        shown.append((await api.get(f"/wallets/{ada}")).json)
    for amount in (70, 50):
        assert (await api.transfer(ada, bob, amount)).status == 201
        shown.append((await api.get(f"/wallets/{ada}")).json)
    assert [each["balance"] for each in shown] == [100, 100, 100, 100, 30, -20]
    for then, later in zip(shown, [*shown[1:], None], strict=True):
        # It has no history.
        del then["metadata"]
        # A change is not part of its own instant, but of the next microsecond.
        moments = [time_of(then["updated_at"]) + timedelta(microseconds=1)]
        if later is not None:
            moments.append(time_of(later["updated_at"]))
        for moment in moments:
            reply = await exactly(api, "GET", f"/wallets/{ada}?at={moment:%Y-%m-%dT%H:%M:%S.%fZ}")
            assert reply.json == then
            assert "ETag" not in reply.headers
            assert reply.headers["X-Cache"] == "bypass"


async def test_a_wallet_before_its_creation_is_not_found(api: Api) -> None:
    ada = await api.wallet()
    created_at = time_of((await api.get(f"/wallets/{ada}")).json["created_at"])
    just_before = created_at - timedelta(microseconds=1)
    for at in (
        f"{created_at:%Y-%m-%dT%H:%M:%S.%fZ}",
        f"{just_before:%Y-%m-%dT%H:%M:%S.%fZ}",
        "1969-07-20T20:17:40Z",
        "0001-01-01T00:00:00Z",
        "0001-01-01T00:00:00%2B14:00",
    ):
        reply = await exactly(api, "GET", f"/wallets/{ada}?at={at}")
        assert reply.code == "wallet-not-found", at
    just_after = created_at + timedelta(microseconds=1)
    reply = await exactly(api, "GET", f"/wallets/{ada}?at={just_after:%Y-%m-%dT%H:%M:%S.%fZ}")
    assert (reply.status, reply.json["version"]) == (200, 0)
