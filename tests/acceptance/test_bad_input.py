"""Invalid bodies: the answer names every error, and nothing changes."""

from typing import Any

import orjson
import pytest

from tests.support.api import Api
from tests.support.contract import Target, assert_invalid, transfer_body

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


async def test_a_body_that_is_not_json_is_malformed(target: Target) -> None:
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


async def test_an_amount_is_a_positive_safe_integer(
    target: Target, subtests: pytest.Subtests
) -> None:
    for amount in _NO_AMOUNTS:
        with subtests.test(amount=amount):
            assert_invalid(await target.with_text('"amount":5', f'"amount":{amount}'), "/amount")
            reversal = f'{{"amount":{amount}}}'.encode()
            if amount != "null":
                path = f"/transfers/{target.paid}/reversal"
                assert_invalid(
                    await target.api.call("POST", path, raw=reversal, key="bad"), "/amount"
                )
            if amount not in {"0", "-0"}:
                for field in ("initial_balance", "overdraft_limit"):
                    wallet = {"user_id": target.user, "currency": "USD"}
                    raw = orjson.dumps(wallet | {field: orjson.Fragment(amount)})
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


async def test_text_has_at_most_140_characters_and_no_nul(target: Target) -> None:
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


async def test_every_unknown_and_missing_field_is_named(target: Target) -> None:
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


_CHANGED = [
    ("0.1234567890123456789", "number_inexact"),
    ("9007199254740993.0", "number_inexact"),
    ("1e-400", "number_inexact"),
    ("0.10000000000000001", "number_inexact"),
    ("-0", "negative_zero"),
]


async def test_a_number_in_metadata_is_kept_or_refused(
    target: Target, subtests: pytest.Subtests
) -> None:
    for number, code in _CHANGED:
        with subtests.test(number=number, code=code):
            api = target.api
            bodies: dict[str, dict[str, Any]] = {
                "/users": {},
                "/wallets": {"user_id": target.user, "currency": "USD"},
                "/transfers": target.body(),
                f"/transfers/{target.paid}/reversal": {"amount": 1},
            }
            metadata = f'{{"a/b":{number},"ok":0.1}}'
            refused = [
                await api.call("POST", path, raw=_with(body, metadata), key="bad")
                for path, body in bodies.items()
            ]
            refused += [
                await api.call("PATCH", path, raw=_with({}, metadata))
                for path in (f"/users/{target.user}", f"/wallets/{target.ada}")
            ]
            for reply in refused:
                assert_invalid(reply, "/metadata/a~1b")
                assert reply.json["errors"][0]["code"] == code
            transfer = _with(target.body(), metadata).decode()
            batch = f'{{"mode":"independent","transfers":[{transfer},{transfer}]}}'.encode()
            reply = await api.call("POST", "/transfers/batch", raw=batch, key="bad")
            assert_invalid(reply, "/transfers/0/metadata/a~1b", "/transfers/1/metadata/a~1b")


def _with(body: dict[str, Any], metadata: str) -> bytes:
    return orjson.dumps(body | {"metadata": orjson.Fragment(metadata)})


async def test_a_number_that_is_kept_comes_back_everywhere(
    api: Api, subtests: pytest.Subtests
) -> None:
    for number in ("0.1", "-0.0", "1.5e300", "5e-324", "9007199254740991", "0"):
        with subtests.test(number=number):
            ada, bob = await api.wallet(100), await api.wallet()
            raw = _with(transfer_body(ada, bob, 5), f'{{"n":{number}}}')
            paid = await api.call("POST", "/transfers", raw=raw, key=number)
            assert paid.status == 201
            for path in (f"/transfers/{paid.json['id']}", f"/wallets/{ada}/statement"):
                shown = (await api.get(path)).body
                assert f'"metadata":{{"n":{number}}}'.encode() in shown.replace(b"e+300", b"e300")


async def test_a_repeated_field_is_refused(target: Target) -> None:
    api, good = target.api, orjson.dumps(target.body(metadata={"n": 1})).decode()
    for old, new, pointer in (
        ('"amount":5', '"amount":5,"amount":7', "/amount"),
        ('"amount":5', '"amount":7,"\\u0061mount":5', "/amount"),
        ('"amount":5', '"amount":[{"a":1,"a":2}],"amount":5', "/amount/0/a"),
        ('"n":1', '"n":1,"n":1', "/metadata/n"),
        ('"n":1', '"n":{},"\\u006E":1', "/metadata/n"),
        ('{"n":1}', '{"n":1},"metadata":{}', "/metadata"),
        ('"amount":5', f'"source_wallet_id":"{target.bob}","amount":5', "/source_wallet_id"),
    ):
        assert good.count(old) == 1
        twice = good.replace(old, new)
        pointers = ["/amount", pointer] if pointer == "/amount/0/a" else [pointer]
        assert_invalid(await target.transfer(twice.encode()), *pointers)
        batch = f'{{"mode":"atomic","transfers":[{good},{twice}]}}'.encode()
        refused = await api.call("POST", "/transfers/batch", raw=batch, key="bad")
        assert_invalid(refused, *(f"/transfers/1{each}" for each in pointers))
    hook = '"url":"https://example.com/","events":["*"]'
    for method, path, raw, pointer in (
        ("POST", "/users", '{"name":"Ada","name":"Eve"}', "/name"),
        ("PATCH", f"/users/{target.user}", '{"name":"Ada","name":"Eve"}', "/name"),
        ("PATCH", f"/wallets/{target.ada}", '{"metadata":{},"metadata":{}}', "/metadata"),
        ("POST", f"/transfers/{target.paid}/reversal", '{"amount":1,"amount":1}', "/amount"),
        (
            "POST",
            "/transfers/batch",
            f'{{"mode":"atomic","mode":"independent","transfers":[{good}]}}',
            "/mode",
        ),
        ("POST", "/webhooks", f'{{{hook},"url":"https://example.org/"}}', "/url"),
    ):
        refused = await api.call(method, path, raw=raw.encode(), key="bad")
        assert_invalid(refused, pointer)
        assert refused.json["errors"][0]["code"] == "repeated"
