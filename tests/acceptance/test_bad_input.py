"""Whatever a body says, the answer tells what is wrong with it, and nothing has changed."""

import orjson
import pytest

from tests.support.api import Api
from tests.support.contract import transfer_body
from tests.support.target import Target, assert_invalid

_NO_JSON = [
    b"",
    b"   ",
    b"{",
    b"{'amount': 1}",
    b'{"amount": 1,}',
    b'{"amount" 1}',
    b'{"a": 01}',
    b'{"a": 1.}',
    b'{"a": +1}',
    b'{"a": 0x10}',
    b"{} {}",
    b"nothing",
    b"\x00",
    b'{"name": "\xff"}',
    b'{"name": "\xed\xa0\x80"}',
    b'{"name": "\xc0\xaf"}',
    b'{"name": "a\x00b"}',
    b'{"name": "a\nb"}',
    b'{"name": "\\ud800"}',
    b'{"name": "\\udc00\\ud800"}',
    b'{"metadata": {"\\ud800": 1}}',
    b'{"name": "\\x41"}',
    b"\xef\xbb\xbf{}",
    "{}".encode("utf-16"),
    b"[" * 10_000,
    b'{"a":' * 4_000 + b"1" + b"}" * 4_000,
    b'{"metadata":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
]


async def test_what_is_no_json_is_malformed(target: Target) -> None:
    api = target.api
    for raw in _NO_JSON:
        replies = [
            await api.call("POST", "/users", raw=raw),
            await api.call("PATCH", f"/users/{target.user}", raw=raw),
            await api.call("POST", "/wallets", raw=raw),
            await api.call("PATCH", f"/wallets/{target.ada}", raw=raw),
            await target.transfer(raw),
        ]
        if raw:
            reversal = f"/transfers/{target.paid}/reversal"
            replies += [
                await api.call("POST", reversal, raw=raw, key="bad"),
                await api.call("POST", f"/wallets/{target.ada}/freeze", raw=raw, key="bad"),
            ]
        codes = {(reply.status, reply.code) for reply in replies}
        assert codes == {(400, "malformed-json")}, raw[:40]


async def test_a_body_is_an_object(target: Target) -> None:
    for raw in (b"[]", b"null", b"1", b"true", b'"{}"', b"NaN", b"[{}]"):
        for path in (
            "/users",
            "/wallets",
            "/transfers",
            f"/transfers/{target.paid}/reversal",
            f"/wallets/{target.ada}/close",
        ):
            assert_invalid(await target.api.call("POST", path, raw=raw, key="bad"), "")


_NO_AMOUNTS = [
    "0",
    "-0",
    "-1",
    "1.0",
    "1.5",
    "1e2",
    "1E0",
    "5e-324",
    "1e400",
    "true",
    "false",
    "null",
    '"5"',
    '""',
    "[5]",
    "{}",
    "NaN",
    "Infinity",
    "-Infinity",
    str(2**53),
    str(2**63),
    str(-(2**63) - 1),
    str(2**64 + 1),
    "1" + "0" * 400,
]


@pytest.mark.parametrize("amount", _NO_AMOUNTS)
async def test_an_amount_is_a_positive_safe_integer(target: Target, amount: str) -> None:
    assert_invalid(await target.with_text('"amount":5', f'"amount":{amount}'), "/amount")
    reversal = f'{{"amount":{amount}}}'.encode()
    if amount != "null":
        path = f"/transfers/{target.paid}/reversal"
        assert_invalid(await target.api.call("POST", path, raw=reversal, key="bad"), "/amount")
    if amount not in {"0", "-0"}:
        for field in ("initial_balance", "overdraft_limit"):
            raw = f'{{"user_id":"{target.user}","currency":"USD","{field}":{amount}}}'.encode()
            refused = await target.api.call("POST", "/wallets", raw=raw, key="bad")
            assert_invalid(refused, f"/{field}")
        limit = f'{{"overdraft_limit":{amount}}}'.encode()
        path = f"/wallets/{target.ada}"
        assert_invalid(await target.api.call("PATCH", path, raw=limit), "/overdraft_limit")


async def test_a_number_too_long_to_read_is_malformed(target: Target) -> None:
    refused = await target.with_text('"amount":5', f'"amount":{"9" * 5_000}')
    assert (refused.status, refused.code) == (400, "malformed-json")


async def test_metadata_is_flat_and_small_and_exact(target: Target) -> None:
    for metadata in (
        "[]",
        "null",
        "5",
        '"n"',
        '[["n","m"]]',
        '{"n":[]}',
        '{"n":{}}',
        '{"n":[1]}',
        '{"n":{"m":1}}',
        '{"n":NaN}',
        '{"n":Infinity}',
        '{"n":-Infinity}',
        '{"n":1e400}',
        f'{{"n":{2**53}}}',
        f'{{"n":{-(2**53)}}}',
        f'{{"n":{10**40}}}',
        '{"n":"\\u0000"}',
        '{"n":"a\\u0000b"}',
        '{"\\u0000":1}',
        f'{{"n":"{"x" * 4089}"}}',
        f'{{"n":"{"ä" * 2045}"}}',
        f'{{{",".join(f""""{n}":null""" for n in range(1_000))}}}',
    ):
        for path in ("/users", "/wallets", "/transfers"):
            good = orjson.dumps(
                {
                    "/users": {},
                    "/wallets": {"user_id": target.user, "currency": "USD"},
                    "/transfers": target.body(),
                }[path]
            ).decode()
            raw = f'{good[:-1]}{"," if good != "{}" else ""}"metadata":{metadata}}}'.encode()
            assert_invalid(await target.api.call("POST", path, raw=raw, key="bad"), "/metadata")
        for path in (f"/users/{target.user}", f"/wallets/{target.ada}"):
            raw = f'{{"metadata":{metadata}}}'.encode()
            assert_invalid(await target.api.call("PATCH", path, raw=raw), "/metadata")


async def test_text_is_short_and_without_nul(target: Target) -> None:
    for text in ("x" * 141, "🂡" * 141, "\x00", "a\x00b", 5, True, ["a"], {"a": 1}):
        name = {"name": text}
        for reply, pointer in (
            (await target.api.post("/users", name), "/name"),
            (await target.api.patch(f"/users/{target.user}", name), "/name"),
            (await target.transfer(orjson.dumps(target.body(reference=text))), "/reference"),
        ):
            assert_invalid(reply, pointer)


async def test_ids_and_currencies_in_a_body_have_their_shape(target: Target) -> None:
    api, ada = target.api, target.ada
    for id in (
        "",
        "ada",
        ada[:-1],
        f"{ada}0",
        f" {ada}",
        f"{ada}\n",
        ada.replace("-", ""),
        None,
        5,
        f"{{{ada}}}",
        f"urn:uuid:{ada}",
        ada[:-1] + "٣",
        ada[:-1] + "g",
        [ada],
        "\x00",
    ):
        raw = orjson.dumps(target.body(source_wallet_id=id))
        assert_invalid(await target.transfer(raw), "/source_wallet_id")
        raw = orjson.dumps(target.body(destination_wallet_id=id))
        assert_invalid(await target.transfer(raw), "/destination_wallet_id")
        assert_invalid(await api.post("/wallets", {"user_id": id, "currency": "USD"}), "/user_id")
    for currency in (
        "",
        "usd",
        "USDX",
        "US",
        "U$D",
        "USD\n",
        "ÜSD",
        None,
        840,
        ["USD"],
        "\x00\x00\x00",
    ):
        raw = orjson.dumps(target.body(currency=currency))
        assert_invalid(await target.transfer(raw), "/currency")
        wallet = {"user_id": target.user, "currency": currency}
        assert_invalid(await api.post("/wallets", wallet), "/currency")


async def test_unknown_and_missing_fields_are_named_one_by_one(target: Target) -> None:
    api = target.api
    assert_invalid(
        await target.transfer(b"{}"),
        "/source_wallet_id",
        "/destination_wallet_id",
        "/amount",
        "/currency",
    )
    assert_invalid(await api.post("/wallets", {}), "/user_id", "/currency")
    assert_invalid(
        await target.transfer(orjson.dumps(target.body(amount=0, currency="usd", fee=1))),
        "/amount",
        "/currency",
        "/fee",
    )
    for path, body in (
        ("/users", {}),
        ("/wallets", {"user_id": target.user, "currency": "USD"}),
        ("/transfers", target.body()),
        (f"/transfers/{target.paid}/reversal", {}),
        (f"/wallets/{target.ada}/freeze", {}),
        (f"/wallets/{target.ada}/unfreeze", {}),
        (f"/wallets/{target.ada}/close", {}),
    ):
        for name, pointer in (
            ("id", "/id"),
            ("Amount", "/Amount"),
            ("a/b~c", "/a~1b~0c"),
            ("", "/"),
        ):
            assert_invalid(await api.post(path, {**body, name: 1}, key="bad"), pointer)
    for path in (f"/users/{target.user}", f"/wallets/{target.ada}"):
        assert_invalid(await api.patch(path, {"balance": 1}), "/balance")


async def test_of_two_fields_with_one_name_the_last_counts(api: Api) -> None:
    # RFC 8259 section 4 leaves it open; Nginx, which picks the replica, reads them in the same way.
    ada, bob = await api.wallet(100), await api.wallet()
    twice = orjson.dumps(transfer_body(ada, bob, 5))[:-1] + b',"amount":7}'
    made = await api.call("POST", "/transfers", raw=twice, key="rent")
    assert (made.status, made.json["amount"]) == (201, 7)
    again = await api.post("/transfers", transfer_body(ada, bob, 7), key="rent")
    assert again.body == made.body
