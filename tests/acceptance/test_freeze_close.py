"""Freeze, unfreeze and close."""

from collections.abc import AsyncIterator

import pytest

from tests.conftest import Database
from tests.support.api import Api
from tests.support.contract import footprint

_VERBS = ("freeze", "unfreeze", "close")


async def test_a_frozen_wallet_receives_and_does_not_pay(api: Api) -> None:
    ada, bob = await api.wallet(100), await api.wallet(100)
    frozen = await api.post(f"/wallets/{ada}/freeze")
    assert frozen.status == 200
    assert (frozen.json["status"], frozen.json["version"]) == ("frozen", 2)
    assert (await api.get(f"/wallets/{ada}")).body == frozen.body
    assert (await api.transfer(ada, bob, 1)).code == "wallet-frozen"
    assert (await api.transfer(bob, ada, 1)).status == 201
    thawed = await api.post(f"/wallets/{ada}/unfreeze")
    assert (thawed.json["status"], thawed.json["version"]) == ("active", 4)
    assert (await api.transfer(ada, bob, 101)).status == 201


async def test_a_closed_wallet_takes_part_in_nothing(api: Api) -> None:
    ada, bob = await api.wallet(overdraft_limit=100), await api.wallet(100)
    closed = await api.post(f"/wallets/{ada}/close")
    assert (closed.status, closed.json["status"]) == (200, "closed")
    assert (await api.get(f"/wallets/{ada}")).body == closed.body
    refused = [
        await api.transfer(ada, bob, 1),
        await api.transfer(bob, ada, 1),
        await api.post(f"/wallets/{ada}/freeze"),
        await api.post(f"/wallets/{ada}/unfreeze"),
        await api.patch(f"/wallets/{ada}", {"metadata": {"a": 1}}),
        await api.patch(f"/wallets/{ada}", {"overdraft_limit": 5}),
    ]
    assert [reply.code for reply in refused] == ["wallet-closed"] * len(refused)
    assert (await api.get(f"/wallets/{ada}")).body == closed.body


async def test_only_an_empty_wallet_can_be_closed(api: Api) -> None:
    ada, bob = await api.wallet(1), await api.wallet(overdraft_limit=1)
    other = await api.wallet(1)
    for wallet, balance in ((ada, 1), (bob, -1)):
        if balance < 0:
            await api.transfer(wallet, other, 1)
        refused = await api.post(f"/wallets/{wallet}/close")
        assert (refused.status, refused.code) == (409, "wallet-not-empty")
        facts = {name: refused.json[name] for name in ("balance", "held", "currency")}
        assert facts == {"balance": balance, "held": 0, "currency": "USD"}
        assert (await api.get(f"/wallets/{wallet}")).json["status"] == "active"
    await api.transfer(ada, bob, 1)
    for wallet in (ada, bob):
        assert (await api.post(f"/wallets/{wallet}/close")).status == 200


async def test_a_frozen_wallet_can_be_closed(api: Api) -> None:
    ada = await api.wallet()
    await api.post(f"/wallets/{ada}/freeze")
    assert (await api.post(f"/wallets/{ada}/close")).json["status"] == "closed"


@pytest.mark.parametrize("verb", _VERBS)
async def test_a_repeated_change_of_status_changes_nothing(
    api: Api, database: Database, verb: str
) -> None:
    ada = await api.wallet()
    first = await api.post(f"/wallets/{ada}/{verb}")
    assert first.status == 200
    before = await footprint(database)
    for _ in range(3):
        again = await api.post(f"/wallets/{ada}/{verb}")
        assert (again.status, again.body) == (200, first.body)
        assert "Idempotent-Replayed" not in again.headers
    assert await footprint(database) == before


@pytest.mark.parametrize("verb", _VERBS)
async def test_a_funding_wallet_can_be_neither_frozen_nor_closed(
    api: Api, database: Database, verb: str
) -> None:
    funding = await api.funding_wallet("JPY")
    before = await footprint(database)
    for id in (funding, funding.upper()):
        assert (await api.post(f"/wallets/{id}/{verb}", key=verb)).code == "forbidden"
    assert await footprint(database) == before
    assert (await api.get(f"/wallets/{funding}")).json["status"] == "active"


async def test_a_body_may_be_empty(api: Api) -> None:
    async def nothing() -> AsyncIterator[bytes]:
        yield b""

    ada = await api.wallet()
    for body in (b"", b"{}", b" {\n} ", nothing):
        for verb in ("freeze", "unfreeze"):
            data, headers = body() if callable(body) else body, {"Content-Type": "application/json"}
            url = f"{api.url}/wallets/{ada}/{verb}"
            async with api.session.post(url, data=data, headers=headers) as response:
                assert response.status == 200
