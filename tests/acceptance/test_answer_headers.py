"""The headers of every answer: caching, browser policies, server name."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import aiohttp
import pytest
from multidict import CIMultiDict
from playwright.async_api import expect

from tests.conftest import Workers
from tests.support.api import Api, Reply
from tests.support.browser import open_page
from tests.support.contract import UNKNOWN_ID
from tests.support.events import following
from tests.support.raw_http import head, post, until_ended
from transferd.config import Limits
from transferd.web.replies import COMMON

# Each serves the same bytes until the service is upgraded.
_DOCUMENTS = (
    "/openapi.json",
    "/problems",
    "/problems/not-found",
    "/docs",
    "/docs/start.js",
    "/docs/swagger-ui.css",
    "/docs/swagger-ui-bundle.js",
    "/favicon.ico",
)
_POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
_POLICY += " frame-ancestors 'none'"


def assert_common(headers: Mapping[str, str], where: object) -> None:
    """AssertionError unless the answer has every common header, and no header twice."""
    found = {name: headers.get(name) for name in COMMON}
    assert found == {
        "Server": "transferd",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Content-Security-Policy": _POLICY,
    }, where
    names = [name.lower() for name in headers]
    assert sorted(names) == sorted(set(names)), where


def parsed(answer: bytes) -> dict[str, str]:
    """The headers of one answer, as they came over the wire; AssertionError if one is repeated."""
    lines = answer.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    found: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        assert name not in found, line
        found[name] = value
    return found


async def answers(api: Api) -> Iterable[tuple[str, Reply]]:
    """An answer of each kind."""
    ada, bob = await api.wallet(100), await api.wallet()
    paid = await api.transfer(ada, bob, 1, key="rent")
    calls: list[tuple[str, str, dict[str, Any]]] = [
        ("GET", path, {})
        for path in (
            *("/", "/healthz", "/readyz", "/metrics", "/users", "/currencies", "/wallets"),
            *(f"/wallets/{ada}", f"/wallets/{ada}/statement", f"/wallets/{UNKNOWN_ID}"),
            *(f"/transfers/{paid.json['id']}", "/idempotency-keys/rent", "/webhooks"),
            *("/nothing", "/users?limit=0", "/users/ä"),
            *_DOCUMENTS,
        )
    ]
    calls += [("HEAD", path, {}) for _, path, _ in calls if path != "/metrics"]
    calls += [("HEAD", f"/wallets/{ada}/events", {}), ("GET", f"/wallets/{UNKNOWN_ID}/events", {})]
    calls += [("POST", "/users", {"body": {}}), ("POST", "/users", {"raw": b"{"})]
    calls += [("POST", "/users", {"raw": b" " * 40_000}), ("PUT", "/users", {})]
    calls += [("POST", f"/wallets/{ada}/freeze", {}), ("PATCH", f"/wallets/{ada}", {"body": {}})]
    replies = [("POST /transfers", paid)]
    replies.append(("again", await api.transfer(ada, bob, 1, key="rent")))
    for method, path, more in calls:
        url = api.url + path
        async with api.session.request(
            method,
            url,
            json=more.get("body"),
            data=more.get("raw"),
            headers={"Content-Type": "application/json"} if more else {},
            allow_redirects=False,
        ) as response:
            reply = Reply(response.status, response.headers, await response.read())
        replies.append((f"{method} {path}", reply))
    return replies


async def test_every_answer_has_the_security_headers_and_no_server_version(api: Api) -> None:
    found = list(await answers(api))
    assert {reply.status for _, reply in found} >= {200, 201, 302, 400, 404, 405, 413, 422}
    for call, reply in found:
        assert_common(reply.headers, call)


async def test_an_answer_without_an_etag_is_not_stored_by_caches(api: Api) -> None:
    for call, reply in await answers(api):
        path = call.partition(" ")[2]
        expected = "no-cache" if path in _DOCUMENTS else "no-store"
        if path.startswith("/wallets/") and path.count("/") == 2 and reply.status == 200:
            expected = "private, no-cache" if call[0] in "GH" else "no-store"
        assert reply.headers["Cache-Control"] == expected, call
        assert ("ETag" in reply.headers) == (expected != "no-store"), call


async def test_a_request_that_is_refused_early_gets_the_same_headers(
    api: Api, subtests: pytest.Subtests
) -> None:
    for sent, status in (
        (b"GET / HTTP/1.1\r\nno header\r\n\r\n", 400),
        (b"rubbish\r\n\r\n", 400),
        (b"FOO /users HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (head("GET", "/users", X_Long="x" * 9_000), 400),
        (b"POST /users HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n", 400),
        (head("GET", "/users", Expect="a-miracle", Connection="close"), 400),
        # Refused unread: the body never arrives.
        (post("/users", 40_000), 413),
        (head("GET", "/nothing", Connection="close"), 404),
    ):
        with subtests.test(sent=sent, status=status):
            ending = await until_ended(int(api.url.rpartition(":")[2]), sent)
            assert ending.statuses == [status]
            headers = parsed(ending.answer)
            assert_common(headers, ending)
            assert headers["Cache-Control"] == "no-store"
            assert headers["Content-Type"] == "application/problem+json"
            if status == 400:
                assert ending.code == "malformed-request"
                # The answer repeats nothing of the request.
                assert not re.search(b"xxx|rubbish|miracle", ending.answer)


async def test_a_stream_has_the_same_headers(api: Api) -> None:
    async with following(api, await api.wallet(1)) as stream:
        assert_common(stream.headers, "stream")
        assert stream.headers["Cache-Control"] == "no-store"


async def test_the_worker_has_the_same_headers(workers: Workers) -> None:
    worker = await workers.start()
    async with aiohttp.ClientSession() as session:
        for path, status in (("/healthz", 200), ("/metrics", 200), ("/nothing", 404)):
            reply = await Api(session, worker.url).get(path)
            assert reply.status == status
            assert_common(reply.headers, path)
            assert reply.headers["Cache-Control"] == "no-store"
            assert status == 200 or reply.code == "not-found"
        refused = await Api(session, worker.url).post("/healthz", {})
        assert (refused.status, refused.headers["Allow"]) == (405, "GET,HEAD")
    sent = b"GET / HTTP/1.1\r\nno header\r\n\r\n"
    ending = await until_ended(int(worker.url.rpartition(":")[2]), sent)
    assert (ending.statuses, ending.code) == ([400], "malformed-request")
    assert_common(parsed(ending.answer), ending)


# Documents that never change


async def test_a_document_is_not_sent_again_to_a_client_that_has_it(
    api: Api, subtests: pytest.Subtests
) -> None:
    tags: list[str] = []
    for path in _DOCUMENTS:
        with subtests.test(path=path):
            whole = await api.get(path)
            assert whole.status == 200
            tag = whole.headers["ETag"]
            assert tag not in tags
            tags.append(tag)
            for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
                for method in ("GET", "HEAD"):
                    reply = await api.call(method, path, headers={"If-None-Match": known})
                    assert (reply.status, reply.body) == (304, b""), known
                    assert reply.headers["ETag"] == tag
                    assert reply.headers["Cache-Control"] == "no-cache"
                    assert_common(reply.headers, path)
            lines = CIMultiDict([("If-None-Match", '"other"'), ("If-None-Match", tag)])
            async with api.session.get(api.url + path, headers=lines) as response:
                assert response.status == 304
            other = await api.get(path, {"If-None-Match": '"other"'})
            assert (other.status, other.body) == (200, whole.body)


# Requests of browsers


async def test_the_root_redirects_to_the_documentation(api: Api) -> None:
    async with api.session.get(f"{api.url}/", allow_redirects=False) as response:
        assert (response.status, response.headers["Location"]) == (302, "/docs")
    assert (await api.get("/")).body == (await api.get("/docs")).body


async def test_there_is_an_icon_for_browsers(api: Api) -> None:
    icon = await api.get("/favicon.ico")
    assert (icon.status, icon.headers["Content-Type"]) == (200, "image/x-icon")
    # An .ico file with one picture: its header has the type, offset and length.
    assert icon.body[:6] == bytes([0, 0, 1, 0, 1, 0])
    assert icon.body[22:30] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(icon.body[14:18], "little") == len(icon.body) - 22


async def test_a_browser_shows_the_documentation_without_an_error(api: Api) -> None:
    async with open_page(width=1200, height=900) as page:
        await page.goto(f"{api.url}/")
        await expect(page).to_have_url(f"{api.url}/docs")
        await expect(page.locator(".opblock").nth(20)).to_be_visible()


# Sizes of bodies


@pytest.mark.parametrize(
    ("path", "limit"),
    [
        ("/users", Limits().body_bytes_max),
        ("/transfers", Limits().body_bytes_max),
        ("/transfers/batch", Limits().batch_body_bytes_max),
    ],
)
async def test_the_refusal_of_a_large_body_names_the_limit(api: Api, path: str, limit: int) -> None:
    async def pieces() -> Any:
        for _ in range(limit // 16_384 + 1):
            yield b" " * 16_384

    sent = {"Content-Type": "application/json", "Idempotency-Key": "long"}
    async with api.session.post(api.url + path, data=pieces(), headers=sent) as response:
        assert response.request_info.headers["Transfer-Encoding"] == "chunked"
        reply = Reply(response.status, response.headers, await response.read())
    assert (reply.status, reply.code) == (413, "body-too-large")
    assert reply.json["bytes_max"] == limit
    assert reply.json["detail"] == f"A body may have at most {limit} bytes at this address."
