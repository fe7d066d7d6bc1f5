"""Bad queries, headers, sizes, methods and addresses; nothing of it has an effect."""

import asyncio
from collections.abc import AsyncIterator

import orjson
import pytest

from tests.support.api import Api
from tests.support.contract import NOBODY, Target, assert_invalid, exactly, transfer_body

_QUERIES = [
    ("/users?page=2", "/page"),
    ("/users?Limit=2", "/Limit"),
    ("/users?%00=2", "/\x00"),
    ("/users?limit=1&limit=1", "/limit"),
    ("/users?limit=0", "/limit"),
    ("/users?limit=-1", "/limit"),
    ("/users?limit=201", "/limit"),
    ("/users?limit=", "/limit"),
    ("/users?limit=1.0", "/limit"),
    ("/users?limit=1e1", "/limit"),
    ("/users?limit=1_0", "/limit"),
    ("/users?limit=%201", "/limit"),
    ("/users?limit=%2B1", "/limit"),
    ("/users?limit=%D9%A3", "/limit"),
    ("/users?limit=" + "9" * 400, "/limit"),
    ("/wallets?currency=usd", "/currency"),
    ("/wallets?user_id=ada", "/user_id"),
    ("/wallets?user_id=", "/user_id"),
    ("/transfers?wallet_id=%00", "/wallet_id"),
    ("/currencies?limit=1", "/limit"),
    ("/users/{user}?fields=name", "/fields"),
    ("/transfers/{paid}?x=", "/x"),
    ("/idempotency-keys/rent?x=1", "/x"),
    ("/wallets/{ada}?min_version=-1", "/min_version"),
    ("/wallets/{ada}?min_version=1.0", "/min_version"),
    ("/wallets/{ada}?min_version=9223372036854775808", "/min_version"),
    ("/wallets/{ada}?at=0", "/at"),
    ("/wallets/{ada}?at=1700000000", "/at"),
    ("/wallets/{ada}?at=yesterday", "/at"),
    ("/wallets/{ada}?at=2024-01-01", "/at"),
    ("/wallets/{ada}?at=2024-01-01T00:00:00", "/at"),
    ("/wallets/{ada}?at=2024-01-01T00:00:00+00:00", "/at"),
    ("/wallets/{ada}?at=2024-02-30T00:00:00Z", "/at"),
    ("/wallets/{ada}?at=2024-01-01T24:00:00Z", "/at"),
    ("/wallets/{ada}?at=0000-01-01T00:00:00Z", "/at"),
    ("/wallets/{ada}?at=", "/at"),
    ("/wallets/{ada}?at=2024-01-01T00:00:00Z&at=2024-01-01T00:00:00Z", "/at"),
    ("/wallets/{ada}/statement?from=now", "/from"),
    ("/wallets/{ada}/statement?to=1", "/to"),
    ("/wallets/{ada}/statement?from_=2024-01-01T00:00:00Z", "/from_"),
    ("/wallets/{ada}/statement?to=infinity", "/to"),
    ("/wallets/{ada}/events?from=1", "/from"),
    ("/webhooks?wallet_id={ada}", "/wallet_id"),
    (f"/webhooks/{NOBODY}?x=1", "/x"),
    (f"/webhooks/{NOBODY}/deliveries?status=gone", "/status"),
    (f"/webhooks/{NOBODY}/deliveries?limit=0", "/limit"),
]


async def test_an_invalid_query_is_refused(target: Target) -> None:
    known = {"user": target.user, "ada": target.ada, "paid": target.paid}
    for query, pointer in _QUERIES:
        assert_invalid(await exactly(target.api, "GET", query.format(**known)), pointer)
    for path in ("/users", "/wallets", f"/wallets/{target.ada}/freeze"):
        assert_invalid(await target.api.post(f"{path}?x=1", {}, key="bad"), "/x")
    assert_invalid(await target.api.patch(f"/users/{target.user}?x=1", {}), "/x")
    assert_invalid(await target.api.post("/webhooks?x=1", {}), "/x")
    assert_invalid(await target.api.call("DELETE", f"/webhooks/{NOBODY}?x=1"), "/x")
    assert_invalid(await target.api.patch(f"/wallets/{target.ada}?x=1", {}), "/x")
    reversal = f"/transfers/{target.paid}/reversal?dry_run=true"
    assert_invalid(await target.api.post(reversal, key="bad"), "/dry_run")
    for query in ("dry_run=", "dry_run=2", "dry_run=null", "dry_run=true&dry_run=true"):
        refused = await target.api.post(f"/transfers?{query}", target.body(), key="bad")
        assert_invalid(refused, "/dry_run")
    assert_invalid(await target.api.post("/transfers?x=1", target.body(), key="bad"), "/x")


async def test_a_body_is_plain_json_in_utf_8(target: Target) -> None:
    good = orjson.dumps(target.body())
    paths = ["/users", "/wallets", "/transfers", f"/transfers/{target.paid}/reversal"]
    paths.append(f"/wallets/{target.ada}/freeze")
    for headers in (
        {"Content-Type": "text/plain"},
        {"Content-Type": ""},
        {"Content-Type": "application/problem+json"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json; charset=latin-1"},
        {"Content-Type": "application/json; charset=utf-16"},
        {"Content-Type": "application/jsonx"},
        {"Content-Encoding": "gzip"},
        {"Content-Encoding": "br, identity"},
    ):
        for path in paths:
            refused = await target.api.call("POST", path, raw=good, key="bad", headers=headers)
            assert (refused.status, refused.code) == (415, "unsupported-media-type"), headers
        user = await target.api.call("PATCH", f"/users/{target.user}", raw=good, headers=headers)
        assert user.code == "unsupported-media-type"
    url = f"{target.api.url}/users"
    async with target.api.session.post(
        url, data=b"{}", skip_auto_headers=["Content-Type"]
    ) as response:
        assert response.status == 415


async def test_the_charset_utf_8_may_be_named(api: Api, subtests: pytest.Subtests) -> None:
    for media_type in (
        "application/json;charset=UTF-8",
        'application/json; charset="utf-8"',
        "Application/JSON",
        "application/json; charset=utf8",
    ):
        with subtests.test(media_type=media_type):
            headers = {"Content-Type": media_type, "Content-Encoding": "identity"}
            made = await api.call("POST", "/users", raw='{"name": "ü"}'.encode(), headers=headers)
            assert (made.status, made.json["name"]) == (201, "ü")


async def test_a_body_has_at_most_32_kib(target: Target) -> None:
    limit = 32 * 1024
    for path in (
        "/users",
        "/wallets",
        "/transfers",
        f"/transfers/{target.paid}/reversal",
        f"/wallets/{target.ada}/freeze",
    ):
        refused = await target.api.call("POST", path, raw=b" " * (limit + 1), key="bad")
        assert (refused.status, refused.code) == (413, "body-too-large"), path
        fits = await target.api.call("POST", path, raw=b" " * (limit - 3) + b"[1]", key="bad")
        assert_invalid(fits, "")

    async def trickle() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b" " * 1024

    async with target.api.session.post(
        f"{target.api.url}/transfers", data=trickle(), headers={"Content-Type": "application/json"}
    ) as response:
        assert response.request_info.headers["Transfer-Encoding"] == "chunked"
        assert response.status == 413


_ALLOWED = {
    "/users": "GET,HEAD,POST",
    "/users/{user}": "GET,HEAD,PATCH",
    "/currencies": "GET,HEAD",
    "/wallets": "GET,HEAD,POST",
    "/wallets/{ada}": "GET,HEAD,PATCH",
    "/wallets/{ada}/statement": "GET,HEAD",
    "/wallets/{ada}/freeze": "POST",
    "/wallets/{ada}/unfreeze": "POST",
    "/wallets/{ada}/close": "POST",
    "/transfers": "GET,HEAD,POST",
    "/transfers/{paid}": "GET,HEAD",
    "/transfers/{paid}/reversal": "POST",
    "/idempotency-keys/a/b": "GET,HEAD",
    "/wallets/{ada}/events": "GET,HEAD",
    "/webhooks": "GET,HEAD,POST",
    f"/webhooks/{NOBODY}": "DELETE,GET,HEAD,PATCH",
    f"/webhooks/{NOBODY}/rotate": "POST",
    f"/webhooks/{NOBODY}/deliveries": "GET,HEAD",
    f"/webhooks/{NOBODY}/deliveries/{NOBODY}/redeliver": "POST",
    "/": "GET,HEAD",
    "/favicon.ico": "GET,HEAD",
    "/healthz": "GET,HEAD",
    "/readyz": "GET,HEAD",
    "/metrics": "GET,HEAD",
    "/openapi.json": "GET,HEAD",
    "/docs": "GET,HEAD",
    "/problems": "GET,HEAD",
    "/problems/not-found": "GET,HEAD",
}


async def test_a_wrong_method_is_refused_with_the_allowed_ones(target: Target) -> None:
    known = {"user": target.user, "ada": target.ada, "paid": target.paid}
    for path, allowed in _ALLOWED.items():
        for method in {"GET", "POST", "PATCH", "PUT", "DELETE", "OPTIONS", "TRACE"} - set(
            allowed.split(",")
        ):
            refused = await target.api.call(method, path.format(**known))
            assert (refused.status, refused.code) == (405, "method-not-allowed"), (method, path)
            assert refused.headers["Allow"] == allowed


async def test_an_unknown_path_is_not_found(api: Api, subtests: pytest.Subtests) -> None:
    for path in (
        "/nothing",
        "/Users",
        "/users/",
        "//users",
        "/users//",
        f"/users/{NOBODY}/wallets",
        f"/wallets/{NOBODY}/thaw",
        f"/wallets/{NOBODY}/freeze/",
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


async def test_bytes_that_are_not_http_are_answered_with_a_problem(
    api: Api, subtests: pytest.Subtests
) -> None:
    for sent in (
        b"rubbish\r\n\r\n",
        b"FOO /users HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /users?cursor=" + b"x" * 9_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /users HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 9_000 + b"\r\n\r\n",
        b"POST /users HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n",
    ):
        with subtests.test(sent=sent):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", int(api.url.rsplit(":", 1)[1])
            )
            writer.write(sent)
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            writer.close()
            assert head.startswith((b"HTTP/1.1 400", b"HTTP/1.0 400")), head
            assert b"Content-Type: application/problem+json" in head
            problem = orjson.loads(body)
            assert (problem["code"], problem["status"]) == ("malformed-request", 400)
            # The answer repeats nothing of the request.
            assert b"xxx" not in body
            assert b"rubbish" not in body


async def test_at_and_min_version_exclude_each_other(api: Api) -> None:
    ada = await api.wallet()
    reply = await api.get(f"/wallets/{ada}?at=2026-01-01T00:00:00Z&min_version=1")
    assert reply.code == "invalid-request"


async def test_a_dry_run_is_true_or_false(api: Api, subtests: pytest.Subtests) -> None:
    for value in ("yes", "1", "on", "True", ""):
        with subtests.test(value=value):
            ada, bob = await api.wallet(100), await api.wallet()
            body = transfer_body(ada, bob)
            reply = await api.post(f"/transfers?dry_run={value}", body, key="dry")
            assert reply.code == "invalid-request"
            assert await api.balance(ada) == 100
