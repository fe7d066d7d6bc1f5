"""Holds reserve money of a wallet, and end once: by capture, release or expiry."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.conftest import Database, Replicas
from tests.support.api import Api, Reply
from tests.support.contract import footprint, time_of
from tests.support.outbox import events_in
from tests.support.truth import faults_in
from tests.support.waiting import until
from transferd.config import Limits

# Without a sweep only commands and reads notice that a hold is due.
UNSWEPT = Limits(expiry_sweep_s=3_600.0)


async def booked(api: Api, amount: int = 60, **more: Any) -> tuple[str, str, Any]:
    """A payer with 100, a payee, and a hold of the payer."""
    ada, bob = await api.wallet(100), await api.wallet()
    reply = await api.hold(ada, amount, destination_wallet_id=bob, **more)
    assert reply.status == 201, reply
    return ada, bob, reply.json


async def until_due(database: Database, hold_id: str) -> None:
    """Wait until the clock of the database has reached the expiry of the hold."""

    async def is_due() -> bool:
        [row] = await database.fetch(
            "SELECT expires_at <= clock_timestamp() FROM ledger_00.holds WHERE id = $1", hold_id
        )
        return bool(row[0])

    await until(is_due)


async def status_written(database: Database, hold_id: str) -> int:
    [row] = await database.fetch("SELECT status FROM ledger_00.holds WHERE id = $1", hold_id)
    number: int = row[0]
    return number


def kinds(reply: Reply) -> list[tuple[str, int, int, int]]:
    """The entries of a statement: kind, amount, balance and what is held, oldest first."""
    return [
        (entry["kind"], entry["amount"], entry["balance_after"], entry["held_after"])
        for entry in reversed(reply.json["data"])
    ]


async def test_a_hold_reserves_money_and_moves_none(api: Api, database: Database) -> None:
    ada, bob, hold = await booked(api, reference="room 12", metadata={"n": 1})
    assert list(hold.items())[1:11] == [
        ("source_wallet_id", ada),
        ("destination_wallet_id", bob),
        ("currency", "USD"),
        ("amount", 60),
        ("captured", 0),
        ("released", 0),
        ("remaining", 60),
        ("status", "active"),
        ("expires_at", hold["expires_at"]),
        ("reference", "room 12"),
    ]
    week = time_of(hold["expires_at"]) - time_of(hold["created_at"])
    assert week == timedelta(days=7)
    assert await api.money(ada) == (100, 60, 40)
    assert await api.money(bob) == (0, 0, 0)
    refused = await api.transfer(ada, bob, 41)
    assert (refused.code, refused.json["available"]) == ("insufficient-funds", 40)
    assert (await api.transfer(ada, bob, 40)).status == 201
    assert (await api.get(f"/holds/{hold['id']}")).json == hold
    assert [event["type"] for event in await events_in(database)][-2:] == [
        "hold.created",
        "transfer.posted",
    ]
    assert await faults_in(database) == []


async def test_captures_pay_and_the_final_one_releases_the_rest(
    api: Api, database: Database
) -> None:
    ada, bob, hold = await booked(api, reference="room 12")
    first = await api.about_hold(hold["id"], "capture", {"amount": 25, "final": False})
    assert first.status == 201
    assert first.json["kind"] == "capture"
    assert (first.json["hold_id"], first.json["reference"]) == (hold["id"], "room 12")
    assert first.headers["Location"] == f"/transfers/{first.json['id']}"
    assert (await api.get(first.headers["Location"])).body == first.body
    assert await api.money(ada) == (75, 35, 40)
    last = await api.about_hold(hold["id"], "capture", {"amount": 20, "reference": "bar"})
    assert (last.status, last.json["reference"]) == (201, "bar")
    assert await api.money(ada) == (55, 0, 55)
    assert await api.balance(bob) == 45
    after = (await api.get(f"/holds/{hold['id']}")).json
    assert (after["status"], after["captured"], after["released"], after["remaining"]) == (
        "captured",
        45,
        15,
        0,
    )
    refused = await api.about_hold(hold["id"], "capture")
    assert (refused.status, refused.code) == (409, "hold-not-active")
    assert refused.json["hold_status"] == "captured"
    assert refused.json["transfer_id"] == last.json["id"]
    assert refused.json["ended_at"] == after["updated_at"]
    assert kinds(await api.get(f"/wallets/{ada}/statement")) == [
        ("transfer", 100, 100, 0),
        ("hold_create", 0, 100, 60),
        ("hold_capture", 0, 100, 35),
        ("capture", -25, 75, 35),
        ("hold_capture", 0, 75, 0),
        ("capture", -20, 55, 0),
    ]
    assert [event["type"] for event in await events_in(database)][-4:] == [
        "hold.captured",
        "transfer.posted",
        "hold.captured",
        "transfer.posted",
    ]
    assert await faults_in(database) == []


async def test_a_capture_is_reversed_like_any_transfer(api: Api, database: Database) -> None:
    ada, _, hold = await booked(api)
    paid = await api.about_hold(hold["id"], "capture")
    back = await api.post(f"/transfers/{paid.json['id']}/reversal", key="back")
    assert back.status == 201
    assert await api.money(ada) == (100, 0, 100)
    assert (await api.get(f"/holds/{hold['id']}")).json["status"] == "captured"
    assert await faults_in(database) == []


async def test_an_adjustment_changes_the_total_and_the_expiry(api: Api, database: Database) -> None:
    ada, _, hold = await booked(api)
    more = await api.about_hold(hold["id"], "adjust", {"amount": 100})
    assert (more.status, more.json["amount"]) == (200, 100)
    assert await api.money(ada) == (100, 100, 0)
    refused = await api.about_hold(hold["id"], "adjust", {"amount": 101})
    assert (refused.code, refused.json["shortfall"]) == ("insufficient-funds", 1)
    await api.about_hold(hold["id"], "capture", {"amount": 30, "final": False})
    refused = await api.about_hold(hold["id"], "adjust", {"amount": 29})
    assert (refused.status, refused.code) == (422, "amount-below-captured")
    assert refused.json["captured"] == 30
    less = await api.about_hold(hold["id"], "adjust", {"amount": 30})
    assert (less.json["remaining"], less.json["status"]) == (0, "active")
    for expires_at in ("2020-01-01T00:00:00Z", "2999-01-01T00:00:00Z"):
        refused = await api.about_hold(hold["id"], "adjust", {"expires_at": expires_at})
        assert (refused.status, refused.code) == (422, "expiry-invalid")
        assert time_of(refused.json["now"]) > time_of(hold["created_at"])
    soon = (datetime.now(UTC) + timedelta(days=30)).isoformat()
    moved = await api.about_hold(hold["id"], "adjust", {"expires_at": soon})
    assert time_of(moved.json["expires_at"]) == datetime.fromisoformat(soon)
    assert await faults_in(database) == []


async def test_a_release_gives_back_what_is_left(api: Api, database: Database) -> None:
    ada, _, hold = await booked(api)
    await api.about_hold(hold["id"], "capture", {"amount": 10, "final": False})
    released = await api.about_hold(hold["id"], "release")
    assert (released.status, released.json["status"]) == (200, "released")
    assert (released.json["captured"], released.json["released"]) == (10, 50)
    assert await api.money(ada) == (90, 0, 90)
    again = await api.about_hold(hold["id"], "release")
    assert (again.status, again.code) == (409, "hold-not-active")
    assert "transfer_id" not in again.json
    assert await faults_in(database) == []


@pytest.mark.parametrize("what", ["create", "capture", "adjust", "release"])
async def test_a_repetition_gets_the_same_bytes(api: Api, database: Database, what: str) -> None:
    ada, bob, hold = await booked(api)
    calls = {
        "create": lambda: api.hold(ada, 5, key="k", destination_wallet_id=bob),
        "capture": lambda: api.about_hold(hold["id"], "capture", {"amount": 5}, key="k"),
        "adjust": lambda: api.about_hold(hold["id"], "adjust", {"amount": 70}, key="k"),
        "release": lambda: api.about_hold(hold["id"], "release", key="k"),
    }
    first = await calls[what]()
    before = await footprint(database)
    again = await calls[what]()
    assert (again.status, again.body) == (first.status, first.body)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert await footprint(database) == before
    other = await api.hold(ada, 6, key="k", destination_wallet_id=bob)
    assert other.code == "idempotency-key-reused"


@pytest.mark.parametrize("what", ["create", "capture", "adjust", "release"])
async def test_a_dry_run_shows_the_result_and_writes_nothing(
    api: Api, database: Database, what: str
) -> None:
    ada, _, hold = await booked(api)
    before = await footprint(database)
    body: Any
    if what == "create":
        body = {"source_wallet_id": ada, "amount": 40, "currency": "USD"}
        shown = await api.post("/holds?dry_run=true", body)
        refused = await api.post("/holds?dry_run=true", body | {"amount": 41})
        assert refused.code == "insufficient-funds"
        assert (shown.json["id"], shown.json["remaining"]) == (None, 40)
    else:
        body = {"adjust": {"amount": 80}, "capture": {"amount": 50}, "release": None}[what]
        shown = await api.post(f"/holds/{hold['id']}/{what}?dry_run=true", body)
        expected = {
            "adjust": (hold["id"], "amount", 80),
            "capture": (None, "source_balance_after", 50),
            "release": (hold["id"], "released", 60),
        }[what]
        assert (shown.json["id"], expected[1], shown.json[expected[1]]) == expected
        missing = await api.post(f"/holds/{ada}/{what}?dry_run=true", body)
        assert missing.code == "hold-not-found"
    assert (shown.status, shown.json["status"]) == (200, "dry_run")
    assert await footprint(database) == before


async def test_a_frozen_payer_only_gives_back(api: Api) -> None:
    ada, _, hold = await booked(api)
    await api.post(f"/wallets/{ada}/freeze")
    assert (await api.hold(ada, 1)).code == "wallet-frozen"
    assert (await api.about_hold(hold["id"], "capture")).code == "wallet-frozen"
    up = await api.about_hold(hold["id"], "adjust", {"amount": 61})
    assert up.code == "wallet-frozen"
    assert (await api.about_hold(hold["id"], "adjust", {"amount": 50})).status == 200
    assert (await api.about_hold(hold["id"], "release")).status == 200


async def test_a_wallet_with_an_open_hold_cannot_be_closed(api: Api) -> None:
    ada, _, hold = await booked(api, amount=100)
    await api.about_hold(hold["id"], "capture", {"final": False})
    assert await api.money(ada) == (0, 0, 0)
    refused = await api.post(f"/wallets/{ada}/close")
    assert (refused.code, refused.json["open_holds"]) == ("wallet-not-empty", 1)
    await api.about_hold(hold["id"], "release")
    assert (await api.post(f"/wallets/{ada}/close")).status == 200


async def test_a_capture_to_a_closed_wallet_is_refused_and_the_hold_stays(api: Api) -> None:
    ada, bob, hold = await booked(api)
    await api.post(f"/wallets/{bob}/close")
    assert (await api.about_hold(hold["id"], "capture")).code == "wallet-closed"
    assert await api.money(ada) == (100, 60, 40)


async def test_the_destination_may_come_with_the_capture(api: Api) -> None:
    ada, bob = await api.wallet(100), await api.wallet()
    hold = (await api.hold(ada, 10)).json
    assert hold["destination_wallet_id"] is None
    missing = await api.about_hold(hold["id"], "capture")
    assert (missing.status, missing.code) == (422, "destination-missing")
    same = await api.about_hold(hold["id"], "capture", {"destination_wallet_id": ada})
    assert same.code == "same-wallet"
    paid = await api.about_hold(hold["id"], "capture", {"destination_wallet_id": bob})
    assert (paid.status, await api.balance(bob)) == (201, 10)
    named = (await api.hold(ada, 10, destination_wallet_id=bob)).json
    other = await api.about_hold(named["id"], "capture", {"destination_wallet_id": ada})
    assert (other.status, other.code) == (422, "destination-mismatch")


async def test_a_hold_is_left_out_of_no_check_of_the_funds(api: Api) -> None:
    """Six holds of 1,000 on a wallet with 5,000: the sixth is refused."""
    ada = await api.wallet(5_000)
    replies = [await api.hold(ada, 1_000) for _ in range(6)]
    assert [reply.status for reply in replies] == [201] * 5 + [422]
    assert replies[-1].json["available"] == 0


async def test_a_wallet_has_a_limited_number_of_open_holds(replicas: Replicas) -> None:
    api = await replicas.start(Limits(open_holds_max=2))
    ada = await api.wallet(100)
    holds = [await api.hold(ada, 1) for _ in range(3)]
    assert [reply.status for reply in holds] == [201, 201, 422]
    assert (holds[2].code, holds[2].json["open_holds_max"]) == ("too-many-holds", 2)
    await api.about_hold(holds[0].json["id"], "release")
    assert (await api.hold(ada, 1)).status == 201


async def test_overdrafts_count_as_for_a_payment(api: Api) -> None:
    ada, bob = await api.wallet(10, overdraft_limit=50), await api.wallet()
    hold = (await api.hold(ada, 60, destination_wallet_id=bob)).json
    assert await api.money(ada) == (10, 60, 0)
    assert (await api.transfer(bob, ada, 1)).status == 422
    assert (await api.about_hold(hold["id"], "release")).status == 200
    assert await api.money(ada) == (10, 0, 60)
    hold = (await api.hold(ada, 60, destination_wallet_id=bob)).json
    assert (await api.about_hold(hold["id"], "capture")).status == 201
    assert await api.money(ada) == (-50, 0, 0)


async def test_captures_in_a_batch(api: Api, database: Database) -> None:
    ada, bob, hold = await booked(api)
    item = {"hold_id": hold["id"], "amount": 10, "final": False}
    paid = {"source_wallet_id": ada, "destination_wallet_id": bob, "amount": 5, "currency": "USD"}
    items = [item, paid, item | {"amount": 60}, {"hold_id": hold["id"]}, item]
    reply = await api.post("/transfers/batch", {"mode": "independent", "transfers": items}, key="b")
    assert reply.status == 200
    results = reply.json["results"]
    assert [result.get("kind") or result["code"] for result in results] == [
        "capture",
        "transfer",
        "capture-exceeds-hold",
        "capture",
        "hold-not-active",
    ]
    assert await api.money(ada) == (35, 0, 35)
    atomic = await api.post(
        "/transfers/batch", {"mode": "atomic", "transfers": [paid, item]}, key="c"
    )
    assert (atomic.code, atomic.json["index"]) == ("batch-refused", 1)
    assert atomic.json["refusal"]["code"] == "hold-not-active"
    again = await api.post("/transfers/batch", {"mode": "independent", "transfers": items}, key="b")
    assert again.body == reply.body
    assert await faults_in(database) == []


async def test_a_faulty_item_of_a_batch_is_named_by_its_place(api: Api) -> None:
    ada, bob, hold = await booked(api)
    paid = {"source_wallet_id": ada, "destination_wallet_id": bob, "amount": 0, "currency": "USD"}
    items = [paid, {"hold_id": hold["id"], "amount": 0}, {"hold_id": "x"}]
    reply = await api.post("/transfers/batch", {"mode": "atomic", "transfers": items}, key="b")
    assert reply.code == "invalid-request"
    assert [error["pointer"] for error in reply.json["errors"]] == [
        "/transfers/0/amount",
        "/transfers/1/amount",
        "/transfers/2/hold_id",
    ]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"expires_in_s": 60, "expires_at": "2030-01-01T00:00:00Z"}, ""),
        ({"expires_at": 1_900_000_000}, "/expires_at"),
        ({"expires_at": "tomorrow"}, "/expires_at"),
        ({"expires_in_s": 0}, "/expires_in_s"),
        ({"expires_in_s": 366 * 86_400 + 1}, "/expires_in_s"),
        ({"amount": 0}, "/amount"),
        ({"destination_wallet_id": "bob"}, "/destination_wallet_id"),
    ],
)
async def test_a_body_with_a_fault_is_refused(
    api: Api, body: dict[str, object], pointer: str
) -> None:
    ada = await api.wallet(100)
    sent = {"source_wallet_id": ada, "amount": 1, "currency": "USD"} | body
    reply = await api.post("/holds", sent, key="k")
    assert (reply.status, reply.code) == (422, "invalid-request")
    assert reply.json["errors"][0]["pointer"] == pointer


async def test_an_adjustment_needs_something_to_change(api: Api) -> None:
    _, _, hold = await booked(api)
    reply = await api.about_hold(hold["id"], "adjust", {})
    assert (reply.status, reply.code) == (422, "invalid-request")


async def test_lists_filter_by_wallet_status_and_expiry(
    replicas: Replicas, database: Database
) -> None:
    api = await replicas.start(UNSWEPT)
    ada = await api.wallet(100)
    ids = [(await api.hold(ada, 1, expires_in_s=600 * (n + 1))).json["id"] for n in range(3)]
    due = (await api.hold(ada, 1, expires_in_s=1)).json["id"]
    await api.about_hold(ids[0], "release")
    await until_due(database, due)

    async def listed(query: str) -> list[str]:
        reply = await api.get(f"/holds?wallet_id={ada}{query}")
        assert reply.status == 200, reply
        return [hold["id"] for hold in reply.json["data"]]

    assert await listed("") == [due, *ids[::-1]]
    assert await listed("&status=active") == [ids[2], ids[1]]
    assert await listed("&status=expired") == [due]
    assert await listed("&status=released") == [ids[0]]
    soon = (await api.get(f"/holds/{ids[2]}")).json["expires_at"]
    assert await listed(f"&expires_before={soon}") == [due, ids[1], ids[0]]
    page = (await api.get(f"/holds?wallet_id={ada}&limit=3")).json
    rest = await api.get(f"/holds?wallet_id={ada}&limit=3&cursor={page['next_cursor']}")
    assert [hold["id"] for hold in rest.json["data"]] == [ids[0]]
    assert await status_written(database, due) == 0


@pytest.mark.parametrize("looked_at_max", [1, 2, 3, 5, 100])
async def test_pages_that_are_short_lead_to_all_holds_that_match(
    replicas: Replicas, database: Database, looked_at_max: int
) -> None:
    """However few holds a page looks at, its cursors leave none out and repeat none."""
    api = await replicas.start(
        Limits(expiry_sweep_s=3_600.0, listed_holds_looked_at_max=looked_at_max)
    )
    ada, eve, bob = await api.wallet(100), await api.wallet(100), await api.wallet()
    due = [(await api.hold(ada, 1, expires_in_s=1)).json["id"] for _ in range(2)]
    ids = [
        (await api.hold(wallet, 1, destination_wallet_id=bob, expires_in_s=600 + n)).json["id"]
        for n, wallet in enumerate((ada, eve, ada, ada, ada, eve, ada))
    ]
    for id in ids[2:4]:
        assert (await api.about_hold(id, "capture")).status == 201
    assert (await api.about_hold(ids[5], "release")).status == 200
    for id in due:
        await until_due(database, id)
    soon = (await api.get(f"/holds/{ids[4]}")).json["expires_at"]

    async def listed(query: str, limit: int) -> list[str]:
        path = f"/holds?{query}&limit={limit}"
        found: list[str] = []
        cursor = ""
        while True:
            page = (await api.get(f"{path}{cursor}")).json
            assert len(page["data"]) <= limit
            assert page["has_more"] is (page["next_cursor"] is not None)
            found += [hold["id"] for hold in page["data"]]
            if not page["has_more"]:
                return found
            cursor = f"&cursor={page['next_cursor']}"

    everything = [*reversed(ids), *reversed(due)]
    for limit in (1, 2, 50):
        assert await listed("", limit) == everything
        assert await listed("status=captured", limit) == [ids[3], ids[2]]
        assert await listed("status=released", limit) == [ids[5]]
        assert await listed("status=expired", limit) == due[::-1]
        assert await listed("status=active", limit) == [ids[6], ids[4], ids[1], ids[0]]
        assert await listed(f"status=active&expires_before={soon}", limit) == [ids[1], ids[0]]
        assert await listed(f"expires_before={soon}", limit) == everything[3:]
        assert await listed(f"wallet_id={ada}&status=expired", limit) == due[::-1]
        assert await listed(f"wallet_id={eve}&status=captured", limit) == []
        assert await listed(f"wallet_id={ada}&status=active", limit) == [ids[6], ids[4], ids[0]]
    assert [await status_written(database, id) for id in due] == [0, 0]


async def test_few_active_holds_are_one_page_behind_many_that_have_ended(
    replicas: Replicas,
) -> None:
    """More active holds than a page looks at come in short pages."""
    api = await replicas.start(Limits(listed_holds_looked_at_max=3))
    ada, bob = await api.wallet(100), await api.wallet()
    active = [(await api.hold(ada, 1)).json["id"] for _ in range(3)]
    for _ in range(8):
        ended = (await api.hold(ada, 1, destination_wallet_id=bob)).json["id"]
        assert (await api.about_hold(ended, "capture")).status == 201
    page = (await api.get("/holds?status=active")).json
    assert [hold["id"] for hold in page["data"]] == active[::-1]
    assert page["has_more"] is False
    first = (await api.get("/holds?status=captured")).json
    assert (len(first["data"]), first["has_more"]) == (3, True)
    newest = (await api.hold(ada, 1)).json["id"]
    page = (await api.get("/holds?status=active")).json
    assert ([hold["id"] for hold in page["data"]], page["has_more"]) == ([newest], True)


# Expiry


async def test_from_its_expiry_on_a_hold_reserves_nothing_also_before_it_is_written(
    replicas: Replicas, database: Database
) -> None:
    api = await replicas.start(UNSWEPT)
    ada, bob, hold = await booked(api, expires_in_s=1)
    before = await api.get(f"/wallets/{ada}")
    assert (before.json["held"], before.headers["ETag"]) == (60, '"w2"')
    await until_due(database, hold["id"])
    after = await api.get(f"/wallets/{ada}", headers={"If-None-Match": '"w2"'})
    assert (after.status, after.json["held"], after.json["available"]) == (200, 0, 100)
    assert (after.json["version"], "ETag" in after.headers) == (2, False)
    shown = (await api.get(f"/holds/{hold['id']}")).json
    assert (shown["status"], shown["released"], shown["remaining"]) == ("expired", 60, 0)
    dry = await api.post(
        "/transfers?dry_run=true",
        {"source_wallet_id": ada, "destination_wallet_id": bob, "amount": 100, "currency": "USD"},
    )
    assert dry.status == 200
    listed = (await api.get(f"/wallets?user_id={after.json['user_id']}")).json["data"]
    assert [wallet["held"] for wallet in listed] == [0]
    assert await status_written(database, hold["id"]) == 0
    # The next command that locks the wallet writes it, and decides after it.
    refused = await api.about_hold(hold["id"], "capture")
    assert (refused.status, refused.code) == (409, "hold-expired")
    assert refused.json["expires_at"] == hold["expires_at"]
    assert await status_written(database, hold["id"]) == 3
    assert (await api.transfer(ada, bob, 100)).status == 201
    assert kinds(await api.get(f"/wallets/{ada}/statement"))[1:] == [
        ("hold_create", 0, 100, 60),
        ("hold_expire", 0, 100, 0),
        ("transfer", -100, 0, 0),
    ]
    assert await faults_in(database) == []


async def test_the_sweep_writes_an_expiry_and_its_event(api: Api, database: Database) -> None:
    ada, _, hold = await booked(api, expires_in_s=1)

    async def is_written() -> bool:
        return await status_written(database, hold["id"]) == 3

    await until(is_written)
    [event] = [event for event in await events_in(database) if event["type"] == "hold.expired"]
    assert (event["data"]["id"], event["data"]["released"]) == (hold["id"], 60)
    assert (await api.get(f"/wallets/{ada}")).headers["ETag"] == '"w3"'
    assert await api.money(ada) == (100, 0, 100)
    assert await faults_in(database) == []


async def test_the_past_knows_what_was_held(replicas: Replicas, database: Database) -> None:
    api = await replicas.start(UNSWEPT)
    ada, bob, first = await booked(api, expires_in_s=1)
    second = (await api.hold(ada, 7, expires_in_s=600)).json
    await until_due(database, first["id"])

    async def held_at(time: str) -> int:
        reply = await api.get(f"/wallets/{ada}?at={time.replace('+', '%2B')}")
        assert reply.status == 200, reply
        held: int = reply.json["held"]
        return held

    last = time_of(first["expires_at"])
    instants = {
        (last - timedelta(microseconds=1)).isoformat(): 67,
        last.isoformat(): 7,
        second["created_at"]: 60,
        (time_of(second["created_at"]) + timedelta(microseconds=1)).isoformat(): 67,
    }
    assert {instant: await held_at(instant) for instant in instants} == instants
    # Written later, the expiry changes no answer about the past.
    await api.transfer(ada, bob, 1)
    assert await status_written(database, first["id"]) == 3
    assert {instant: await held_at(instant) for instant in instants} == instants


async def test_an_adjustment_moves_an_expiry_in_both_directions(
    replicas: Replicas, database: Database
) -> None:
    api = await replicas.start(UNSWEPT)
    ada, bob, hold = await booked(api, expires_in_s=600)
    soon = datetime.now(UTC) + timedelta(seconds=2)
    await api.about_hold(hold["id"], "adjust", {"expires_at": soon.isoformat()})
    later = (await api.hold(ada, 5, expires_in_s=1)).json
    await api.about_hold(
        later["id"], "adjust", {"expires_at": (soon + timedelta(days=1)).isoformat()}
    )
    await until_due(database, hold["id"])
    assert await api.money(ada) == (100, 5, 95)
    assert (await api.transfer(ada, bob, 95)).status == 201
    assert await api.money(ada) == (5, 5, 0)
    assert await faults_in(database) == []


@pytest.mark.needs_configuration("cache", why="the test tells hits from misses")
async def test_a_cached_wallet_is_not_shown_after_an_expiry(
    replicas: Replicas, database: Database
) -> None:
    """A snapshot that would outlive the expiry is not stored."""
    api = await replicas.start(UNSWEPT)
    ada, _, hold = await booked(api, expires_in_s=2)
    for _ in range(3):
        assert (await api.get(f"/wallets/{ada}")).headers["X-Cache"] == "miss"
    await until_due(database, hold["id"])
    assert await api.money(ada) == (100, 0, 100)
    far = (await api.hold(ada, 5, expires_in_s=600)).json
    assert (await api.get(f"/wallets/{ada}")).headers["X-Cache"] == "hit"
    assert await api.money(ada) == (100, 5, 95)
    assert far["status"] == "active"


async def test_holds_need_a_key_and_the_scope(api: Api, locked: Api) -> None:
    ada = await api.wallet(100)
    reply = await api.post("/holds", {"source_wallet_id": ada, "amount": 1, "currency": "USD"})
    assert reply.code == "idempotency-key-missing"
    assert (await locked.post("/holds", {})).status == 401


async def test_an_event_stream_has_the_events_of_a_hold(api: Api, database: Database) -> None:
    ada, _, hold = await booked(api)
    await api.about_hold(hold["id"], "capture", {"amount": 5})
    async with api.session.get(
        f"{api.url}/wallets/{ada}/events", headers={"Last-Event-ID": "1"}
    ) as stream:
        text = b""
        while b"id: 4\n" not in text:
            text += await stream.content.readany()
    names = [line.split(b": ")[1] for line in text.split(b"\n") if line.startswith(b"event:")]
    assert names == [b"hold.created", b"hold.captured", b"transfer.posted"]
    assert b'"captured":5' in text
