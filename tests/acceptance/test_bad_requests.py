"""Invalid queries, media types, methods and addresses: refused without an effect."""

import re
from typing import Any

import orjson
import pytest

from tests.support.api import Api
from tests.support.contract import UNKNOWN_ID, Target, assert_invalid, exactly

_TIME = "2024-01-01T00:00:00Z"
# The last parameter of the query is at fault, with each of the values.
_QUERIES = {
    "GET /users?page=": ["2"],
    "GET /users?Limit=": ["2"],
    "GET /users?limit=": [
        *("0", "-1", "201", "", "1.0", "1e1", "1_0", "%201", "%2B1", "%D9%A3", "9" * 400),
        "1&limit=1",
    ],
    "GET /wallets?currency=": ["usd"],
    "GET /wallets?user_id=": ["ada", ""],
    "GET /transfers?wallet_id=": ["%00"],
    "GET /currencies?limit=": ["1"],
    "GET /users/{user}?fields=": ["name"],
    "GET /transfers/{paid}?x=": [""],
    "GET /idempotency-keys/rent?x=": ["1"],
    "GET /wallets/{ada}?min_version=": ["-1", "1.0", str(2**63)],
    f"GET /wallets/{{ada}}?at={_TIME}&min_version=": ["1"],
    "GET /wallets/{ada}?at=": ["0", "yesterday", "2024-01-01", "", f"{_TIME}&at={_TIME}"],
    "GET /wallets/{ada}/statement?from=": ["now"],
    "GET /wallets/{ada}/statement?to=": ["1", "infinity"],
    "GET /wallets/{ada}/statement?from_=": [_TIME],
    "GET /wallets/{ada}/events?from=": ["1"],
    "GET /webhooks?wallet_id=": ["{ada}"],
    f"GET /webhooks/{UNKNOWN_ID}?x=": ["1"],
    f"GET /webhooks/{UNKNOWN_ID}/deliveries?status=": ["gone"],
    f"GET /webhooks/{UNKNOWN_ID}/deliveries?limit=": ["0"],
    "POST /users?x=": ["1"],
    "PATCH /users/{user}?x=": ["1"],
    "POST /wallets?x=": ["1"],
    "PATCH /wallets/{ada}?x=": ["1"],
    "POST /wallets/{ada}/freeze?x=": ["1"],
    "POST /transfers?x=": ["1"],
    "POST /transfers?dry_run=": [
        *("yes", "1", "on", "True", "", "2", "null", "true&dry_run=true"),
    ],
    "POST /transfers/{paid}/reversal?dry_run=": ["true"],
    "POST /webhooks?x=": ["1"],
    f"DELETE /webhooks/{UNKNOWN_ID}?x=": ["1"],
}


async def test_an_invalid_query_is_refused(target: Target, subtests: pytest.Subtests) -> None:
    known = {"user": target.user, "ada": target.ada, "paid": target.paid}
    for operation, values in _QUERIES.items():
        pointer = "/" + operation.removesuffix("=").rpartition("?")[2].rpartition("&")[2]
        for value in values:
            with subtests.test(operation, value=value[:40]):
                method, path = (operation + value).format(**known).split(" ")
                if method == "GET":
                    reply = await exactly(target.api, method, path)
                else:
                    body = target.body() if path.startswith("/transfers?") else {}
                    reply = await target.api.call(method, path, body, key="bad")
                assert_invalid(reply, pointer)


async def test_a_body_is_uncompressed_json_in_utf_8(
    target: Target, subtests: pytest.Subtests
) -> None:
    for media_type, coding, status in (
        ("text/plain", "identity", 415),
        ("", "identity", 415),
        ("application/problem+json", "identity", 415),
        ("application/x-www-form-urlencoded", "identity", 415),
        ("application/json; charset=latin-1", "identity", 415),
        ("application/json; charset=utf-16", "identity", 415),
        ("application/jsonx", "identity", 415),
        ("application/json", "gzip", 415),
        ("application/json", "br, identity", 415),
        ("application/json;charset=UTF-8", "identity", 200),
        ('application/json; charset="utf-8"', "identity", 200),
        ("Application/JSON", "identity", 200),
        ("application/json; charset=utf8", "identity", 200),
    ):
        with subtests.test(media_type, coding=coding):
            headers = {"Content-Type": media_type, "Content-Encoding": coding}
            raw = orjson.dumps(target.body(reference="ü"))
            reply = await target.api.call(
                "POST", "/transfers?dry_run=true", raw=raw, headers=headers
            )
            assert reply.status == status
            assert status == 200 or reply.code == "unsupported-media-type"
            assert status == 415 or reply.json["reference"] == "ü"
    without = target.api.session.post(
        f"{target.api.url}/users", data=b"{}", skip_auto_headers=["Content-Type"]
    )
    async with without as response:
        assert response.status == 415


# Addresses that are not in the OpenAPI document.
_PAGES = [
    *("/", "/favicon.ico", "/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"),
    *("/problems", "/problems/not-found"),
]


async def test_a_wrong_method_is_refused_with_the_allowed_ones(
    target: Target, document: Any, subtests: pytest.Subtests
) -> None:
    for path in (*document["paths"], *_PAGES):
        allowed = {method.upper() for method in document["paths"].get(path, {"get"})}
        if "GET" in allowed:
            allowed.add("HEAD")
        for method in {"GET", "POST", "PATCH", "PUT", "DELETE", "OPTIONS", "TRACE"} - allowed:
            with subtests.test(method, path=path):
                refused = await target.api.call(method, re.sub(r"{\w+}", UNKNOWN_ID, path))
                assert (refused.status, refused.code) == (405, "method-not-allowed")
                assert refused.headers["Allow"] == ",".join(sorted(allowed))


async def test_an_unknown_path_is_not_found(api: Api, subtests: pytest.Subtests) -> None:
    for path in (
        "/nothing",
        "/Users",
        "/users/",
        "//users",
        "/users//",
        f"/users/{UNKNOWN_ID}/wallets",
        f"/wallets/{UNKNOWN_ID}/thaw",
        f"/wallets/{UNKNOWN_ID}/freeze/",
        "/wallets/a%2Fstatement/b",
        "/users/../users/x/y",
        "/idempotency-keys",
        "/idempotency-keys/",
        "/docs/",
        "/docs/..%2Fschemas.py",
        "/docs/%2e%2e%2fschemas.py",
        "/docs/.html",
        "/docs/nothing.js",
        "/problems/nothing",
        "/problems/",
        "/%00",
        "/%ff",
    ):
        with subtests.test(path=path):
            for method in ("GET", "DELETE"):
                reply = await exactly(api, method, path)
                codes = {(404, "not-found")}
                if path.startswith(("/docs/", "/problems/")) and method == "DELETE":
                    codes.add((405, "method-not-allowed"))
                assert (reply.status, reply.code) in codes
