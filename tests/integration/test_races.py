"""Concurrent requests to one replica and to two: money is never spent twice and never lost."""

from collections.abc import Callable, Sequence
from itertools import cycle

import asyncpg
import pytest

from tests.conftest import Database, Replicas
from tests.support.api import Api, Reply
from tests.support.pressure import crowd, statuses
from tests.support.truth import faults_in
from transferd.config import Limits
from transferd.ledger.store import database as store
from transferd.ledger.store.queries import query, templates

# Small groups are frequent, and so conflict often.
_SMALL_GROUPS = Limits(group_envelopes_max=4, turn_envelopes_max=4)


@pytest.mark.parametrize("replica_count", [1, 2])
async def test_a_wallet_with_money_for_100_pays_exactly_100_of_200(
    replica_count: int, replicas: Replicas, database: Database
) -> None:
    apis = [await replicas.start() for _ in range(replica_count)]
    rich = await apis[0].wallet(100)
    poor = await apis[0].wallet()
    replies = await crowd(
        api.transfer(rich, poor, 1) for api, _ in zip(cycle(apis), range(200), strict=False)
    )
    assert statuses(replies) == {201: 100, 422: 100}
    refused = [reply for reply in replies if reply.status == 422]
    assert {reply.code for reply in refused} == {"insufficient-funds"}
    assert {reply.json["available"] for reply in refused} == {0}
    posted = [reply.json for reply in replies if reply.status == 201]
    assert sorted(body["source_balance_after"] for body in posted) == list(range(100))
    assert len({body["source_version"] for body in posted}) == 100
    for api in apis:
        assert (await api.balance(rich), await api.balance(poor)) == (0, 100)
    assert await faults_in(database) == []


async def test_opposite_transfers_over_two_replicas_never_deadlock(
    replicas: Replicas, database: Database
) -> None:
    first, second = await replicas.start(_SMALL_GROUPS), await replicas.start(_SMALL_GROUPS)
    ada, bob = await first.wallet(1_000), await first.wallet(1_000)
    there = [first.transfer(ada, bob, 2) for _ in range(400)]
    back = [second.transfer(bob, ada, 1) for _ in range(400)]
    mixed = [call for pair in zip(there, back, strict=True) for call in pair]
    assert statuses(await crowd(mixed)) == {201: 800}
    assert (await first.balance(ada), await second.balance(bob)) == (600, 1_400)
    assert await faults_in(database) == []


async def test_a_ring_of_wallets_paid_from_everywhere_adds_up(
    replicas: Replicas, database: Database
) -> None:
    apis = [await replicas.start(), await replicas.start()]
    ring = [await apis[0].wallet(50) for _ in range(6)]
    calls = [
        api.transfer(ring[n % 6], ring[(n * step + 1) % 6], 1 + n % 7)
        for n, (api, step) in enumerate(
            (api, step) for api in apis for step in (1, 5, 3) for _ in range(60)
        )
    ]
    replies = await crowd(calls)
    assert set(statuses(replies)) == {201, 422}
    codes = {reply.code for reply in replies if reply.status == 422}
    assert codes <= {"insufficient-funds", "same-wallet"}
    balances = [await apis[1].balance(wallet) for wallet in ring]
    assert sum(balances) == 300
    assert min(balances) >= 0
    assert await faults_in(database) == []


async def test_of_two_whole_reversals_at_once_one_wins(
    replicas: Replicas, database: Database
) -> None:
    apis = [await replicas.start(), await replicas.start()]
    ada, bob = await apis[0].wallet(100), await apis[0].wallet(1_000)
    for _ in range(5):
        original = (await apis[0].transfer(ada, bob, 100)).json["id"]
        path = f"/transfers/{original}/reversal"
        replies = await crowd(
            api.post(path, key=f"{original}-{n}") for n in range(4) for api in apis
        )
        # The replicas share the keys: each pair is one request, and one of the four pairs wins.
        assert statuses(replies) == {201: 2, 409: 6}
        assert {r.code for r in replies if r.status == 409} == {"reversal-exceeds-transfer"}
        assert (await apis[1].balance(ada), await apis[1].balance(bob)) == (100, 1_000)
    assert await faults_in(database) == []


async def test_a_freeze_among_transfers_cuts_them_off_at_one_version(
    replicas: Replicas, database: Database
) -> None:
    first, second = await replicas.start(), await replicas.start()
    ada, bob = await first.wallet(1_000), await first.wallet()
    calls = [api.transfer(ada, bob, 1) for _ in range(60) for api in (first, second)]
    calls.insert(40, second.post(f"/wallets/{ada}/freeze"))
    replies = await crowd(calls)
    frozen = replies.pop(40)
    assert frozen.json["status"] == "frozen"
    version = frozen.json["version"]
    posted = [reply.json["source_version"] for reply in replies if reply.status == 201]
    assert all(each < version for each in posted)
    assert {r.code for r in replies if r.status != 201} <= {"wallet-frozen"}
    assert await faults_in(database) == []


# The protections between two replicas that change the same wallet. Each is removed by a change
# of the query texts, or of the tables, that a careless refactoring could make.
_PARTS = {"lock": "FOR NO KEY UPDATE", "version": "AND w.version = c.version_read"}


def _without(*parts: str) -> Callable[..., str]:
    for part in parts:
        hits = [name for name, text in templates("queries.sql").items() if _PARTS[part] in text]
        assert hits, f"no query has {_PARTS[part]}"

    def changed(schema: str, name: str, *file: str) -> str:
        text = query(schema, name, *file)
        for part in parts:
            if _PARTS[part] in text:
                # A row that is not locked cannot be skipped either.
                text = text.replace(_PARTS[part], "").replace("SKIP LOCKED", "")
        return text

    return changed


async def _race_to_empty(apis: Sequence[Api]) -> list[Reply]:
    ada, bob = await apis[0].wallet(40), await apis[0].wallet()
    return await crowd(api.transfer(ada, bob, 1) for _ in range(40) for api in apis)


@pytest.mark.needs_configuration(
    "read committed", why="PostgreSQL refuses what has been seen by two, with or without our locks"
)
async def test_without_locks_and_versions_money_is_spent_twice(
    replicas: Replicas, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for side in ("source", "destination"):
        await database.fetch(
            "ALTER TABLE ledger_00.transfers DROP CONSTRAINT"
            f" transfers_{side}_wallet_id_{side}_version_key"
        )
    monkeypatch.setattr(store, "query", _without("lock", "version"))
    apis = [await replicas.start(_SMALL_GROUPS), await replicas.start(_SMALL_GROUPS)]
    # In a single race the groups of the two replicas may happen to take turns.
    posted: list[int] = []
    while max(posted, default=0) <= 40 and len(posted) < 20:
        posted.append(statuses(await _race_to_empty(apis))[201])
    assert posted[-1] > 40, posted
    assert await faults_in(database) != []


@pytest.mark.parametrize("missing", [("lock",), ("version",), ("lock", "version"), ()])
async def test_any_one_of_lock_version_and_unique_key_keeps_the_books(
    missing: tuple[str, ...],
    replicas: Replicas,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(store, "query", _without(*missing))
    apis = [await replicas.start(_SMALL_GROUPS), await replicas.start(_SMALL_GROUPS)]
    replies = await _race_to_empty(apis)
    assert statuses(replies)[201] <= 40
    assert await faults_in(database) == []
    if "lock" not in missing:
        # With the lock every transfer succeeds; the other protections can only refuse.
        assert statuses(replies) == {201: 40, 422: 40}


async def test_the_tables_refuse_a_balance_below_the_limit(api: Api, database: Database) -> None:
    ada = await api.wallet(100)
    with pytest.raises(asyncpg.CheckViolationError):
        await database.fetch("UPDATE ledger_00.wallets SET balance = -1 WHERE id = $1", ada)
