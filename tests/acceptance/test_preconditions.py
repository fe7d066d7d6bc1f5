"""Conditions: If-Match refuses a change of a wallet that has another version."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from multidict import CIMultiDict
from redis.asyncio import Redis

from tests.conftest import Database, Replicas
from tests.support.api import Api, Reply
from tests.support.contract import UNKNOWN_ID, footprint
from tests.support.pressure import arrived, held_rows, until_sessions_wait
from tests.support.waiting import until
from transferd.cache.keyspace import Keyspace
from transferd.commit import transaction

# Changes of a wallet: method, end of the path, body.
_CHANGES: list[tuple[str, str, object]] = [
    ("PATCH", "", {"metadata": {"kyc": "passed"}}),
    ("PATCH", "", {"overdraft_limit": 5}),
    ("POST", "/freeze", None),
    ("POST", "/unfreeze", None),
    ("POST", "/close", None),
]


async def tag_of(api: Api, wallet: str) -> str:
    """The ETag that the wallet has now."""
    return (await api.get(f"/wallets/{wallet}")).headers["ETag"]


async def changed(
    api: Api, wallet: str, change: tuple[str, str, object], if_match: str, key: str | None = None
) -> Reply:
    """The change under a condition."""
    method, end, body = change
    path = f"/wallets/{wallet}{end}"
    return await api.call(method, path, body, key=key, headers={"If-Match": if_match})


def assert_changed(reply: Reply, version: int) -> None:
    """412 `version-changed`, with the version and the tag that the wallet has."""
    assert (reply.status, reply.code) == (412, "version-changed"), reply
    assert (reply.json["version"], reply.json["etag"]) == (version, f'"w{version}"')


async def test_a_change_is_made_only_at_the_version_that_was_seen(
    api: Api, database: Database, subtests: pytest.Subtests
) -> None:
    for change in _CHANGES:
        with subtests.test(change=change):
            ada = await api.wallet()
            seen = await tag_of(api, ada)
            await api.patch(f"/wallets/{ada}", {"metadata": {"tier": "gold"}})
            before = await footprint(database)
            assert_changed(await changed(api, ada, change, seen), 1)
            assert await footprint(database) == before
            done = await changed(api, ada, change, await tag_of(api, ada))
            assert done.status == 200
            # Each kind of change takes a version, which the next condition names.
            assert await tag_of(api, ada) == f'"w{done.json["version"]}"'


async def test_money_that_comes_or_goes_changes_the_version(api: Api) -> None:
    ada, bob = await api.wallet(100), await api.wallet()
    seen = [await tag_of(api, wallet) for wallet in (ada, bob)]
    await api.transfer(ada, bob, 5)
    for wallet, tag, version in zip((ada, bob), seen, (2, 1), strict=True):
        assert_changed(await changed(api, wallet, _CHANGES[0], tag), version)


async def test_a_repetition_without_a_key_finds_the_version_that_it_has_made(
    api: Api, subtests: pytest.Subtests
) -> None:
    for change in _CHANGES:
        with subtests.test(change=change):
            ada = await api.wallet()
            if change[1] == "/unfreeze":
                await api.post(f"/wallets/{ada}/freeze")
            seen = await tag_of(api, ada)
            done = await changed(api, ada, change, seen)
            assert_changed(await changed(api, ada, change, seen), done.json["version"])


# If-Match of a wallet at version 1, and the status of the answer.
_CONDITIONS = [
    *((value, 200) for value in ("*", '"w1"', ' \t"w1" ', '"w0", "w1"', '"w0","w1","w2"')),
    *((value, 200) for value in (', ,"w1",,', '"x,y", "", "w01", "\u00fc", "w1"')),
    *((value, 200) for value in ('W/"w1", "w1"',)),
    *((value, 412) for value in ('"w0"', '"w2"', 'W/"w1"', '"abc"', '"w01"', '"a,w1"', '"W1"')),
    *((value, 412) for value in ('""', f'"w{"9" * 400}"', '"w\u0661"')),
    *((value, 400) for value in ("", "w1", '"w1', '"w1"w2"', '"w1" "w1"', '*, "w1"', "*, *")),
    *((value, 400) for value in ('w/"w1"', '"w 1"', '"w1";q=1', ",,")),
]


async def test_if_match_is_any_version_or_a_list_of_strong_tags(
    api: Api, database: Database, subtests: pytest.Subtests
) -> None:
    ada = await api.wallet(1)
    before = await footprint(database)
    for value, status in _CONDITIONS:
        with subtests.test(value):
            # The wallet is active, so this changes nothing.
            reply = await changed(api, ada, ("POST", "/unfreeze", None), value)
            assert reply.status == status
            if status == 412:
                assert_changed(reply, 1)
            if status == 400:
                assert reply.code == "malformed-request"
    for change in _CHANGES:
        assert (await changed(api, ada, change, "w1")).code == "malformed-request"
    assert await footprint(database) == before


async def test_several_lines_are_one_list_or_refused(api: Api, subtests: pytest.Subtests) -> None:
    ada = await api.wallet(1)
    for method, path, name, lines, status in (
        ("POST", "/unfreeze", "If-Match", ['"w7"', '"w1"'], 200),
        ("POST", "/unfreeze", "If-Match", ['"w7"', '"w8"'], 412),
        ("POST", "/unfreeze", "If-Match", ["*", "*"], 400),
        ("POST", "/unfreeze", "If-Match", ["*", '"w2"'], 400),
        ("GET", "", "If-None-Match", ['"w7"', 'W/"w1"'], 304),
        ("GET", "", "If-None-Match", ['"w7"', '"w8"'], 200),
        ("HEAD", "", "If-None-Match", ["*"], 304),
        # These are no lists.
        ("POST", "/unfreeze", "Idempotency-Key", ["rent", "rent"], 400),
        ("GET", "/events", "Last-Event-ID", ["0", "0"], 400),
        ("GET", "", "Authorization", ["Bearer x", "Bearer x"], 400),
    ):
        with subtests.test(name, lines=lines):
            headers = CIMultiDict((name, line) for line in lines)
            url = f"{api.url}/wallets/{ada}{path}"
            async with api.session.request(method, url, headers=headers) as response:
                assert response.status == status


async def test_checks_that_precede_the_version_are_answered_first(
    api: Api, database: Database
) -> None:
    funding = await api.funding_wallet()
    for change in _CHANGES:
        assert (await changed(api, UNKNOWN_ID, change, '"w9"')).code == "wallet-not-found"
        assert (await changed(api, UNKNOWN_ID, change, "*")).code == "wallet-not-found"
    for change in _CHANGES[1:]:
        assert (await changed(api, funding, change, '"w99"')).code == "forbidden"


async def test_the_version_is_checked_before_the_status_and_the_balance(api: Api) -> None:
    closed, full = await api.wallet(), await api.wallet(100)
    assert (await api.post(f"/wallets/{closed}/close")).status == 200
    for change in _CHANGES:
        assert_changed(await changed(api, closed, change, '"w0"'), 1)
    assert (await changed(api, closed, _CHANGES[2], '"w1"')).code == "wallet-closed"
    assert_changed(await changed(api, full, _CHANGES[4], '"w0"'), 1)
    assert (await changed(api, full, _CHANGES[4], '"w1"')).code == "wallet-not-empty"


# With a key

_FREEZE = _CHANGES[2]


async def test_a_replay_comes_before_the_condition(api: Api) -> None:
    ada = await api.wallet()
    done = await changed(api, ada, _FREEZE, '"w0"', key="stop")
    await api.post(f"/wallets/{ada}/unfreeze")
    # The condition is not part of the fingerprint of the key.
    for value in ('"w0"', '"w77"', "*", 'W/"w0"'):
        again = await changed(api, ada, _FREEZE, value, key="stop")
        assert (again.status, again.body) == (200, done.body)
        assert again.headers["Idempotent-Replayed"] == "true"
    plain = await api.post(f"/wallets/{ada}/freeze", key="stop")
    assert (plain.body, plain.headers["Idempotent-Replayed"]) == (done.body, "true")
    assert (await api.get(f"/wallets/{ada}")).json["version"] == 2


async def test_a_version_that_has_changed_leaves_the_key_free(
    replicas: Replicas, database: Database
) -> None:
    apis = [await replicas.start(), await replicas.start()]
    ada = await apis[0].wallet()
    before = await footprint(database)
    for n in range(4):
        refused = await changed(apis[n % 2], ada, _FREEZE, '"w7"', key="stop")
        assert_changed(refused, 0)
        assert "Idempotent-Replayed" not in refused.headers
        assert (await apis[n % 2].get("/idempotency-keys/stop")).status == 404
    assert await footprint(database) == before
    # Also for another request.
    done = await apis[1].post(f"/wallets/{ada}/close", key="stop")
    assert (done.status, done.json["status"]) == (200, "closed")
    assert "Idempotent-Replayed" not in done.headers


@pytest.mark.needs_configuration("cache", why="claims are in Redis")
async def test_a_version_that_has_changed_leaves_no_claim_behind(
    api: Api, database: Database, keyspace: Keyspace
) -> None:

    ada = await api.wallet()
    assert_changed(await changed(api, ada, _FREEZE, '"w7"', key="stop"), 0)
    redis: Any = Redis.from_url(database.settings().required("redis_url"))
    assert await redis.get(keyspace.of_key((1, "stop"))) is None
    await redis.aclose()


async def test_a_concurrent_repetition_is_not_refused_by_its_condition(
    replicas: Replicas, database: Database
) -> None:
    api = await replicas.start()
    ada = await api.wallet()
    async with held_rows(database, ada):
        stale = asyncio.create_task(changed(api, ada, _FREEZE, '"w7"', key="stop"))
        await arrived(replicas, 1)
        plain = asyncio.create_task(api.post(f"/wallets/{ada}/freeze", key="stop"))
        first = replicas.opened[0].context.ledger.router._by_key[1, "stop"]
        await until(lambda: len(first.waiters) == 2)
    assert_changed(await stale, 0)
    done = await plain
    assert (done.status, done.json["status"], done.json["version"]) == (200, "frozen", 1)


# Concurrent changes


async def test_of_concurrent_changes_at_one_version_one_succeeds(replicas: Replicas) -> None:
    apis = [await replicas.start(), await replicas.start()]
    ada = await apis[0].wallet()
    for version in range(5):
        tag = f'"w{version}"'
        replies = await asyncio.gather(
            *(
                changed(apis[n % 2], ada, ("PATCH", "", {"metadata": {"n": n, "v": version}}), tag)
                for n in range(10)
            )
        )
        assert Counter(reply.status for reply in replies) == {200: 1, 412: 9}
        for reply in replies:
            if reply.status == 412:
                assert_changed(reply, version + 1)
        [winner] = [reply for reply in replies if reply.status == 200]
        shown: Mapping[str, Any] = (await apis[0].get(f"/wallets/{ada}")).json
        assert shown["metadata"] == winner.json["metadata"]


_SEEN_ELSEWHERE = pytest.mark.needs_configuration(
    "read committed", why="a stricter isolation runs the second of them again by itself"
)


@pytest.mark.parametrize("protected", [True, pytest.param(False, marks=_SEEN_ELSEWHERE)])
async def test_the_same_request_at_two_replicas_is_replayed_and_not_refused(
    protected: bool, replicas: Replicas, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def look_not_again(*_: object) -> None:
        return None

    if not protected:
        monkeypatch.setattr(transaction, "assert_no_outcome", look_not_again)
    apis = [await replicas.start(cache=False), await replicas.start(cache=False)]
    ada = await apis[0].wallet()
    # Both have looked for the key's outcome when one of them commits.
    async with held_rows(database, ada):
        calls = [changed(api, ada, _FREEZE, '"w0"', key="stop") for api in apis]
        running = [asyncio.create_task(call) for call in calls]
        for number in range(2):
            await arrived(replicas, 1, replica=number)
        await until_sessions_wait(database, 2)
    replies = [await task for task in running]
    if protected:
        assert [reply.status for reply in replies] == [200, 200]
        assert len({reply.body for reply in replies}) == 1
        assert sum("Idempotent-Replayed" in reply.headers for reply in replies) == 1
    else:
        assert sorted(reply.status for reply in replies) == [200, 412]
