"""Batches: atomic and independent ones, and one key for the whole batch."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import orjson
import pytest

from tests.conftest import Database, Replicas
from tests.support.api import Api, Reply
from tests.support.contract import (
    UNKNOWN_ID,
    footprint,
    transfer_body,
)
from tests.support.pressure import held_rows, until_sessions_wait
from tests.support.truth import faults_in, row_count
from transferd.config import Limits
from transferd.ledger.store.database import Database as Store
from transferd.notifications.directory import Directories
from transferd.notifications.local import LocalBroker
from transferd.notifications.relay import Relay
from transferd.observability.facts import Facts


async def post(
    api: Api, mode: str, transfers: Sequence[object], *, key: str = "payday", **more: object
) -> Reply:
    """POST /transfers/batch."""
    body = {"mode": mode, "transfers": transfers, **more}
    return await api.post("/transfers/batch", body, key=key)


async def both_balances(api: Api, *wallets: str) -> list[int]:
    return [await api.balance(wallet) for wallet in wallets]


# Results


@pytest.mark.parametrize("mode", ["atomic", "independent"])
async def test_the_results_are_the_transfers_in_order(api: Api, mode: str) -> None:
    ada, bob, cy = await api.wallet(1_000), await api.wallet(), await api.wallet()
    reply = await post(
        api,
        mode,
        [
            transfer_body(ada, bob, 600, reference="first", metadata={"n": 1}),
            # It spends money of the first transfer.
            transfer_body(bob, cy, 500, reference="second"),
            transfer_body(ada, cy, 400),
        ],
    )
    assert reply.status == 200, reply
    assert list(reply.json) == ["results"]
    first, second, third = reply.json["results"]
    assert [t["reference"] for t in (first, second, third)] == ["first", "second", None]
    assert (first["source_balance_after"], first["source_version"]) == (400, 2)
    assert (second["source_balance_after"], second["source_version"]) == (100, 2)
    assert (third["source_balance_after"], third["source_version"]) == (0, 3)
    assert first["metadata"] == {"n": 1}
    for transfer in (first, second, third):
        assert (await api.get(f"/transfers/{transfer['id']}")).json == transfer
    assert await both_balances(api, ada, bob, cy) == [0, 100, 900]


async def test_an_atomic_batch_is_refused_as_a_whole(api: Api, database: Database) -> None:
    ada, bob = await api.wallet(1_000), await api.wallet()
    before = await footprint(database)
    transfers = [transfer_body(ada, bob, amount) for amount in (600, 300, 200, 5_000)]
    reply = await post(api, "atomic", transfers)
    assert (reply.status, reply.code) == (422, "batch-refused")
    assert reply.json["index"] == 2, "the first that was refused"
    refusal = reply.json["refusal"]
    assert refusal["code"] == "insufficient-funds"
    assert (refusal["available"], refusal["shortfall"]) == (100, 100)
    assert "transfer 2" in reply.json["detail"]
    # It leaves only the outcome of its key.
    assert await footprint(database) == before | {"outcomes": before["outcomes"] + 1}
    assert await both_balances(api, ada, bob) == [1_000, 0]
    again = await post(api, "atomic", transfers)
    assert (again.status, again.body) == (422, reply.body)
    assert again.headers["Idempotent-Replayed"] == "true"


async def test_in_an_independent_batch_each_is_decided_on_its_own(api: Api) -> None:
    ada, bob, yen = await api.wallet(1_000), await api.wallet(), await api.wallet(0, "JPY")
    reply = await post(
        api,
        "independent",
        [
            transfer_body(ada, bob, 900),
            transfer_body(ada, bob, 200),
            transfer_body(ada, ada, 1),
            transfer_body(ada, UNKNOWN_ID, 1),
            transfer_body(ada, yen, 1),
            transfer_body(ada, bob, 100),
        ],
    )
    assert reply.status == 200
    results = reply.json["results"]
    assert [r["status"] for r in results] == ["posted", 422, 422, 404, 422, "posted"]
    assert [r.get("code") for r in results[1:5]] == [
        "insufficient-funds",
        "same-wallet",
        "wallet-not-found",
        "currency-mismatch",
    ]
    for problem in results[1:5]:
        assert problem["type"] == f"/problems/{problem['code']}"
        assert problem["request_id"] == reply.headers["X-Request-Id"]
    assert results[5]["source_balance_after"] == 0
    assert await both_balances(api, ada, bob) == [0, 1_000]


async def test_an_independent_batch_of_refused_transfers_is_answered_with_200(
    api: Api, database: Database
) -> None:
    ada, bob = await api.wallet(), await api.wallet()
    reply = await post(api, "independent", [transfer_body(ada, bob, 1)] * 3)
    assert reply.status == 200
    assert [r["code"] for r in reply.json["results"]] == ["insufficient-funds"] * 3
    assert await row_count(database, "ledger_00.transfers") == 0


# Idempotency-Key


@pytest.mark.parametrize("keeps", [True, False], ids=["from Redis", "from PostgreSQL"])
async def test_the_whole_answer_is_replayed_to_the_byte(
    replicas: Replicas, database: Database, keeps: bool
) -> None:
    limits = replace(Limits(), replay_bytes_max=Limits().replay_bytes_max if keeps else 0)
    api = await replicas.start(limits)
    ada, bob = await api.wallet(1_000), await api.wallet()
    transfers = [transfer_body(ada, bob, amount, metadata={"z": 1}) for amount in (1, 9_999, 2)]
    first = await post(api, "independent", transfers)
    assert "Idempotent-Replayed" not in first.headers
    before = await footprint(database)
    for replica in (api, await replicas.start(limits)):
        again = await post(replica, "independent", transfers)
        assert (again.status, again.body) == (first.status, first.body)
        assert again.headers["Idempotent-Replayed"] == "true"
        state = (await replica.get("/idempotency-keys/payday")).json
        assert state == {"state": "succeeded", "status": 200, "answer": first.json}
    assert await footprint(database) == before


async def test_concurrent_requests_of_one_batch_post_it_once(
    replicas: Replicas, database: Database
) -> None:
    apis = [await replicas.start(), await replicas.start()]
    ada, bob = await apis[0].wallet(1_000), await apis[0].wallet()
    transfers = [transfer_body(ada, bob, 1)] * 50
    replies = await asyncio.gather(*(post(apis[n % 2], "atomic", transfers) for n in range(10)))
    assert {reply.status for reply in replies} == {200}
    assert len({reply.body for reply in replies}) == 1
    assert await apis[0].balance(bob) == 50
    assert await faults_in(database) == []


async def test_a_key_belongs_to_one_batch(api: Api) -> None:
    ada, bob = await api.wallet(1_000), await api.wallet()
    transfers = [transfer_body(ada, bob, 1), transfer_body(ada, bob, 2)]
    assert (await post(api, "atomic", transfers)).status == 200
    for mode, others in (
        ("independent", transfers),
        ("atomic", transfers[::-1]),
        ("atomic", transfers[:1]),
        ("atomic", [*transfers, transfers[0]]),
    ):
        reply = await post(api, mode, others)
        assert (reply.status, reply.code) == (422, "idempotency-key-reused")
    single = await api.transfer(ada, bob, 1, key="payday")
    assert (single.status, single.code) == (422, "idempotency-key-reused")
    assert await api.balance(bob) == 3


# Invalid batches


async def test_a_batch_has_at_most_5000_transfers(api: Api, database: Database) -> None:
    ada, bob = await api.wallet(10_000), await api.wallet()
    transfers = [transfer_body(ada, bob, 1)] * 5_001
    reply = await post(api, "atomic", transfers)
    assert (reply.status, reply.code) == (422, "invalid-request")
    assert [error["pointer"] for error in reply.json["errors"]] == ["/transfers"]
    whole = await post(api, "atomic", transfers[1:])
    assert whole.status == 200
    assert len({t["id"] for t in whole.json["results"]}) == 5_000
    assert await both_balances(api, ada, bob) == [5_000, 5_000]
    again = await post(api, "atomic", transfers[1:])
    assert (again.body, again.headers["Idempotent-Replayed"]) == (whole.body, "true")
    assert await faults_in(database) == []


async def test_a_batch_has_a_larger_limit_for_its_body(api: Api) -> None:
    ada, bob = await api.wallet(1_000), await api.wallet()
    text = "x" * 140
    long = [transfer_body(ada, bob, 1, reference=text, metadata={"a": text})] * 1_000
    assert len(orjson.dumps(long)) > 10 * Limits().body_bytes_max
    assert (await post(api, "atomic", long)).status == 200


# Scopes and limits


async def test_batches_and_single_transfers_run_concurrently(api: Api, database: Database) -> None:
    wallets = [await api.wallet(10_000) for _ in range(6)]

    async def batches(number: int) -> list[Reply]:
        pairs = [(wallets[(number + n) % 6], wallets[(number + 2 * n + 1) % 6]) for n in range(40)]
        transfers = [transfer_body(a, b, 1) for a, b in pairs if a != b]
        return [await post(api, "atomic", transfers, key=f"{number}-{n}") for n in range(5)]

    async def singles(number: int) -> list[Reply]:
        a, b = wallets[number], wallets[(number + 1) % 6]
        return [await api.transfer(a, b, 1) for _ in range(20)]

    done = await asyncio.gather(*map(batches, range(4)), *map(singles, range(6)))
    assert {reply.status for replies in done for reply in replies} == {200, 201}
    assert sum(await both_balances(api, *wallets)) == 60_000
    assert await faults_in(database) == []


async def test_batches_above_the_limit_wait_and_are_then_refused(
    replicas: Replicas, database: Database
) -> None:
    api = await replicas.start(replace(Limits(), batches_max=1, batch_wait_s=0.1))
    ada, bob = await api.wallet(1_000), await api.wallet()
    transfers = [transfer_body(ada, bob, 1)]
    async with held_rows(database, ada):
        first = asyncio.create_task(post(api, "atomic", transfers, key="first"))
        await until_sessions_wait(database, 1)
        refused = await post(api, "atomic", transfers, key="second")
        assert (refused.status, refused.code) == (503, "overloaded")
        assert refused.headers["Retry-After"] == "1"
    assert (await first).status == 200
    assert (await post(api, "atomic", transfers, key="second")).status == 200
    assert await api.balance(bob) == 2


async def test_a_batch_that_is_sent_slowly_frees_its_place(replicas: Replicas) -> None:
    api = await replicas.start(replace(Limits(), body_wait_s=0.05))

    async def trickle() -> Any:
        yield b'{"mode": "atomic", '
        await asyncio.sleep(0.09)
        yield b'"transfers": []}'

    async with api.session.post(
        api.url + "/transfers/batch",
        data=trickle(),
        headers={"Idempotency-Key": "k", "Content-Type": "application/json"},
    ) as response:
        assert response.status == 400
        problem = await response.json()
    assert problem["code"] == "malformed-json"
    assert "did not arrive within 0.05 s" in problem["detail"]


# Events


async def test_each_transfer_is_an_event_in_order_and_rows_of_the_outbox_stay_short(
    api: Api, database: Database
) -> None:
    ada, bob = await api.wallet(1_000), await api.wallet()
    await database.fetch("DELETE FROM ledger_00.outbox")
    transfers = [transfer_body(ada, bob, 1)] * 600
    results = (await post(api, "atomic", transfers)).json["results"]
    rows = await database.fetch(
        "SELECT event_count, events::text FROM ledger_00.outbox ORDER BY seq"
    )
    assert [row["event_count"] for row in rows] == [250, 250, 100]
    ids = [event["id"] for row in rows for event in orjson.loads(row["events"])]
    assert ids == [transfer["id"] for transfer in results]


async def test_events_of_a_batch_equal_those_of_single_transfers(
    api: Api, database: Database
) -> None:
    ada, bob = await api.wallet(1_000), await api.wallet()
    await database.fetch("DELETE FROM ledger_00.outbox")
    await api.transfer(ada, bob, 1)
    lunch = transfer_body(ada, bob, 2, reference="lunch", metadata={"table": 7})
    results = (await post(api, "atomic", [lunch, transfer_body(bob, ada, 1)])).json["results"]
    async with Store(database.settings(), Limits(), 1) as store:
        relay = Relay(
            database=store,
            directories=Directories(Limits(), with_log=True),
            limits=Limits(),
            facts=Facts(),
            clock=time.monotonic,
        )
        assert await relay.relay_once(LocalBroker(), database.ledger, events_max=500) == 3
    rows = await database.fetch(
        "SELECT event_type, event::text FROM ledger_00.deliveries ORDER BY number"
    )
    events = [orjson.loads(row["event"]) for row in rows]
    assert [event["id"] for event in events[1:]] == [result["id"] for result in results]
    assert {tuple(event) for event in events} == {tuple(events[0])}
    assert {tuple(event["data"]) for event in events} == {tuple(events[0]["data"])}
    assert [event["data"]["source_balance_after"] for event in events] == [999, 997, 2]
    assert {row["event_type"] for row in rows} == {"transfer.posted"}
    data = events[1]["data"]
    assert (data["amount"], data["reference"], data["metadata"]) == (2, "lunch", {"table": 7})
    assert events[1]["requestid"] == events[2]["requestid"] != events[0]["requestid"]
