"""Invalid bodies: the answer names every error, and nothing changes."""

import json
from typing import Any

import orjson
import pytest

from tests.support.api import Api
from tests.support.contract import UNKNOWN_ID, Target, assert_invalid, transfer_body
from transferd.config import Limits

# Method and path of every operation with a body, and a valid body.
_TRANSFER = transfer_body(UNKNOWN_ID, UNKNOWN_ID)
_WALLET = {"user_id": UNKNOWN_ID, "currency": "USD"}
_HOOK = {"url": "https://example.com/", "events": ["*"]}
_WRITES: dict[str, dict[str, Any]] = {
    "POST /users": {},
    "PATCH /users/{user}": {},
    "POST /wallets": _WALLET,
    "PATCH /wallets/{ada}": {},
    "POST /wallets/{ada}/freeze": {},
    "POST /wallets/{ada}/unfreeze": {},
    "POST /wallets/{ada}/close": {},
    "POST /transfers": _TRANSFER,
    "POST /transfers/batch": {"mode": "atomic", "transfers": [_TRANSFER]},
    "POST /transfers/{paid}/reversal": {},
    "POST /webhooks": _HOOK,
    f"PATCH /webhooks/{UNKNOWN_ID}": {},
    f"POST /webhooks/{UNKNOWN_ID}/rotate": {},
    f"POST /webhooks/{UNKNOWN_ID}/deliveries/{UNKNOWN_ID}/redeliver": {},
}
_TEXT = {"Content-Type": "text/plain"}


async def send(target: Target, operation: str, body: object, **headers: str) -> Any:
    """Send bytes, or JSON of other values, to an operation."""
    method, path = operation.split(" ")
    path = path.format(user=target.user, ada=target.ada, paid=target.paid)
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return await target.api.call(method, path, raw=raw, key="bad", headers=headers)


async def test_every_operation_refuses_a_bad_body(
    target: Target, subtests: pytest.Subtests
) -> None:
    for operation, good in _WRITES.items():
        with subtests.test(operation):
            refused = [
                await send(target, operation, b"{"),
                await send(target, operation, orjson.dumps(good), **_TEXT),
                await send(target, operation, b" " * (Limits().body_bytes_max + 1)),
            ]
            assert [(reply.status, reply.code) for reply in refused] == [
                (400, "malformed-json"),
                (415, "unsupported-media-type"),
                # A batch has a larger limit.
                (400, "malformed-json") if "batch" in operation else (413, "body-too-large"),
            ]
            assert_invalid(await send(target, operation, []), "")
            for name, pointer in (("id", "/id"), ("a/b~c", "/a~1b~0c"), ("", "/")):
                assert_invalid(await send(target, operation, good | {name: 1}), pointer)


_NO_JSON = [
    *(b"", b"   ", b"{", b"{'amount': 1}", b'{"amount": 1,}', b'{"amount" 1}', b'{"a": 01}'),
    *(b'{"a": 1.}', b'{"a": +1}', b'{"a": 0x10}', b"{} {}", b"nothing", b"\x00"),
    *(b'{"name": "\xff"}', b'{"name": "\xed\xa0\x80"}', b'{"name": "\xc0\xaf"}'),
    *(b'{"name": "a\x00b"}', b'{"name": "a\nb"}', b'{"name": "\\ud800"}'),
    *(b'{"name": "\\udc00\\ud800"}', b'{"metadata": {"\\ud800": 1}}', b'{"name": "\\x41"}'),
    *(b"\xef\xbb\xbf{}", "{}".encode("utf-16"), b"[" * 10_000),
    b'{"a":' * 4_000 + b"1" + b"}" * 4_000,
    b'{"metadata":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    b'{"amount":' + b"9" * 5_000 + b"}",
]


async def test_a_body_that_is_not_json_is_malformed(
    target: Target, subtests: pytest.Subtests
) -> None:
    for raw in _NO_JSON:
        with subtests.test(raw=raw[:40]):
            reply = await send(target, "POST /users", raw)
            assert (reply.status, reply.code) == (400, "malformed-json")


async def test_a_body_is_an_object(target: Target) -> None:
    for raw in (b"null", b"1", b"true", b'"{}"', b"NaN", b"[{}]"):
        assert_invalid(await send(target, "POST /transfers", raw), "")


# Invalid values as JSON texts, by the kind of the field.
_NO_BALANCE = [
    *("-1", "1.0", "1.5", "1e2", "1E0", "5e-324", "1e400", "true", "false", '"5"', '""', "[5]"),
    *("{}", "NaN", "Infinity", "-Infinity", str(2**53), str(2**63), str(-(2**63) - 1)),
    *(str(2**64 + 1), "1" + "0" * 400),
]
_NO_METADATA = [
    *("[]", "5", '"n"', '[["n","m"]]', '{"n":[]}', '{"n":{}}', '{"n":[1]}', '{"n":{"m":1}}'),
    *('{"n":NaN}', '{"n":Infinity}', '{"n":-Infinity}', '{"n":1e400}'),
    *(f'{{"n":{2**53}}}', f'{{"n":{-(2**53)}}}', f'{{"n":{10**40}}}'),
    *('{"n":"\\u0000"}', '{"n":"a\\u0000b"}', '{"\\u0000":1}'),
    *(f'{{"n":"{"x" * 4089}"}}', f'{{"n":"{"ä" * 2045}"}}'),
    json.dumps({str(n): None for n in range(1_000)}),
]
_NO_TEXT = ['"' + "x" * 141 + '"', '"' + "🂡" * 141 + '"', '"\\u0000"', '"a\\u0000b"']
_NO_TEXT += ["5", "true", '["a"]', '{"a": 1}']
_NO_ID = [
    *(
        "",
        "ada",
        UNKNOWN_ID[:-1],
        f"{UNKNOWN_ID}0",
        f" {UNKNOWN_ID}",
        f"{UNKNOWN_ID}\n",
        UNKNOWN_ID.replace("-", ""),
    ),
    *(
        None,
        5,
        f"{{{UNKNOWN_ID}}}",
        f"urn:uuid:{UNKNOWN_ID}",
        UNKNOWN_ID[:-1] + "٣",
        UNKNOWN_ID[:-1] + "g",
    ),
    *([UNKNOWN_ID], "\x00"),
]
_NO_CURRENCY = ["", "usd", "USDX", "US", "U$D", "USD\n", "ÜSD", None, 840, ["USD"], "\x00\x00\x00"]
# The operations and fields of the kind.
_FIELDS = [
    ("POST /transfers", "amount", ["0", "-0", "null", *_NO_BALANCE]),
    ("POST /transfers/{paid}/reversal", "amount", ["0", "-0", *_NO_BALANCE]),
    ("POST /wallets", "initial_balance", ["null", *_NO_BALANCE]),
    ("POST /wallets", "overdraft_limit", ["null", *_NO_BALANCE]),
    ("PATCH /wallets/{ada}", "overdraft_limit", ["null", *_NO_BALANCE]),
    ("POST /users", "metadata", _NO_METADATA),
    ("PATCH /users/{user}", "metadata", _NO_METADATA),
    ("POST /wallets", "metadata", _NO_METADATA),
    ("PATCH /wallets/{ada}", "metadata", _NO_METADATA),
    ("POST /transfers", "metadata", _NO_METADATA),
    ("POST /transfers/{paid}/reversal", "metadata", _NO_METADATA),
    ("POST /users", "name", _NO_TEXT),
    ("PATCH /users/{user}", "name", _NO_TEXT),
    ("POST /transfers", "reference", _NO_TEXT),
    ("POST /transfers/{paid}/reversal", "reference", _NO_TEXT),
    ("POST /transfers", "source_wallet_id", list(map(json.dumps, _NO_ID))),
    ("POST /transfers", "destination_wallet_id", list(map(json.dumps, _NO_ID))),
    ("POST /wallets", "user_id", list(map(json.dumps, _NO_ID))),
    ("POST /transfers", "currency", list(map(json.dumps, _NO_CURRENCY))),
    ("POST /wallets", "currency", list(map(json.dumps, _NO_CURRENCY))),
]


async def test_each_field_has_its_shape(target: Target, subtests: pytest.Subtests) -> None:
    for operation, name, values in _FIELDS:
        for value in values:
            with subtests.test(operation, field=name, value=value[:60]):
                body = _WRITES[operation] | {name: orjson.Fragment(value)}
                assert_invalid(await send(target, operation, body), f"/{name}")


async def test_every_error_of_a_body_is_named(target: Target) -> None:
    wrong = _TRANSFER | {"amount": 0, "currency": "usd", "fee": 1}
    batch = {"mode": "all", "transfers": [_TRANSFER, wrong, 7]}
    for operation, body, pointers in (
        ("POST /transfers", {}, "/source_wallet_id /destination_wallet_id /amount /currency"),
        ("POST /transfers", wrong, "/amount /currency /fee"),
        ("POST /wallets", {}, "/user_id /currency"),
        ("POST /webhooks", {}, "/url /events"),
        ("POST /transfers/batch", {}, "/mode /transfers"),
        ("POST /transfers/batch", {"mode": "atomic", "transfers": []}, "/transfers"),
        ("POST /transfers/batch", {"mode": "atomic", "transfers": {}}, "/transfers"),
        (
            "POST /transfers/batch",
            {"mode": "atomic", "transfers": [_TRANSFER] * 5_001},
            "/transfers",
        ),
        (
            "POST /transfers/batch",
            batch,
            "/mode /transfers/1/amount /transfers/1/currency /transfers/1/fee /transfers/2",
        ),
    ):
        assert_invalid(await send(target, operation, body), *pointers.split())


async def test_a_value_that_parsers_change_silently_is_refused(
    target: Target, subtests: pytest.Subtests
) -> None:
    # Every operation reads its body in the same way, so one operation is enough for each fault.
    for metadata, code in (
        ('{"a/b":0.1234567890123456789,"ok":0.1}', "number_inexact"),
        ('{"a/b":9007199254740993.0}', "number_inexact"),
        ('{"a/b":1e-400}', "number_inexact"),
        ('{"a/b":0.10000000000000001}', "number_inexact"),
        ('{"a/b":-0}', "negative_zero"),
        ('{"a/b":1,"a/b":1}', "repeated"),
        ('{"a/b":{},"\\u0061/b":1}', "repeated"),
    ):
        with subtests.test(metadata):
            body = _TRANSFER | {"metadata": orjson.Fragment(metadata)}
            refused = await send(target, "POST /transfers", body)
            assert_invalid(refused, "/metadata/a~1b")
            assert refused.json["errors"][0]["code"] == code
            batch = {"mode": "independent", "transfers": [body, body]}
            refused = await send(target, "POST /transfers/batch", batch)
            assert_invalid(refused, "/transfers/0/metadata/a~1b", "/transfers/1/metadata/a~1b")
    for operation, raw, pointers in (
        ("POST /users", b'{"name":"Ada","name":"Eve"}', "/name"),
        ("POST /users", b'{"name":"Ada","\\u006eame":"Ada"}', "/name"),
        ("POST /users", b'{"metadata":{"n":1},"metadata":{}}', "/metadata"),
        ("POST /users", b'{"name":[{"a":1,"a":2}],"name":"Ada"}', "/name /name/0/a"),
        ("POST /transfers/{paid}/reversal", b'{"amount":1,"amount":1}', "/amount"),
        ("POST /webhooks", orjson.dumps(_HOOK)[:-1] + b',"url":"https://example.org/"}', "/url"),
    ):
        with subtests.test(raw=raw):
            assert_invalid(await send(target, operation, raw), *pointers.split())


async def test_a_number_that_is_kept_comes_back_everywhere(api: Api) -> None:
    ada, bob = await api.wallet(100), await api.wallet()
    for number in ("0.1", "-0.0", "1.5e300", "5e-324", "9007199254740991", "0"):
        metadata = orjson.Fragment(f'{{"n":{number}}}')
        paid = await api.transfer(ada, bob, 5, metadata=metadata)
        assert paid.status == 201
        for path in (f"/transfers/{paid.json['id']}", f"/wallets/{ada}/statement"):
            shown = (await api.get(path)).body
            assert f'"metadata":{{"n":{number}}}'.encode() in shown.replace(b"e+300", b"e300")


async def test_only_the_first_of_many_errors_are_listed(target: Target) -> None:
    refused = await send(
        target, "POST /transfers/batch", {"mode": "atomic", "transfers": [{}] * 5_000}
    )
    assert (refused.status, refused.code) == (422, "invalid-request")
    assert len(refused.json["errors"]) == Limits().field_errors_max
