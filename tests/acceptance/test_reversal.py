"""Reversals return a transfer, whole or in parts, and never more than its amount."""

from uuid import uuid4

import pytest

from tests.conftest import Database
from tests.support.api import Api, Reply
from tests.support.contract import footprint, time_of
from tests.support.outbox import events_in


async def reverse(api: Api, id: str, amount: int | None = None, key: str | None = None) -> Reply:
    """POST /transfers/{id}/reversal, with a new key unless one is given."""
    body = None if amount is None else {"amount": amount}
    return await api.post(f"/transfers/{id}/reversal", body, key=key or str(uuid4()))


async def rent(api: Api, balance: int = 100, amount: int = 60) -> tuple[str, str, str]:
    """A payer, a payee, and the transfer between them."""
    ada, bob = await api.wallet(balance), await api.wallet()
    paid = await api.transfer(ada, bob, amount, reference="rent", metadata={"month": "June"})
    assert paid.status == 201
    return ada, bob, paid.json["id"]


async def test_a_reversal_returns_the_whole_amount(api: Api) -> None:
    ada, bob, paid = await rent(api)
    back = await reverse(api, paid)
    assert back.status == 201
    reversal = back.json
    assert reversal["id"] != paid
    assert list(reversal.items())[1:11] == [
        ("source_wallet_id", bob),
        ("destination_wallet_id", ada),
        ("amount", 60),
        ("currency", "USD"),
        ("kind", "reversal"),
        ("status", "posted"),
        ("reference", "rent"),
        ("metadata", {}),
        ("source_version", 2),
        ("source_balance_after", 0),
    ]
    assert reversal["reverses_transfer_id"] == paid
    time_of(reversal["created_at"])
    assert (await api.balance(ada), await api.balance(bob)) == (100, 0)
    assert back.headers["Location"] == f"/transfers/{reversal['id']}"
    assert (await api.get(back.headers["Location"])).body == back.body


@pytest.mark.parametrize("reference", ["refund 7", ""])
async def test_a_reversal_may_have_a_reference_and_metadata_of_its_own(
    api: Api, database: Database, reference: str
) -> None:
    ada, bob, paid = await rent(api)
    body = {"amount": 5, "reference": reference, "metadata": {"why": "double", "n": 1.0}}
    back = await api.post(f"/transfers/{paid}/reversal", body, key="back")
    assert back.status == 201
    own = [reference, {"why": "double", "n": 1.0}]
    assert [back.json["reference"], back.json["metadata"]] == own
    assert (await api.get(f"/transfers/{back.json['id']}")).body == back.body
    for wallet in (ada, bob):
        entry = (await api.get(f"/wallets/{wallet}/statement")).json["data"][0]
        assert (entry["kind"], entry["transfer_id"]) == ("reversal", back.json["id"])
        assert [entry["reference"], entry["metadata"]] == own
    [*_, event] = await events_in(database)
    assert [event["data"]["reference"], event["data"]["metadata"]] == own


async def test_a_reversal_without_a_reference_has_the_reference_of_the_transfer(api: Api) -> None:
    _, _, paid = await rent(api)
    path = f"/transfers/{paid}/reversal"
    first = await api.post(path, {"amount": 5}, key="back")
    assert (first.json["reference"], first.json["metadata"]) == ("rent", {})
    nothing = {"amount": 5, "reference": None, "metadata": None}
    assert (await api.post(path, nothing, key="back")).body == first.body
    named: list[dict[str, object]] = [{"reference": "rent"}, {"metadata": {"n": 1}}]
    for more in named:
        refused = await api.post(path, {"amount": 5} | more, key="back")
        assert refused.code == "idempotency-key-reused"


async def test_a_reversal_does_not_change_the_original(api: Api) -> None:
    _, _, paid = await rent(api)
    before = await api.get(f"/transfers/{paid}")
    assert "reverses_transfer_id" not in before.json
    await reverse(api, paid)
    assert (await api.get(f"/transfers/{paid}")).body == before.body


@pytest.mark.parametrize("raw", [None, b"", b"{}", b'{"amount": null}'])
async def test_a_reversal_without_an_amount_returns_the_rest(api: Api, raw: bytes | None) -> None:
    _, bob, paid = await rent(api)
    assert (await reverse(api, paid, 25)).json["amount"] == 25
    rest = await api.call("POST", f"/transfers/{paid}/reversal", raw=raw, key="rest")
    assert (rest.status, rest.json["amount"]) == (201, 35)
    assert await api.balance(bob) == 0


async def test_reversals_never_exceed_the_transfer(api: Api, database: Database) -> None:
    ada, bob, paid = await rent(api)
    await api.transfer(await api.wallet(1_000), bob, 1_000)
    left = 60
    for amount in (1, 20, 39):
        too_much = await reverse(api, paid, left + 1)
        assert (too_much.status, too_much.code) == (409, "reversal-exceeds-transfer")
        assert (too_much.json["left"], too_much.json["currency"]) == (left, "USD")
        assert (await reverse(api, paid, amount)).status == 201
        left -= amount
    before = await footprint(database)
    for amount_or_all in (None, 1):
        nothing_left = await reverse(api, paid, amount_or_all)
        assert (nothing_left.code, nothing_left.json["left"]) == ("reversal-exceeds-transfer", 0)
    assert await footprint(database) == before | {"outcomes": before["outcomes"] + 2}
    assert (await api.balance(ada), await api.balance(bob)) == (100, 1_000)


async def test_a_reversal_cannot_be_reversed(api: Api) -> None:
    ada, bob, paid = await rent(api)
    back = (await reverse(api, paid, 10)).json["id"]
    refused = await reverse(api, back)
    assert (refused.status, refused.code) == (409, "not-reversible")
    assert (await api.balance(ada), await api.balance(bob)) == (50, 50)


async def test_a_reversal_needs_the_money_to_be_there(api: Api) -> None:
    ada, bob, paid = await rent(api)
    await api.transfer(bob, await api.wallet(), 50)
    refused = await reverse(api, paid)
    assert refused.code == "insufficient-funds"
    facts = [refused.json[name] for name in ("available", "shortfall", "currency")]
    assert facts == [10, 50, "USD"]
    assert (await reverse(api, paid, 10)).status == 201
    assert await api.balance(ada) == 50


async def test_a_frozen_wallet_receives_reversals_and_pays_none(api: Api) -> None:
    ada, bob, paid = await rent(api)
    await api.post(f"/wallets/{ada}/freeze")
    assert (await reverse(api, paid, 10)).status == 201
    await api.post(f"/wallets/{bob}/freeze")
    assert (await reverse(api, paid, 10)).code == "wallet-frozen"


async def test_an_initial_balance_can_be_reversed(api: Api) -> None:
    ada = await api.wallet(100)
    [deposit] = (await api.get(f"/transfers?wallet_id={ada}")).json["data"]
    back = await reverse(api, deposit["id"], 40)
    assert back.json["destination_wallet_id"] == await api.funding_wallet()
    assert await api.balance(ada) == 60
    assert await api.balance(await api.funding_wallet()) == -60
