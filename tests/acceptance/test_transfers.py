"""Transfers, as clients see them."""

from tests.conftest import Database
from tests.support.api import Api
from tests.support.contract import (
    AMOUNT_MAX,
    UNKNOWN_ID,
    assert_is_id,
    footprint,
    set_balance,
    time_of,
    transfer_body,
)


async def test_a_transfer_is_shown_as_it_is_read(api: Api) -> None:
    ada, bob = await api.wallet(10_000), await api.wallet()
    metadata = {"z": 1, "a": "ü", "n": None, "x": 0.5, "b": False}
    made = await api.transfer(ada, bob, 2_500, reference="rent for June", metadata=metadata)
    assert made.status == 201
    transfer = made.json
    assert list(transfer.items())[1:-1] == [
        ("source_wallet_id", ada),
        ("destination_wallet_id", bob),
        ("amount", 2_500),
        ("currency", "USD"),
        ("kind", "transfer"),
        ("status", "posted"),
        ("reference", "rent for June"),
        ("metadata", metadata),
        ("source_version", 2),
        ("source_balance_after", 7_500),
    ]
    assert list(transfer["metadata"]) == list(metadata)
    assert_is_id(transfer["id"])
    time_of(transfer["created_at"])
    assert made.headers["Location"] == f"/transfers/{transfer['id']}"
    assert (await api.get(made.headers["Location"])).body == made.body
    capitals = f"/transfers/{transfer['id'].upper()}"
    assert (await api.get(capitals)).body == made.body


async def test_transfers_of_a_wallet_include_incoming_and_outgoing_ones(api: Api) -> None:
    ada, bob, eve = await api.wallet(10), await api.wallet(10), await api.wallet(10)
    there = await api.transfer(ada, bob, 1)
    await api.transfer(ada, eve, 1)
    back = await api.transfer(bob, ada, 1)
    page = (await api.get(f"/transfers?wallet_id={bob.upper()}")).json
    assert page["data"][:2] == [back.json, there.json]
    [deposit] = page["data"][2:]
    assert deposit["source_wallet_id"] == await api.funding_wallet()


async def test_a_refused_transfer_names_the_reason_and_moves_nothing(
    api: Api, database: Database
) -> None:
    ada, bob = await api.wallet(100, overdraft_limit=20), await api.wallet()
    euro, frozen, closed = await api.wallet(currency="EUR"), await api.wallet(9), await api.wallet()
    await api.post(f"/wallets/{frozen}/freeze")
    await api.post(f"/wallets/{closed}/close")
    before = await footprint(database)
    refusals = [
        (transfer_body(ada, bob, 121), 422, "insufficient-funds"),
        (transfer_body(ada, ada), 422, "same-wallet"),
        (transfer_body(ada, ada.upper()), 422, "same-wallet"),
        (transfer_body(ada, euro), 422, "currency-mismatch"),
        (transfer_body(ada, bob, currency="EUR"), 422, "currency-mismatch"),
        (transfer_body(ada, bob, currency="ZZZ"), 422, "currency-mismatch"),
        (transfer_body(UNKNOWN_ID, bob), 404, "wallet-not-found"),
        (transfer_body(ada, UNKNOWN_ID), 404, "wallet-not-found"),
        (transfer_body(frozen, bob), 422, "wallet-frozen"),
        (transfer_body(closed, bob), 422, "wallet-closed"),
        (transfer_body(ada, closed), 422, "wallet-closed"),
    ]
    for number, (body, status, code) in enumerate(refusals):
        refused = await api.post("/transfers", body, key=f"refused {number}")
        assert (refused.status, refused.code) == (status, code), body
        assert refused.json["type"] == f"/problems/{code}"
        assert refused.json["instance"] == "/transfers"
        assert refused.json["request_id"] == refused.headers["X-Request-Id"]
        assert refused.json["detail"]
        # A dry run has the same refusal.
        dry = await api.post("/transfers?dry_run=true", body)
        own = {"request_id": refused.json["request_id"]}
        assert (dry.status, dry.json | own) == (status, refused.json)
    assert await footprint(database) == before | {"outcomes": before["outcomes"] + len(refusals)}


async def test_a_dry_run_decides_and_writes_nothing(api: Api, database: Database) -> None:
    ada, bob = await api.wallet(100), await api.wallet()
    before = await footprint(database)
    body = transfer_body(ada, bob, 30, reference="rent", metadata={"n": 1})
    dry = await api.post("/transfers?dry_run=true", body)
    assert dry.status == 200
    assert "Location" not in dry.headers
    assert await footprint(database) == before
    real = await api.post("/transfers?dry_run=false", body, key="rent")
    assert real.status == 201
    assert list(dry.json) == list(real.json)
    own = {name: dry.json[name] for name in ("id", "status", "created_at")}
    assert dry.json == real.json | own
    assert (own["id"], own["status"]) == (None, "dry_run")
    time_of(own["created_at"])


async def test_a_dry_run_ignores_the_key(api: Api) -> None:
    ada, bob = await api.wallet(100), await api.wallet()
    body = transfer_body(ada, bob, 30)
    for key in ("rent", "", "x" * 256):
        dry = await api.post("/transfers?dry_run=true", body, headers={"Idempotency-Key": key})
        assert (dry.status, dry.json["status"]) == (200, "dry_run")
    assert (await api.get("/idempotency-keys/rent")).code == "not-found"
    made = await api.transfer(ada, bob, 31, key="rent")
    assert made.status == 201
    again = await api.post("/transfers?dry_run=true", body, key="rent")
    assert (again.status, "Idempotent-Replayed" in again.headers) == (200, False)
    missing = await api.post("/transfers?dry_run=false", body)
    assert missing.code == "idempotency-key-missing"


async def test_a_transfer_moves_exactly_its_amount_at_any_size(
    api: Api, database: Database
) -> None:
    ada, bob = await api.wallet(), await api.wallet()
    # Sums of such amounts are no longer exact as floating-point numbers.
    await set_balance(database, ada, 2**62)
    for amount in (AMOUNT_MAX, 1, AMOUNT_MAX, 3):
        assert (await api.transfer(ada, bob, amount)).status == 201
    moved = 2 * AMOUNT_MAX + 4
    assert await api.balance(bob) == moved
    assert await api.balance(ada) == 2**62 - moved
