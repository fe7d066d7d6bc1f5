"""Idempotency keys of webhooks, whose changes are not part of the group commit."""

import asyncio
from typing import Any

import pytest

from tests.acceptance.test_idempotency_contract import Ask, assert_is_replay
from tests.conftest import Database, Replicas
from tests.support.api import Api
from tests.support.contract import ApiWithKey, api_key, transfer_body
from tests.support.deliveries import logged_delivery
from tests.support.pressure import crowd, held, held_rows, statuses, until_sessions_wait
from tests.support.store import open_main
from tests.support.truth import row_count
from transferd.config import Limits
from transferd.ledger.audit import audit

_HOOK = {"url": "https://example.com/", "events": ["transfer.*", "user.*"]}


async def asks(api: Api, database: Database) -> dict[str, Ask]:
    """A request of each kind, by its key."""
    hook = (await api.post("/webhooks", _HOOK)).json["id"]
    sent = await logged_delivery(database, hook)
    return {
        "create": Ask("/webhooks", _HOOK, 201),
        "rotate": Ask(f"/webhooks/{hook}/rotate", None, 200),
        "redeliver": Ask(f"/webhooks/{hook}/deliveries/{sent}/redeliver", None, 202),
    }


async def traces(database: Database) -> dict[str, Any]:
    """Counts and checksums of everything that such a request may change."""
    [row] = await database.fetch(
        "SELECT (SELECT md5(string_agg(w::text, ';' ORDER BY id)) FROM ledger_00.webhooks w),"
        " (SELECT md5(string_agg(d::text, ';' ORDER BY id)) FROM ledger_00.deliveries d) AS log,"
        " (SELECT count(*) FROM ledger_00.outbox) AS events,"
        " (SELECT count(*) FROM ledger_00.outcomes) AS outcomes,"
        " (SELECT version FROM ledger_00.webhooks_version)"
    )
    return dict(row)


async def test_a_repeated_request_gets_the_same_bytes_and_changes_nothing(
    replicas: Replicas, database: Database
) -> None:
    api, other = await replicas.start(), await replicas.start(cache=False)
    sent = await asks(api, database)
    first = {key: await api.post(ask.path, ask.body, key=key) for key, ask in sent.items()}
    assert {key: reply.status for key, reply in first.items()} == {
        key: ask.status for key, ask in sent.items()
    }
    assert not any("Idempotent-Replayed" in reply.headers for reply in first.values())
    before = await traces(database)
    for key, ask in sent.items():
        for replica in (api, other):
            assert_is_replay(await replica.post(ask.path, ask.body, key=f'"{key}"'), first[key])
        known = (await other.get(f"/idempotency-keys/{key}")).json
        answer = {name: value for name, value in first[key].json.items() if name != "secret"}
        assert known == {"state": "succeeded", "status": ask.status, "answer": answer}
    assert await traces(database) == before
    # Without a key the request is executed again.
    for ask in sent.values():
        assert (await api.post(ask.path, ask.body)).status == ask.status
    assert (await traces(database))["version"] == before["version"] + 2
    assert await row_count(database, "ledger_00.outbox") == before["events"] + 1
    # Every outcome of a key can be replayed.
    async with open_main(database.settings()) as store:
        assert await audit(store, lambda step, done, total: None) == []


async def test_a_key_for_another_request_is_refused_and_keeps_its_outcome(
    api: Api, database: Database
) -> None:
    ada, bob = await api.wallet(100), await api.wallet()
    sent = await asks(api, database)
    first = {key: await api.post(ask.path, ask.body, key=key) for key, ask in sent.items()}
    paid = await api.transfer(ada, bob, 5, key="rent")
    before = await traces(database)
    others: list[tuple[str, Any]] = [
        ("/webhooks", _HOOK | {"url": "https://example.com/?"}),
        ("/webhooks", _HOOK | {"events": _HOOK["events"][::-1]}),
        ("/webhooks", _HOOK | {"wallet_id": ada}),
        (f"/webhooks/{first['create'].json['id']}/rotate", None),
        ("/transfers", transfer_body(ada, bob, 5)),
        ("/users", {}),
    ]
    for key in sent:
        mine = [(ask.path, ask.body) for each, ask in sent.items() if each != key]
        for path, body in [*others, *mine]:
            refused = await api.post(path, body, key=key)
            assert (refused.status, refused.code) == (422, "idempotency-key-reused"), (key, path)
            assert "Idempotent-Replayed" not in refused.headers
    # A key of a transfer cannot be used for a webhook.
    for ask in sent.values():
        assert (await api.post(ask.path, ask.body, key="rent")).code == "idempotency-key-reused"
    assert await traces(database) == before
    for key, ask in sent.items():
        assert_is_replay(await api.post(ask.path, ask.body, key=key), first[key])
    assert_is_replay(await api.transfer(ada, bob, 5, key="rent"), paid)


async def test_keys_belong_to_the_client(locked: Api, database: Database) -> None:
    alice = ApiWithKey(locked, await api_key(database, "alice", "webhooks:admin"))
    carol = ApiWithKey(locked, await api_key(database, "carol", "webhooks:admin"))
    second = ApiWithKey(locked, await api_key(database, "two", "webhooks:admin", client="alice"))
    hers = await alice.post("/webhooks", _HOOK, key="hook")
    other = await carol.post("/webhooks", _HOOK, key="hook")
    assert other.json["id"] != hers.json["id"]
    assert_is_replay(await second.post("/webhooks", _HOOK, key="hook"), hers)
    assert_is_replay(await carol.post("/webhooks", _HOOK, key="hook"), other)
    assert await row_count(database, "ledger_00.webhooks") == 2


@pytest.mark.parametrize("level", ["read committed", "serializable"])
async def test_of_concurrent_creations_one_succeeds_and_all_get_its_answer(
    level: str, replicas: Replicas, database: Database
) -> None:
    await database.isolate(level)
    apis = [await replicas.start() for _ in range(2)]
    sent = await asks(apis[0], database)
    before = await traces(database)
    for key, ask in sent.items():
        replies = await crowd(apis[n % 2].post(ask.path, ask.body, key=key) for n in range(12))
        assert statuses(replies) == {ask.status: 12}
        assert len({reply.body for reply in replies}) == 1
        assert sum("Idempotent-Replayed" not in reply.headers for reply in replies) == 1
    after = await traces(database)
    # Two changes of webhooks, one event.
    for name, more in (("version", 2), ("events", 1), ("outcomes", 3)):
        assert after[name] == before[name] + more
    assert await row_count(database, "ledger_00.webhooks") == 2


async def test_a_request_that_waits_too_long_for_its_key_is_in_progress(
    replicas: Replicas, database: Database
) -> None:
    # A lock wait ends soon, and the deadline allows several of them.
    await database.fetch(
        f"ALTER ROLE transferd IN DATABASE {database.name} SET lock_timeout = '50ms'"
    )
    short = Limits(
        request_deadline_s=1.2,
        mailbox_wait_s=0.6,
        command_timeout_s=0.5,
        statement_timeout_s=0.4,
        idle_in_transaction_timeout_s=0.3,
        lock_timeout_s=0.2,
        relay_publish_timeout_s=0.1,
    )
    api = await replicas.start(short)
    async with held(database, "SELECT version FROM ledger_00.webhooks_version FOR UPDATE"):
        waiting = await api.post("/webhooks", _HOOK, key="hook")
        assert (waiting.status, waiting.code) == (409, "request-in-progress")
        assert waiting.headers["Retry-After"] == "1"
        other = await api.post("/webhooks", _HOOK)
        assert (other.status, other.code) == (503, "overloaded")
    assert await row_count(database, "ledger_00.webhooks") == 0
    # Repeated while a busy machine misses the short deadline.
    while (made := await api.post("/webhooks", _HOOK, key="hook")).status == 503:
        assert made.code == "overloaded"
    assert (made.status, "Idempotent-Replayed" in made.headers) == (201, False)


async def test_a_request_with_the_key_of_a_running_transfer_waits_for_its_outcome(
    api: Api, database: Database
) -> None:
    ada, bob = await api.wallet(100), await api.wallet()
    async with held_rows(database, ada):
        paying = asyncio.create_task(api.transfer(ada, bob, 5, key="rent"))
        await until_sessions_wait(database, 1)
        # The transfer has not written its outcome yet, so this is the first.
        made = await api.post("/webhooks", _HOOK, key="rent")
        assert made.status == 201
    assert (await paying).code == "idempotency-key-reused"
    assert await api.balance(ada) == 100
