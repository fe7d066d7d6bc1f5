"""Read after write: the cache never answers with an older state than an earlier answer."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.conftest import Database, Replicas
from tests.support.api import Api
from tests.support.contract import ApiWithKey, api_key
from tests.support.pressure import counted, crowd
from tests.support.truth import faults_in
from tests.support.waiting import patient_s
from transferd.cache.keyspace import Keyspace
from transferd.cache.link import Link
from transferd.cache.replays import Claim, Replay, Replays
from transferd.cache.wallets import Snapshot, Wallets
from transferd.config import Limits
from transferd.domain.ledger import MAIN, Ledger
from transferd.observability.facts import Facts

pytestmark = pytest.mark.needs_configuration("cache", why="the cache may be old or wrong")

Fill = Callable[[Wallets, Snapshot, str], Awaitable[None]]


async def version_of(api: Api, wallet: str) -> int:
    """The version of a wallet that a plain GET shows; body and ETag agree on it."""
    reply = await api.get(f"/wallets/{wallet}")
    assert reply.status == 200, reply
    version: int = reply.json["version"]
    assert reply.headers["ETag"] == f'"w{version}"'
    return version


async def _write_and_read(writer: Api, readers: list[Api], wallets: list[str], n: int) -> None:
    source, destination = wallets[n % 4], wallets[(n + 1) % 4]
    reply = await writer.transfer(source, destination, 1)
    assert reply.status == 201, reply
    for version in await crowd(version_of(reader, source) for reader in readers):
        assert version >= reply.json["source_version"]


async def _read_forever(api: Api, wallet: str) -> None:
    seen = 0
    while True:
        version = await version_of(api, wallet)
        assert version >= seen, "a reader went back in time"
        seen = version


@pytest.mark.parametrize("flushes", [0, 3])
async def test_no_read_shows_less_than_the_201_before_it(
    flushes: int, replicas: Replicas, database: Database, redis: Any
) -> None:
    apis = [await replicas.start(), await replicas.start()]
    wallets = [await apis[0].wallet(1_000) for _ in range(4)]
    readers = [asyncio.create_task(_read_forever(api, w)) for api in apis for w in wallets]
    for part in range(4):
        numbers = range(part * 40, part * 40 + 40)
        await crowd((_write_and_read(apis[n % 2], apis, wallets, n) for n in numbers), at_once=20)
        if part < flushes:
            await redis.flushdb()
    for reader in readers:
        # A reader that has met an older version has ended with the assertion.
        assert not reader.done(), reader
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    for replica in range(2):
        assert counted(replicas, "transferd_wallet_reads_total", replica=replica, cache="hit") > 0
    if flushes:
        misses = [
            counted(replicas, "transferd_wallet_reads_total", replica=replica, cache="miss")
            for replica in range(2)
        ]
        assert sum(misses) > 0
    assert await faults_in(database) == []


async def _read_that_fills_late(
    api: Api,
    redis: Any,
    keyspace: Keyspace,
    monkeypatch: pytest.MonkeyPatch,
    fill: Fill,
    *,
    flushes: bool = False,
) -> tuple[int, int]:
    """A GET reads PostgreSQL, a transfer passes, and only then the GET fills the cache.

    Returns the version of the transfer and the one that the next GET shows.
    """
    ada, bob = await api.wallet(100), await api.wallet()
    has_read, may_fill = asyncio.Event(), asyncio.Event()

    async def late(self: Wallets, snapshot: Snapshot, reservation: str) -> None:
        has_read.set()
        await may_fill.wait()
        await fill(self, snapshot, reservation)

    monkeypatch.setattr(Wallets, "fill", late)
    await redis.delete(keyspace.of_wallet(ada))
    reading = asyncio.create_task(api.get(f"/wallets/{ada}"))
    await has_read.wait()
    written: int = (await api.transfer(ada, bob, 1)).json["source_version"]
    if flushes:
        await redis.flushdb()
    may_fill.set()
    assert (await reading).json["version"] == written - 1
    return written, await version_of(api, ada)


@pytest.mark.parametrize("flushes", [False, True])
async def test_a_late_fill_does_not_show_the_past(
    flushes: bool, api: Api, redis: Any, keyspace: Keyspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, seen = await _read_that_fills_late(
        api, redis, keyspace, monkeypatch, Wallets.fill, flushes=flushes
    )
    assert seen == written


async def test_without_the_guard_a_late_fill_shows_the_past(
    api: Api, redis: Any, keyspace: Keyspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def plain_set(_: Wallets, snapshot: Snapshot, __: str) -> None:
        value = b"%d %s" % (snapshot.version, snapshot.body)
        await redis.set(keyspace.of_wallet(snapshot.wallet_id), value, ex=15)

    written, seen = await _read_that_fills_late(api, redis, keyspace, monkeypatch, plain_set)
    assert seen < written


async def test_snapshots_of_two_groups_may_come_in_either_order(
    replicas: Replicas, redis: Any, keyspace: Keyspace
) -> None:
    api = await replicas.start()
    ada, bob = await api.wallet(100), await api.wallet()
    old = await redis.get(keyspace.of_wallet(ada))
    version, _, body = old.partition(b" ")
    await api.transfer(ada, bob, 1)
    new = await redis.get(keyspace.of_wallet(ada))
    assert new != old
    wallets = replicas.opened[0].context.ledger.wallets
    await wallets.refresh([Snapshot(ada, int(version), body)], [], [])
    assert await redis.get(keyspace.of_wallet(ada)) == new
    # Versions are compared as numbers: 10 is newer than 9.
    for n in (9, 10, 9, 11, 2):
        await wallets.fill(Snapshot(bob, n, b"{}"), "an unknown reservation")
    assert (await redis.get(keyspace.of_wallet(bob))).startswith(b"11 ")


async def test_min_version_is_right_with_any_content_of_the_cache(
    api: Api, redis: Any, keyspace: Keyspace
) -> None:
    ada, bob = await api.wallet(100), await api.wallet()
    old = await redis.get(keyspace.of_wallet(ada))
    written = (await api.transfer(ada, bob, 1)).json["source_version"]
    # As after a refresh that failed.
    await redis.set(keyspace.of_wallet(ada), old, ex=15)
    assert await version_of(api, ada) == written - 1
    reply = await api.get(f"/wallets/{ada}?min_version={written}")
    assert (reply.status, reply.json["version"]) == (200, written)
    assert reply.headers["X-Cache"] == "miss"
    # That read has repaired the cache.
    assert await version_of(api, ada) == written
    early = await api.get(f"/wallets/{ada}?min_version={written + 1}")
    assert (early.code, early.json["version"]) == ("version-not-reached", written)


async def test_invalid_content_of_the_cache_is_ignored(
    api: Api, redis: Any, keyspace: Keyspace
) -> None:
    for rubbish in (b"", b"rubbish", b"1", b"-1 {}", b"\xff\xfe {}", b"r", b"r2011"):
        ada, bob = await api.wallet(100), await api.wallet()
        await redis.set(keyspace.of_wallet(ada), rubbish)
        assert await asyncio.wait_for(api.balance(ada), patient_s(2)) == 100
        await redis.set(keyspace.of_key((1, ada)), rubbish)
        reply = await api.transfer(ada, bob, 1, key=ada)
        assert reply.status == 201, rubbish
        again = await api.transfer(ada, bob, 1, key=ada)
        assert again.body == reply.body
        assert await api.balance(ada) == 99


OTHERS = (
    MAIN._replace(cache_generation=1),
    *(Ledger(1, "shop", "ledger_01", generation) for generation in (0, 1)),
    Ledger(11, "bank", "ledger_11"),
)


async def test_a_ledger_does_not_read_what_another_has_cached(
    database: Database, redis: Any
) -> None:
    limits = Limits()
    async with Link(database.settings().required("redis_url"), limits, Facts()) as link:
        for writer in (MAIN, *OTHERS):
            await redis.flushdb()
            await Wallets(link, limits, Keyspace(writer)).refresh(
                [Snapshot("ada", 7, b"{}")], [((1, "rent"), Replay(201, bytes(16), b"{}"))], []
            )
            assert await Replays(link, limits, Keyspace(writer), "a").claim([(1, "other")]) == [
                Claim.OURS
            ]
            for reader in (MAIN, *OTHERS):
                wallets, replays = (
                    Wallets(link, limits, Keyspace(reader)),
                    Replays(link, limits, Keyspace(reader), "b"),
                )
                seen = (
                    await wallets.get("ada"),
                    await replays.look_up((1, "rent")),
                    await replays.look_up((1, "other")),
                )
                if reader == writer:
                    assert seen[0] == Snapshot("ada", 7, b"{}")
                    assert isinstance(seen[1], Replay)
                    assert seen[2] is Claim.BUSY
                else:
                    assert seen == (None, None, None)


async def test_a_reader_of_another_ledger_does_not_fill_or_reserve(
    database: Database, redis: Any
) -> None:
    limits = Limits()
    async with Link(database.settings().required("redis_url"), limits, Facts()) as link:
        for ledger in OTHERS:
            wallets = Wallets(link, limits, Keyspace(ledger))
            await wallets.fill(Snapshot("ada", 8, b"{}"), await wallets.reserve("ada"))
            assert await wallets.get("ada") == Snapshot("ada", 8, b"{}")
        assert await Wallets(link, limits, Keyspace(MAIN)).get("ada") is None
    assert await redis.get("td:w:ada") is None


@pytest.mark.needs_configuration("main", why="the keys of main have names of their own")
async def test_a_raised_generation_forgets_the_cache(
    replicas: Replicas, database: Database, redis: Any
) -> None:
    api = ApiWithKey(
        await replicas.start(Limits(api_key_cache_s=0.0), auth="on"),
        await api_key(database, "till", "admin"),
    )
    ada, bob = await api.wallet(100), await api.wallet()
    old = await redis.get(f"td:w:{ada}")
    await redis.set(f"td:w:{ada}", old.replace(b'"balance":100', b'"balance":900'))
    assert await api.balance(ada) == 900
    await database.fetch("UPDATE transferd.ledgers SET cache_generation = 1")
    assert await api.balance(ada) == 100
    # Commits use the new names as well.
    written = (await api.transfer(ada, bob, 1, key="rent")).json["source_version"]
    hit = await api.get(f"/wallets/{ada}")
    assert (hit.headers["X-Cache"], hit.json["version"]) == ("hit", written)
    assert await redis.exists(f"td:0.1:w:{ada}", "td:0.1:k:2:rent") == 2
    assert await redis.exists("td:k:2:rent") == 0


async def test_a_wrong_balance_in_the_cache_misleads_readers_but_never_money(
    api: Api, redis: Any, keyspace: Keyspace
) -> None:
    ada, bob = await api.wallet(100), await api.wallet()
    snapshot = await redis.get(keyspace.of_wallet(ada))
    await redis.set(keyspace.of_wallet(ada), snapshot.replace(b'"balance":100', b'"balance":900'))
    assert await api.balance(ada) == 900
    assert (await api.transfer(ada, bob, 101)).code == "insufficient-funds"
    assert (await api.transfer(ada, bob, 100)).json["source_balance_after"] == 0
    assert await api.balance(ada) == 0
