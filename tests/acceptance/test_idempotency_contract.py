"""Idempotency keys: one effect and one answer per key, refusals included."""

import asyncio
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest

from tests.conftest import Database, Replicas
from tests.support.api import Api, Reply
from tests.support.contract import UNKNOWN_ID, exactly, footprint, transfer_body
from tests.support.pressure import held_rows
from tests.support.waiting import until


@dataclass(frozen=True)
class Ask:
    """A POST, and the status that it gets at first."""

    path: str
    body: dict[str, Any] | None
    status: int

    async def by(self, api: Api, key: str) -> Reply:
        """Send the request with this key."""
        return await api.post(self.path, self.body, key=key)


async def asks(api: Api) -> dict[str, Ask]:
    """A request for each kind of stored answer, by its key."""
    user = await api.user()
    ada, bob, poor = await api.wallet(100), await api.wallet(), await api.wallet()
    frozen, closed, euro = await api.wallet(5), await api.wallet(), await api.wallet(currency="EUR")
    await api.post(f"/wallets/{frozen}/freeze")
    await api.post(f"/wallets/{closed}/close")
    paid = (await api.transfer(ada, bob, 50)).json["id"]
    back = (await api.post(f"/transfers/{paid}/reversal", {"amount": 10}, key="back")).json["id"]
    wallet = {"user_id": user, "currency": "USD"}
    lost = {"user_id": UNKNOWN_ID, "currency": "USD"}
    return {
        "user": Ask("/users", {"name": "Eve"}, 201),
        "wallet": Ask("/wallets", wallet, 201),
        "full wallet": Ask("/wallets", wallet | {"initial_balance": 7}, 201),
        "wallet of an unknown user": Ask("/wallets", lost, 404),
        "full wallet of an unknown user": Ask("/wallets", lost | {"initial_balance": 7}, 404),
        "transfer": Ask("/transfers", transfer_body(ada, bob, 5), 201),
        "unknown source": Ask("/transfers", transfer_body(UNKNOWN_ID, bob), 404),
        "unknown destination": Ask("/transfers", transfer_body(ada, UNKNOWN_ID), 404),
        "no funds": Ask("/transfers", transfer_body(poor, bob, 5), 422),
        "same wallet": Ask("/transfers", transfer_body(ada, ada), 422),
        "currency": Ask("/transfers", transfer_body(ada, euro), 422),
        "frozen": Ask("/transfers", transfer_body(frozen, bob), 422),
        "closed": Ask("/transfers", transfer_body(ada, closed), 422),
        "reversal": Ask(f"/transfers/{paid}/reversal", {"amount": 10}, 201),
        "reversal of nothing": Ask(f"/transfers/{UNKNOWN_ID}/reversal", None, 404),
        "reversal of a reversal": Ask(f"/transfers/{back}/reversal", None, 409),
        "reversal of too much": Ask(f"/transfers/{paid}/reversal", {"amount": 51}, 409),
        "freeze": Ask(f"/wallets/{euro}/freeze", None, 200),
        "unfreeze": Ask(f"/wallets/{euro}/unfreeze", None, 200),
        "close": Ask(f"/wallets/{euro}/close", None, 200),
        "close of nothing": Ask(f"/wallets/{UNKNOWN_ID}/close", None, 404),
        "freeze of a closed one": Ask(f"/wallets/{closed}/freeze", None, 422),
        "close of a full one": Ask(f"/wallets/{frozen}/close", None, 409),
    }


def assert_is_replay(again: Reply, first: Reply) -> None:
    """The same status and bytes, and the header that says so."""
    assert (again.status, again.body) == (first.status, first.body)
    assert again.headers["Idempotent-Replayed"] == "true"
    for name in ("Content-Type", "Location"):
        assert again.headers.get(name) == first.headers.get(name)


async def test_every_outcome_is_replayed_byte_for_byte(
    replicas: Replicas, database: Database
) -> None:
    # The second replica has no Redis, so it reads the outcome from PostgreSQL.
    api, bare = await replicas.start(), await replicas.start(cache=False)
    sent = await asks(api)
    first = {key: await ask.by(api, key) for key, ask in sent.items()}
    assert {key: reply.status for key, reply in first.items()} == {
        key: ask.status for key, ask in sent.items()
    }
    assert not any("Idempotent-Replayed" in reply.headers for reply in first.values())
    # Now the wallets have enough money for the refused transfers.
    for ask in sent.values():
        if ask.path == "/transfers" and ask.status == 422:
            assert ask.body is not None
            rich = transfer_body(await api.funding_wallet(), ask.body["source_wallet_id"], 1_000)
            await api.post("/transfers", rich, key=str(id(ask)))
    before = await footprint(database)
    for key, ask in sent.items():
        for replica in (api, bare):
            assert_is_replay(await ask.by(replica, key), first[key])
        state = "succeeded" if ask.status < 400 else "refused"
        known = (await api.get(f"/idempotency-keys/{quote(key)}")).json
        assert known == {"state": state, "status": ask.status, "answer": first[key].json}
    assert await footprint(database) == before


async def test_a_replay_keeps_the_text_of_the_first_answer(api: Api) -> None:
    ada, bob = await api.wallet(), await api.wallet()
    body = transfer_body(ada, bob)
    first = await api.post("/transfers", body, key="rent", headers={"X-Request-Id": "first"})
    again = await api.post("/transfers", body, key="rent", headers={"X-Request-Id": "again"})
    assert first.json["request_id"] == again.json["request_id"] == "first"
    # The header belongs to the request, not to the outcome.
    assert again.headers["X-Request-Id"] == "again"


async def test_a_key_is_needed_where_money_moves(api: Api, database: Database) -> None:
    user, ada, bob = await api.user(), await api.wallet(100), await api.wallet()
    paid = (await api.transfer(ada, bob, 5)).json["id"]
    before = await footprint(database)
    wallet = {"user_id": user, "currency": "USD"}
    for path, body in (
        ("/transfers", transfer_body(ada, bob)),
        (f"/transfers/{paid}/reversal", None),
        ("/wallets", wallet | {"initial_balance": 1}),
        ("/transfers/batch", {"mode": "atomic", "transfers": [transfer_body(ada, bob)]}),
    ):
        missing = await api.post(path, body)
        assert (missing.status, missing.code) == (400, "idempotency-key-missing"), path
    assert await footprint(database) == before
    for path, other in (
        ("/users", {}),
        ("/wallets", wallet),
        ("/wallets", wallet | {"initial_balance": 0}),
        (f"/wallets/{bob}/freeze", None),
        (f"/wallets/{bob}/unfreeze", None),
    ):
        assert (await api.post(path, other)).status in {200, 201}, path


async def test_a_key_is_1_to_255_printable_characters(
    api: Api, database: Database, subtests: pytest.Subtests
) -> None:
    ada, bob = await api.wallet(100), await api.wallet()
    paid = (await api.transfer(ada, bob, 5)).json["id"]
    transfer = transfer_body(ada, bob)
    before = await footprint(database)
    asks: list[tuple[str, Any, str]] = [
        ("/transfers", transfer, key) for key in ("", '""', f'"{"x" * 256}"', "ä", "a\tb")
    ]
    # An optional key must be valid too.
    asks += [
        (path, body, "x" * 256)
        for path, body in (
            ("/users", {}),
            ("/wallets", {"user_id": UNKNOWN_ID, "currency": "USD"}),
            (f"/wallets/{ada}/freeze", None),
            ("/transfers/batch", {"mode": "atomic", "transfers": [transfer]}),
            (f"/transfers/{paid}/reversal", None),
            ("/webhooks", {"url": "https://example.com/", "events": ["*"]}),
            (f"/webhooks/{UNKNOWN_ID}/rotate", None),
            (f"/webhooks/{UNKNOWN_ID}/deliveries/{UNKNOWN_ID}/redeliver", None),
        )
    ]
    for path, body, key in asks:
        with subtests.test(path, key=key):
            refused = await api.post(path, body, key=key)
            assert (refused.status, refused.code) == (400, "idempotency-key-invalid")
    assert await footprint(database) == before


async def test_quotes_around_a_key_do_not_belong_to_it(api: Api) -> None:
    ada, bob = await api.wallet(100), await api.wallet()
    longest = "x" * 255
    for key, same, others in (
        ("rent", '"rent"', ['""rent""', '"rent', 'rent"', "'rent'", "Rent", "rent."]),
        (longest, f'"{longest}"', []),
        ('"', '"""', []),
    ):
        first = await api.transfer(ada, bob, 1, key=key)
        assert first.status == 201
        assert_is_replay(await api.transfer(ada, bob, 1, key=same), first)
        for other in others:
            assert (await api.transfer(ada, bob, 1, key=other)).json["id"] != first.json["id"]


async def test_a_key_for_another_request_is_refused_and_keeps_its_outcome(
    api: Api, database: Database
) -> None:
    ada, bob, user = await api.wallet(100), await api.wallet(), await api.user()
    body = transfer_body(ada, bob, 5, reference="rent", metadata={"n": 1})
    first = await api.post("/transfers", body, key="rent")
    before = await footprint(database)
    changes: list[dict[str, Any]] = [
        {"amount": 6},
        {"source_wallet_id": bob, "destination_wallet_id": ada},
        {"destination_wallet_id": UNKNOWN_ID},
        {"currency": "EUR"},
        {"reference": "Rent"},
        {"reference": None},
        {"metadata": {"n": 2}},
        {"metadata": {"n": 1.5}},
        {"metadata": {"n": "1"}},
        {"metadata": {"n": True}},
        {"metadata": {}},
    ]
    others: list[tuple[str, dict[str, Any] | None]] = [
        *(("/transfers", body | change) for change in changes),
        (f"/transfers/{first.json['id']}/reversal", None),
        (f"/transfers/{UNKNOWN_ID}/reversal", None),
        ("/users", {}),
        ("/wallets", {"user_id": user, "currency": "USD"}),
        (f"/wallets/{ada}/freeze", None),
        (f"/wallets/{bob}/close", None),
    ]
    for path, other in others:
        refused = await api.post(path, other, key="rent")
        assert (refused.status, refused.code) == (422, "idempotency-key-reused"), (path, other)
        assert "Idempotent-Replayed" not in refused.headers
    assert await footprint(database) == before
    assert_is_replay(await api.post("/transfers", body, key="rent"), first)


async def test_a_request_refused_before_execution_leaves_the_key_free(
    api: Api, database: Database
) -> None:
    ada, bob = await api.wallet(100), await api.wallet()
    paid = (await api.transfer(ada, bob, 5)).json["id"]
    good = transfer_body(ada, bob, 1)
    before = await footprint(database)
    refused_early: list[tuple[str, bytes, dict[str, str]]] = [
        ("malformed-json", b"{", {}),
        ("unsupported-media-type", b"{}", {"Content-Type": "text/plain"}),
        ("body-too-large", b" " * 40_000 + b"{}", {}),
        ("invalid-request", b'{"amount": 0}', {}),
        ("unauthenticated", b"{}", {"Authorization": "Bearer td_nobody_" + "x" * 32}),
    ]
    for code, raw, headers in refused_early:
        for path in ("/transfers", f"/transfers/{paid}/reversal"):
            reply = await api.call("POST", path, raw=raw, key="rent", headers=headers)
            assert reply.code == code, path
            assert (await api.get("/idempotency-keys/rent")).code == "not-found"
    strange = await api.post("/transfers?dry_run=perhaps", good, key="rent")
    assert strange.code == "invalid-request"
    assert await footprint(database) == before
    first = await api.post("/transfers", good, key="rent")
    assert (first.status, "Idempotent-Replayed" in first.headers) == (201, False)


_KEYS = [
    "rent",
    "a/b",
    "/",
    "a//b",
    "a/../b",
    "..",
    "June rent",
    "100%",
    "a%2Fb",
    "a+b",
    "what?#&=;",
    'say "hi"',
    "".join(map(chr, range(33, 127))),
    "x" * 255,
]


async def test_every_key_can_be_looked_up(api: Api, subtests: pytest.Subtests) -> None:
    for key in _KEYS:
        with subtests.test(key=key):
            path = f"/idempotency-keys/{quote(key, safe='')}"
            assert (await exactly(api, "GET", path)).code == "not-found"
            made = await api.post("/users", {}, key=key)
            quoted = f"/idempotency-keys/%22{quote(key, safe='')}%22"
            with_slashes = f"/idempotency-keys/{quote(key)}"
            for address in (path, quoted, with_slashes):
                known = await exactly(api, "GET", address)
                assert known.status == 200, address
                assert list(known.json) == ["state", "status", "answer"]
                assert known.json == {"state": "succeeded", "status": 201, "answer": made.json}


@pytest.mark.needs_configuration(
    "cache", why="other replicas know only from Redis what has not been committed"
)
async def test_a_key_is_pending_while_its_request_runs(
    replicas: Replicas, database: Database
) -> None:
    api, other = await replicas.start(), await replicas.start()
    ada, bob = await api.wallet(100), await api.wallet()
    async with held_rows(database, ada):
        running = asyncio.create_task(api.transfer(ada, bob, 5, key="rent"))
        await until_known(other, "rent")
        # Both replicas give the same answer.
        for replica in (api, other):
            known = await replica.get("/idempotency-keys/rent")
            assert known.json == {"state": "pending", "status": None, "answer": None}
        assert not running.done()
    made = await running
    for replica in (api, other):
        known = await replica.get("/idempotency-keys/rent")
        assert known.json == {"state": "succeeded", "status": 201, "answer": made.json}


async def until_known(api: Api, key: str) -> None:
    async def it_is() -> bool:
        return (await api.get(f"/idempotency-keys/{key}")).status == 200

    await until(it_is)
