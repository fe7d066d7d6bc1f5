"""Wallets and currencies, as clients see them; reading one has a file of its own."""

import pytest

from tests.conftest import Database
from tests.support.api import Api
from tests.support.contract import UNKNOWN_ID, assert_is_id, footprint, time_of

_FIELDS = [
    "id",
    "user_id",
    "currency",
    "balance",
    "held",
    "available",
    "overdraft_limit",
    "status",
    "version",
    "updated_at",
    "created_at",
    "metadata",
]


async def test_a_new_wallet_is_shown_as_it_is_read(api: Api) -> None:
    user = await api.user()
    body = {
        "user_id": user,
        "currency": "USD",
        "initial_balance": 500,
        "overdraft_limit": 70,
        "metadata": {"purpose": "rent"},
    }
    created = await api.post("/wallets", body, key="wallet")
    assert created.status == 201
    wallet = created.json
    assert list(wallet) == _FIELDS
    assert_is_id(wallet["id"])
    assert time_of(wallet["created_at"]) == time_of(wallet["updated_at"])
    assert {name: wallet[name] for name in _FIELDS[1:9]} == {
        "user_id": user,
        "currency": "USD",
        "balance": 500,
        "held": 0,
        "available": 570,
        "overdraft_limit": 70,
        "status": "active",
        "version": 1,
    }
    assert wallet["metadata"] == {"purpose": "rent"}
    assert created.headers["Location"] == f"/wallets/{wallet['id']}"
    assert (await api.get(created.headers["Location"])).body == created.body


async def test_a_wallet_needs_a_user_that_exists(api: Api, database: Database) -> None:
    before = await footprint(database)
    body = {"user_id": UNKNOWN_ID, "currency": "USD"}
    assert (await api.post("/wallets", body)).code == "user-not-found"
    # With a key only the refusal is stored.
    paid = await api.post("/wallets", body | {"initial_balance": 5}, key="wallet")
    assert paid.code == "user-not-found"
    assert await footprint(database) == before | {"outcomes": 1}


async def test_a_wallet_needs_a_currency_that_has_minor_units(
    api: Api, subtests: pytest.Subtests
) -> None:
    for currency in ("ZZZ", "XXX", "XAU", "XTS"):
        with subtests.test(currency=currency):
            user = await api.user()
            refused = await api.post("/wallets", {"user_id": user, "currency": currency})
            assert refused.code == "invalid-request"
            assert [error["pointer"] for error in refused.json["errors"]] == ["/currency"]


async def test_currencies_have_exponents_and_funding_wallets(api: Api) -> None:
    page = (await api.get("/currencies")).json
    assert (page["has_more"], page["next_cursor"]) == (False, None)
    currencies = {each["code"]: each for each in page["data"]}
    assert {code: currencies[code]["exponent"] for code in ("USD", "EUR", "JPY", "KWD")} == {
        "USD": 2,
        "EUR": 2,
        "JPY": 0,
        "KWD": 3,
    }
    assert list(currencies) == sorted(currencies)
    assert len({each["funding_wallet_id"] for each in page["data"]}) == len(page["data"])
    funding = (await api.get(f"/wallets/{currencies['KWD']['funding_wallet_id']}")).json
    assert list(funding) == _FIELDS
    assert (funding["currency"], funding["user_id"], funding["available"]) == ("KWD", None, None)
    assert (funding["status"], funding["balance"]) == ("active", 0)


async def test_a_patch_changes_only_the_fields_that_it_names(api: Api) -> None:
    id = await api.wallet(100, metadata={"a": 1})
    wallet = (await api.get(f"/wallets/{id}")).json
    for patch, version, limit, metadata in (
        ({}, 1, 0, {"a": 1}),
        ({"metadata": {"b": 2}}, 2, 0, {"b": 2}),
        ({"overdraft_limit": 50}, 3, 50, {"b": 2}),
        ({"overdraft_limit": 50, "metadata": {"b": 2}}, 3, 50, {"b": 2}),
        ({"overdraft_limit": 0, "metadata": {}}, 4, 0, {}),
    ):
        changed = await api.patch(f"/wallets/{id}", patch)
        assert changed.status == 200
        assert changed.json == wallet | {
            "version": version,
            "overdraft_limit": limit,
            "available": 100 + limit,
            "metadata": metadata,
            "updated_at": changed.json["updated_at"],
        }
        assert time_of(changed.json["updated_at"]) >= time_of(wallet["updated_at"])
        assert (await api.get(f"/wallets/{id}")).body == changed.body


async def test_an_overdraft_limit_cannot_be_lowered_below_its_use(api: Api) -> None:
    ada, bob = await api.wallet(overdraft_limit=100), await api.wallet()
    assert (await api.transfer(ada, bob, 60)).status == 201
    refused = await api.patch(f"/wallets/{ada}", {"overdraft_limit": 59})
    assert refused.code == "insufficient-funds"
    facts = [refused.json[name] for name in ("available", "shortfall", "currency")]
    assert facts == [40, 1, "USD"]
    assert (await api.patch(f"/wallets/{ada}", {"overdraft_limit": 60})).json["available"] == 0


async def test_a_funding_wallet_has_no_limit(api: Api) -> None:
    funding = await api.funding_wallet()
    assert (await api.patch(f"/wallets/{funding}", {"overdraft_limit": 5})).code == "forbidden"


async def test_wallets_are_listed_by_owner_and_currency(api: Api) -> None:
    ada, bob = await api.user(), await api.user()
    made: dict[tuple[str, str], str] = {}
    for owner, currency in ((ada, "USD"), (ada, "EUR"), (bob, "EUR")):
        reply = await api.post("/wallets", {"user_id": owner, "currency": currency})
        made[owner, currency] = reply.json["id"]

    async def listed(query: str) -> set[str]:
        reply = await api.get(f"/wallets?limit=200&{query}")
        assert reply.status == 200
        return {wallet["id"] for wallet in reply.json["data"]}

    assert await listed(f"user_id={ada}") == {made[ada, "USD"], made[ada, "EUR"]}
    assert await listed(f"user_id={bob.upper()}") == {made[bob, "EUR"]}
    assert await listed(f"user_id={ada}&currency=EUR") == {made[ada, "EUR"]}
    assert await listed(f"user_id={UNKNOWN_ID}") == set()
    euros = await listed("currency=EUR")
    # The third wallet in euros is the funding wallet.
    assert euros - {made[ada, "EUR"], made[bob, "EUR"]} == {await api.funding_wallet("EUR")}
    [shown] = (await api.get(f"/wallets?user_id={bob}")).json["data"]
    assert shown == (await api.get(f"/wallets/{made[bob, 'EUR']}")).json
