"""Requests with equal values are the same request in every spelling, also in an earlier version."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from redis.asyncio import Redis

from tests.conftest import Database, Replicas
from tests.support.api import Api, Reply
from tests.support.contract import exactly, footprint, transfer_body
from transferd.actors.router import Router
from transferd.commit.answer import Answer
from transferd.commit.envelope import Envelope
from transferd.domain.key import Fingerprint

# Metadata that is not canonical, and its canonical form.
SENT = {"po": "7", "invoice": "4711", "n": 1.0}
CANONICAL = {"invoice": "4711", "n": 1, "po": "7"}


async def requests(api: Api, metadata: dict[str, Any]) -> dict[str, tuple[str, dict[str, Any]]]:
    """A request to each operation that takes metadata, by the key that it is sent with."""
    user = await api.user()
    ada, bob = await api.wallet(1_000), await api.wallet()
    paid = (await api.transfer(ada, bob, 50)).json["id"]
    transfer = transfer_body(ada, bob, 5, reference="rent", metadata=metadata)
    wallet = {"user_id": user, "currency": "USD", "metadata": metadata}
    return {
        "transfer": ("/transfers", transfer),
        "refused": ("/transfers", transfer | {"amount": 10_000}),
        "batch": ("/transfers/batch", {"mode": "atomic", "transfers": [transfer, transfer]}),
        "reversal": (f"/transfers/{paid}/reversal", {"amount": 5, "metadata": metadata}),
        "wallet": ("/wallets", wallet),
        "full wallet": ("/wallets", wallet | {"initial_balance": 5}),
        "user": ("/users", {"name": "Eve", "metadata": metadata}),
    }


def other_order(value: Any) -> Any:
    """The same value with the members of all its objects in the reverse order."""
    match value:
        case dict():
            return {name: other_order(value[name]) for name in reversed(value)}
        case list():
            return [other_order(item) for item in value]
        case _:
            return value


def canonical(body: dict[str, Any]) -> Any:
    """The body with its metadata in the canonical form."""
    return json.loads(json.dumps(body).replace(json.dumps(SENT), json.dumps(CANONICAL)))


def assert_replays(first: Reply, *others: Reply) -> None:
    """Each has the bytes of the first, and is marked as a replay."""
    for other in others:
        assert (other.status, other.body) == (first.status, first.body)
        assert other.headers["Idempotent-Replayed"] == "true"


async def forget_replays(database: Database) -> None:
    """Redis loses everything."""
    redis: Any = Redis.from_url(database.settings().required("redis_url"))
    await redis.flushdb()
    await redis.aclose()


async def test_the_order_of_members_does_not_make_another_request(
    replicas: Replicas, database: Database
) -> None:
    api, bare = await replicas.start(), await replicas.start(cache=False)
    sent = await requests(api, SENT)
    for key, (path, body) in sent.items():
        first = await api.post(path, body, key=key)
        before = await footprint(database)
        for same in (other_order(body), canonical(body), body):
            assert_replays(
                first, await api.post(path, same, key=key), await bare.post(path, same, key=key)
            )
        assert await footprint(database) == before
        if first.status == 201:
            # Only the fingerprint is canonical.
            assert list(first.json["metadata"]) == list(SENT)
            assert b'"n":1.0' in first.body


async def test_another_spelling_of_equal_values_is_the_same_request(
    api: Api, database: Database
) -> None:
    ada, bob = await api.wallet(1_000), await api.wallet()
    body = transfer_body(ada, bob, 5, reference="rent/ä", metadata={"a": 100, "b": 0.5, "c": "ä"})
    first = await api.post("/transfers", body, key="rent")
    before = await footprint(database)
    raw = json.dumps(body, ensure_ascii=False)
    for old, new in (
        (": ", "\t:\r\n  "),
        (ada, ada.upper()),
        ('"rent/ä"', '"\\u0072ent\\/\\u00E4"'),
        ('"amount"', '"\\u0061mount"'),
        ('"c": "ä"', '"\\u0063": "\\u00e4"'),
        ('"a": 100', '"a": 100.0'),
        ('"a": 100', '"a": 1E+2'),
        ('"b": 0.5', '"b": 5e-1'),
        ('"b": 0.5', '"b": 0.500'),
    ):
        assert old in raw
        again = raw.replace(old, new).encode()
        assert_replays(first, await api.call("POST", "/transfers", raw=again, key="rent"))
    assert await footprint(database) == before


async def test_the_problem_of_a_reused_key_warns_of_paying_twice(api: Api) -> None:
    ada, bob = await api.wallet(100), await api.wallet()
    await api.transfer(ada, bob, 5, key="rent")
    refused = await api.transfer(ada, bob, 6, key="rent")
    page = (await exactly(api, "GET", refused.json["type"])).body.decode()
    document = (await api.get("/openapi.json")).json
    parameters = document["paths"]["/transfers"]["post"]["parameters"]
    described = next(each for each in parameters if each["name"] == "Idempotency-Key")
    for text in (refused.json["detail"], page, described["description"]):
        assert "can pay twice" in text
        assert "GET /idempotency-keys/{key}" in text
        assert "exactly as it was sent" in text
        assert "Use a new one" not in text


async def test_metadata_that_is_null_is_empty(api: Api) -> None:
    for path, body in (await requests(api, {"n": 1})).values():
        if path == "/transfers/batch":
            continue
        first = await api.post(path, body | {"metadata": None}, key=f"{path} {body}")
        if first.status == 201:
            assert first.json["metadata"] == {}
        nothing = {name: value for name, value in body.items() if name != "metadata"}
        assert_replays(
            first,
            await api.post(path, body | {"metadata": {}}, key=f"{path} {body}"),
            await api.post(path, nothing, key=f"{path} {body}"),
        )
    # Like `name`, null removes the value; a missing field keeps it.
    for path in (f"/users/{await api.user()}", f"/wallets/{await api.wallet()}"):
        assert (await api.patch(path, {"metadata": {"n": 1}})).json["metadata"] == {"n": 1}
        assert (await api.patch(path, {})).json["metadata"] == {"n": 1}
        assert (await api.patch(path, {"metadata": None})).json["metadata"] == {}


class RollingUpgrade:
    """A replica of the new version, and one whose router knows only the old rule."""

    def __init__(self, new: Api, old: Api, old_router: Router) -> None:
        self.new = new
        self.old = old
        self._ask = old_router.ask
        old_router.ask = self._ask_by_the_old_rule  # type: ignore[method-assign]

    async def _ask_by_the_old_rule(self, envelope: Envelope) -> Answer:
        old = envelope.fingerprint.as_sent or envelope.fingerprint.value
        envelope.fingerprint = Fingerprint(old)
        envelope.stored_fingerprint = old
        return await self._ask(envelope)


@pytest.fixture(params=[True, False], ids=["redis", "no redis"])
async def upgrade(replicas: Replicas, request: pytest.FixtureRequest) -> RollingUpgrade:
    """One replica of each version, with and without Redis."""
    new, old = [await replicas.start(cache=request.param) for _ in range(2)]
    return RollingUpgrade(new, old, replicas.opened[-1].context.ledger.router)


async def all_of(replica: Api, sent: dict[str, tuple[str, dict[str, Any]]]) -> dict[str, Reply]:
    """The answers of one replica, by key."""
    return {key: await replica.post(path, body, key=key) for key, (path, body) in sent.items()}


async def test_an_outcome_of_an_earlier_version_is_replayed(
    upgrade: RollingUpgrade, database: Database
) -> None:
    sent = await requests(upgrade.new, SENT)
    first = await all_of(upgrade.old, sent)
    before = await footprint(database)
    # Once from Redis, once from PostgreSQL. The old replica also reads the entries that the
    # new one writes to Redis.
    for replica in (upgrade.new, upgrade.old, None, upgrade.new, upgrade.old):
        if replica is None:
            await forget_replays(database)
            continue
        again = await all_of(replica, sent)
        for key, reply in again.items():
            assert_replays(first[key], reply)
    assert await footprint(database) == before


async def test_canonical_requests_are_the_same_to_both_versions(
    upgrade: RollingUpgrade, database: Database
) -> None:
    for first, second in ((upgrade.new, upgrade.old), (upgrade.old, upgrade.new)):
        sent = await requests(upgrade.new, CANONICAL)
        if first is upgrade.old:
            sent = {f"{key} again": each for key, each in sent.items()}
        done = await all_of(first, sent)
        before = await footprint(database)
        for key, reply in (await all_of(second, sent)).items():
            assert_replays(done[key], reply)
        await forget_replays(database)
        reordered = {key: (path, other_order(body)) for key, (path, body) in sent.items()}
        for key, reply in (await all_of(upgrade.new, reordered)).items():
            assert_replays(done[key], reply)
        assert await footprint(database) == before


async def test_an_earlier_version_refuses_a_repetition_with_another_fingerprint(
    upgrade: RollingUpgrade, database: Database
) -> None:
    sent = await requests(upgrade.new, SENT)
    first = await all_of(upgrade.new, sent)
    before = await footprint(database)
    for key, reply in (await all_of(upgrade.old, sent)).items():
        assert reply.code == "idempotency-key-reused", key
    sorted_members = {key: (path, canonical(body)) for key, (path, body) in sent.items()}
    for replica in (upgrade.old, upgrade.new):
        for key, reply in (await all_of(replica, sorted_members)).items():
            assert_replays(first[key], reply)
    assert await footprint(database) == before


@pytest.mark.parametrize("metadata", [CANONICAL, SENT], ids=["canonical", "sent"])
async def test_requests_that_run_on_both_versions_at_once_pay_once(
    upgrade: RollingUpgrade, metadata: dict[str, Any]
) -> None:
    ada, bob = await upgrade.new.wallet(1_000), await upgrade.new.wallet()
    body = transfer_body(ada, bob, 5, metadata=metadata)

    async def statuses(key: str, order: Sequence[Api]) -> list[int]:
        return [
            reply.status
            for reply in await asyncio.gather(
                *(replica.post("/transfers", body, key=key) for replica in order)
            )
        ]

    for n in range(10):
        got = await statuses(f"rent {n}", [upgrade.new, upgrade.old][:: 1 - 2 * (n % 2)])
        # The old replica cannot recognize what the new one did, and refuses it.
        assert sorted(got) in ([[201, 201], [201, 422]] if metadata is SENT else [[201, 201]])
        assert await upgrade.new.balance(ada) == 1_000 - 5 * (n + 1)


async def test_a_request_that_is_invalid_now_is_replayed_if_it_equals_the_stored_one(
    api: Api, database: Database
) -> None:
    ada, bob = await api.wallet(1_000), await api.wallet()
    body = transfer_body(ada, bob, 5, metadata={"fx": 0.12345678901234568, "z": 0})
    first = await api.post("/transfers", body, key="rent")
    before = await footprint(database)
    # An earlier version read these as the body above.
    for old, new in (
        (b"0.12345678901234568", b"0.1234567890123456789"),
        (b'"z":0', b'"z":-0'),
        (b'"amount":5', b'"amount":6,"amount":5'),
    ):
        raw = orjson.dumps(body).replace(old, new)
        refused = await api.call("POST", "/transfers", raw=raw, key="rent")
        assert refused.code == "invalid-request"
    assert (await api.get("/idempotency-keys/rent")).json["answer"] == first.json
    assert_replays(first, await api.post("/transfers", body, key="rent"))
    assert await footprint(database) == before
