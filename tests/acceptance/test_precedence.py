"""The order of the checks: a request that fails several is refused by the first of them."""

from typing import Any, NamedTuple

import pytest

from tests.conftest import Database, Replicas
from tests.support.api import Api, Reply
from tests.support.contract import (
    AMOUNT_MAX,
    BALANCE_MAX,
    UNKNOWN_ID,
    ApiWithKey,
    api_key,
    set_balance,
    transfer_body,
)

_BAD_TOKEN = {"Authorization": "Bearer td_nobody_0123456789abcdef"}
_NO_KEY = {"Idempotency-Key": ""}


async def frozen(api: Api, wallet: str) -> str:
    """The wallet, after a freeze."""
    assert (await api.post(f"/wallets/{wallet}/freeze")).status == 200
    return wallet


async def closed(api: Api, wallet: str) -> str:
    """The wallet, after a close."""
    assert (await api.post(f"/wallets/{wallet}/close")).status == 200
    return wallet


class Callers(NamedTuple):
    """Clients of two replicas: one without authentication, one that wants keys."""

    admin: Api
    locked: Api
    reader: Api
    payer: Api
    writer: Api
    boss: Api


@pytest.fixture
async def callers(replicas: Replicas, database: Database) -> Callers:
    """Each with its own key, except the first two."""
    admin, locked = await replicas.start(), await replicas.start(auth="on")
    scopes = ("wallets:read", "transfers:write", "wallets:write", "admin")
    names = ("reader", "payer", "writer", "boss")
    return Callers(
        admin,
        locked,
        *[
            ApiWithKey(locked, await api_key(database, name, scope))
            for name, scope in zip(names, scopes, strict=True)
        ],
    )


async def test_the_checks_of_a_transfer(callers: Callers, database: Database) -> None:
    admin, locked, reader, payer = callers.admin, callers.locked, callers.reader, callers.payer
    rich, poor, full = await admin.wallet(AMOUNT_MAX), await admin.wallet(), await admin.wallet()
    ice, iced_euro = await frozen(admin, await admin.wallet()), await admin.wallet(currency="EUR")
    await frozen(admin, iced_euro)
    gone, gone_euro = await admin.wallet(), await admin.wallet(currency="EUR")
    await closed(admin, gone)
    await closed(admin, gone_euro)
    await set_balance(database, full, BALANCE_MAX)
    used = await payer.transfer(rich, poor, 1, key="used")
    assert used.status == 201
    await payer.transfer(poor, rich, 1)

    funding = await admin.funding_wallet()
    shapeless: dict[str, object] = transfer_body(UNKNOWN_ID, UNKNOWN_ID, 0)
    same = transfer_body(UNKNOWN_ID, UNKNOWN_ID, 9, currency="EUR")

    async def sent(by: Api, body: dict[str, object], **headers: str) -> Reply:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await by.post("/transfers", body, headers={"Idempotency-Key": "new"} | named)

    replies = [
        ("unauthenticated", await locked.post("/transfers", shapeless, headers=_BAD_TOKEN)),
        ("unauthenticated", await locked.post("/transfers", shapeless)),
        ("forbidden", await reader.post("/transfers", shapeless, headers=_NO_KEY)),
        # Only the body shows that the source is a funding wallet, which needs the scope admin.
        ("invalid-request", await payer.post("/transfers", transfer_body(funding, funding, 0))),
        ("forbidden", await payer.post("/transfers", transfer_body(funding, funding))),
        (
            "forbidden",
            await sent(payer, transfer_body(UNKNOWN_ID, funding), Idempotency_Key="used"),
        ),
        ("invalid-request", await payer.post("/transfers", shapeless)),
        ("invalid-request", await payer.post("/transfers", shapeless, headers=_NO_KEY)),
        ("invalid-request", await sent(payer, shapeless, Idempotency_Key="used")),
        ("idempotency-key-missing", await payer.post("/transfers", same)),
        ("idempotency-key-invalid", await payer.post("/transfers", same, headers=_NO_KEY)),
        ("idempotency-key-reused", await sent(payer, same, Idempotency_Key="used")),
    ]
    ladder = [
        ("same-wallet", same),
        ("wallet-not-found", transfer_body(UNKNOWN_ID, UNKNOWN_ID[:-1] + "1", 9, currency="EUR")),
        ("wallet-not-found", transfer_body(ice, UNKNOWN_ID, 9, currency="EUR")),
        ("currency-mismatch", transfer_body(ice, gone_euro, 9)),
        ("currency-mismatch", transfer_body(iced_euro, gone, 9)),
        ("currency-mismatch", transfer_body(ice, gone, 9, currency="EUR")),
        ("wallet-frozen", transfer_body(ice, gone, 9)),
        ("wallet-closed", transfer_body(gone, ice, 9)),
        ("wallet-closed", transfer_body(poor, gone, 9)),
        ("insufficient-funds", transfer_body(poor, full, 9)),
        ("balance-out-of-range", transfer_body(rich, full, 9)),
    ]
    for number, (code, body) in enumerate(ladder):
        replies.append((code, await payer.post("/transfers", body, key=f"step {number}")))
    assert [reply.code for _, reply in replies] == [code for code, _ in replies]
    # The source is looked up first, so the problem names the source.
    assert UNKNOWN_ID in replies[13][1].json["detail"]


async def test_the_checks_of_a_reversal(callers: Callers, database: Database) -> None:
    admin, locked, reader, payer = callers.admin, callers.locked, callers.reader, callers.payer
    spender = await admin.wallet()

    async def paid(*, spent: bool) -> tuple[str, str, str]:
        """Source, destination and id of a transfer of 60; the destination may have spent it."""
        source, destination = await admin.wallet(60), await admin.wallet()
        made = await admin.transfer(source, destination, 60)
        if spent:
            await admin.transfer(destination, spender, 60)
        return source, destination, made.json["id"]

    nothing = f"/transfers/{UNKNOWN_ID}/reversal"
    used: dict[str, Any] = {"key": "used"}
    assert (await payer.post(nothing, {"amount": 7}, **used)).code == "transfer-not-found"
    replies = [
        ("unauthenticated", await locked.post(nothing, {"amount": 0}, headers=_BAD_TOKEN)),
        ("forbidden", await reader.post(nothing, {"amount": 0})),
        ("invalid-request", await payer.post(nothing, {"amount": 0})),
        ("invalid-request", await payer.post(nothing, {"amount": 0}, headers=_NO_KEY)),
        ("invalid-request", await payer.post(nothing, {"amount": 0}, **used)),
        ("idempotency-key-missing", await payer.post(nothing)),
        ("idempotency-key-invalid", await payer.post(nothing, headers=_NO_KEY)),
        ("idempotency-key-reused", await payer.post(nothing, {"amount": 9}, **used)),
        ("transfer-not-found", await payer.post(nothing, {"amount": AMOUNT_MAX}, key="found")),
    ]
    # The reversal of a reversal would be paid by `source`, which is frozen, to a closed wallet.
    source, destination, original = await paid(spent=False)
    back = (await admin.post(f"/transfers/{original}/reversal", key="back")).json["id"]
    await frozen(admin, source)
    await closed(admin, destination)
    too_much = {"amount": AMOUNT_MAX}
    reply = await payer.post(f"/transfers/{back}/reversal", too_much, key="reversible")
    replies.append(("not-reversible", reply))
    # From a frozen and empty wallet to a closed one.
    source, destination, original = await paid(spent=True)
    await frozen(admin, destination)
    await closed(admin, source)
    path = f"/transfers/{original}/reversal"
    replies.append(("reversal-exceeds-transfer", await payer.post(path, {"amount": 61}, key="61")))
    replies.append(("wallet-frozen", await payer.post(path, key="source status")))
    await admin.post(f"/wallets/{destination}/unfreeze")
    replies.append(("wallet-closed", await payer.post(path, key="destination status")))
    # From an empty wallet to one that cannot hold more.
    source, destination, original = await paid(spent=True)
    path = f"/transfers/{original}/reversal"
    await set_balance(database, source, BALANCE_MAX)
    replies.append(("insufficient-funds", await payer.post(path, key="funds")))
    await admin.transfer(await admin.wallet(60), destination, 60)
    replies.append(("balance-out-of-range", await payer.post(path, key="range")))
    assert [reply.code for _, reply in replies] == [code for code, _ in replies]


async def test_the_checks_of_freeze_and_close(callers: Callers, database: Database) -> None:
    admin, locked, reader, writer = callers.admin, callers.locked, callers.reader, callers.writer
    full = await frozen(admin, await admin.wallet(5))
    gone = await closed(admin, await admin.wallet())
    funding = await admin.funding_wallet()
    await writer.post("/users", {}, key="used")
    for verb in ("freeze", "close"):
        nothing = f"/wallets/{UNKNOWN_ID}/{verb}"
        wrong = {"amount": 1}
        replies = [
            ("unauthenticated", await locked.post(nothing, wrong, headers=_BAD_TOKEN)),
            ("forbidden", await reader.post(nothing, wrong, headers=_NO_KEY)),
            ("invalid-request", await writer.post(nothing, wrong, headers=_NO_KEY)),
            ("invalid-request", await writer.post(nothing, wrong, key="used")),
            ("idempotency-key-invalid", await writer.post(nothing, headers=_NO_KEY)),
            ("idempotency-key-reused", await writer.post(nothing, key="used")),
            ("wallet-not-found", await writer.post(nothing, key=f"{verb} nothing")),
            # That the wallet is a funding wallet is checked first: no client may close one.
            ("forbidden", await writer.post(f"/wallets/{funding}/{verb}", key=f"{verb} funds")),
        ]
        assert [reply.code for _, reply in replies] == [code for code, _ in replies], verb
    assert await admin.balance(funding) == -5
    # The status is checked before the balance: already the wanted one, or the wallet is not empty.
    assert (await writer.post(f"/wallets/{gone}/freeze")).code == "wallet-closed"
    assert (await writer.post(f"/wallets/{gone}/close")).status == 200
    assert (await writer.post(f"/wallets/{full}/freeze")).status == 200
    assert (await writer.post(f"/wallets/{full}/close")).code == "wallet-not-empty"


async def test_the_checks_of_a_new_wallet(callers: Callers, database: Database) -> None:
    admin, locked, reader, writer = callers.admin, callers.locked, callers.reader, callers.writer
    boss = callers.boss
    await boss.post("/users", {}, key="used")
    lost: dict[str, object] = {"user_id": UNKNOWN_ID, "currency": "USD", "initial_balance": 5}
    wrong = lost | {"currency": "ZZZ"}
    funding = await admin.funding_wallet()
    await set_balance(database, funding, -(2**63))
    lucky = lost | {"user_id": await admin.user()}
    replies = [
        ("unauthenticated", await locked.post("/wallets", wrong, headers=_BAD_TOKEN)),
        ("forbidden", await reader.post("/wallets", wrong)),
        ("invalid-request", await writer.post("/wallets", wrong)),
        ("forbidden", await writer.post("/wallets", lost)),
        ("idempotency-key-missing", await boss.post("/wallets", lost)),
        ("idempotency-key-invalid", await boss.post("/wallets", lost, headers=_NO_KEY)),
        ("idempotency-key-reused", await boss.post("/wallets", lost, key="used")),
        ("user-not-found", await boss.post("/wallets", lost, key="lost")),
        ("balance-out-of-range", await boss.post("/wallets", lucky, key="lucky")),
    ]
    assert [reply.code for _, reply in replies] == [code for code, _ in replies]
