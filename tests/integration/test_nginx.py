"""Nginx with its shipped configuration before real replicas: routes, limits, its own answers."""

import asyncio
import gzip
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

import aiohttp
import orjson
import pytest

from loadtest.front import FOLDER, Nginx, running_nginx
from tests.conftest import Database, Replicas
from tests.support.api import Api
from tests.support.contract import transfer_body
from tests.support.pressure import statuses
from tests.support.raw_http import head, post, until_ended
from tests.support.waiting import patient_s, until
from transferd.config import Limits
from transferd.web import problems
from transferd.web.replies import CACHING, COMMON


class Front:
    """Replicas behind an Nginx, and a client of that Nginx."""

    def __init__(self, replicas: Replicas, exits: AsyncExitStack) -> None:
        self._replicas = replicas
        self._exits = exits
        self.apis: list[Api] = []

    async def open(self, count: int = 3, **environment: str) -> tuple[Nginx, Api]:
        """Nginx before this many replicas, and a client of it."""
        self.apis = [await self._replicas.start() for _ in range(count)]
        addresses = [urlsplit(api.url).netloc for api in self.apis]
        nginx = await self._exits.enter_async_context(running_nginx(addresses, environment))
        session = await self._exits.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        )
        return nginx, Api(session, nginx.url)


@pytest.fixture
async def front(replicas: Replicas) -> AsyncIterator[Front]:
    async with AsyncExitStack() as exits:
        yield Front(replicas, exits)


async def replicas_that_answered(nginx: Nginx, path: str, requests: int) -> Counter[str]:
    """How many requests for the path each replica answered, once this many are logged."""

    def rows() -> list[str]:
        return [row["replica"] for row in nginx.access_log() if row["path"] == path]

    await until(lambda: len(rows()) >= requests)
    return Counter(rows())


# Routing


async def test_requests_of_one_wallet_reach_one_replica_and_others_are_spread(
    front: Front,
) -> None:
    nginx, api = await front.open()
    ada, bob = await api.wallet(1_000), await api.wallet(1_000)
    replies = [await api.transfer(ada, bob, 1) for _ in range(12)]
    assert statuses(replies) == {201: 12}
    [home] = await replicas_that_answered(nginx, "/transfers", 12)
    for _ in range(3):
        await api.get(f"/wallets/{ada}")
        await api.post(f"/wallets/{ada}/freeze")
    for path in (f"/wallets/{ada}", f"/wallets/{ada}/freeze"):
        assert set(await replicas_that_answered(nginx, path, 3)) == {home}
    # The header names the wallet.
    for n in range(6):
        await api.call("GET", f"/webhooks?limit={n + 1}", headers={"X-Wallet-Id": "one"})
    assert len(await replicas_that_answered(nginx, "/webhooks", 6)) == 1
    for _ in range(30):
        await api.get("/currencies")
        assert (await api.transfer(await api.wallet(10), bob, 1)).status == 201
    for path, requests in (("/currencies", 30), ("/transfers", 42)):
        assert len(await replicas_that_answered(nginx, path, requests)) == 3


async def test_batches_and_reversals_follow_their_key(front: Front) -> None:
    nginx, api = await front.open()
    ada, bob = await api.wallet(1_000), await api.wallet()
    transfer = (await api.transfer(ada, bob, 100)).json["id"]
    body = {"mode": "atomic", "transfers": [transfer_body(ada, bob)] * 2_000}
    replies = [await api.post("/transfers/batch", body, key="payday") for _ in range(3)]
    # The balance is too low for 2,000 transfers.
    assert statuses(replies) == {422: 3}
    assert len(await replicas_that_answered(nginx, "/transfers/batch", 3)) == 1
    path = f"/transfers/{transfer}/reversal"
    for _ in range(3):
        assert (await api.post(path, {"amount": 1}, key="back")).status == 201
    assert len(await replicas_that_answered(nginx, path, 3)) == 1


# Rate limits


async def test_payments_above_the_rate_of_an_address_get_429(front: Front) -> None:
    _, api = await front.open(1, NGINX_RATE="1", NGINX_BURST="4")
    ada, bob = await api.wallet(1_000), await api.wallet()
    replies = await asyncio.gather(*(api.transfer(ada, bob, 1) for _ in range(20)))
    refused = [reply for reply in replies if reply.status == 429]
    assert 10 <= len(refused) <= 15
    assert statuses(replies)[201] == 20 - len(refused)
    for reply in refused:
        assert (reply.code, reply.headers["Retry-After"]) == ("rate-limited", "1")
        assert reply.headers["Content-Type"] == "application/problem+json"
        assert reply.json["request_id"] == reply.headers["X-Request-Id"]
    # Nothing else is counted.
    assert statuses([await api.get(f"/wallets/{ada}") for _ in range(20)]) == {200: 20}


# Answers of Nginx itself


async def test_paths_for_operators_are_not_public(front: Front, subtests: pytest.Subtests) -> None:
    _, api = await front.open(1)
    for path in ("/metrics", "/console", "/console/"):
        with subtests.test(path=path):
            reply = await api.get(path)
            assert (reply.status, reply.code) == (404, "not-found")
            assert reply.json["instance"] == path


async def test_a_body_that_is_too_large_is_a_problem_that_names_the_limit(front: Front) -> None:
    _, api = await front.open(1)
    limits = Limits()
    for path, limit in (
        ("/transfers", limits.body_bytes_max),
        ("/users", limits.body_bytes_max),
        ("/transfers/batch", limits.batch_body_bytes_max),
    ):
        body, named = b" " * (limit + 1), {"X-Request-Id": "mine"}
        ours = await api.call("POST", path, raw=body, key="large", headers=named)
        assert (ours.status, ours.code, ours.json["bytes_max"]) == (413, "body-too-large", limit)
        # A replica has the same answer.
        theirs = await front.apis[0].call("POST", path, raw=body, key="large", headers=named)
        assert theirs.json == ours.json


async def test_without_a_replica_nginx_answers_with_a_problem(front: Front) -> None:
    nginx, api = await front.open(1)
    await nginx.reload(["127.0.0.1:9"])

    async def is_gone() -> bool:
        return (await api.get("/currencies")).status == 502

    await until(is_gone)
    reply = await api.get("/currencies")
    assert (reply.status, reply.code, reply.headers["Retry-After"]) == (502, "bad-gateway", "1")


def test_the_problems_of_nginx_equal_those_of_the_replicas() -> None:
    for line in (FOLDER / "problems.conf").read_text().splitlines():
        if "return" in line:
            status, _, body = line.strip().removeprefix("return ").partition(" ")
            problem = orjson.loads(body.strip("';").replace("$bytes_max", "32768"))
            kind = problems.TYPES[problem["code"]]
            assert (problem["status"], problem["title"]) == (kind.status, kind.title)
            assert int(status) == kind.status
            # A 413 names the limit of its address; another test compares it.
            assert problem["detail"] == kind.meaning or problem["code"] == "body-too-large"


def test_answers_of_nginx_have_the_headers_of_the_replicas() -> None:
    text = (FOLDER / "headers.conf").read_text()
    found = dict(re.findall(r'^add_header (\S+) "?([^"]*?)"? always;$', text, re.MULTILINE))
    # Nginx sets the header Server itself.
    assert {"Server": COMMON["Server"], **found} == {"Cache-Control": CACHING, **COMMON}


def test_body_sizes_and_timeouts_of_nginx_are_those_of_the_limits() -> None:
    text = (FOLDER / "nginx.conf.template").read_text()
    limits = Limits()
    size = f"{limits.body_bytes_max // 1024}k;"
    assert text.count(f"client_max_body_size {size}") == 1
    assert f"client_body_buffer_size {size}" in text
    assert f"client_max_body_size {limits.batch_body_bytes_max // 2**20}m;" in text
    assert f"        /transfers/batch {limits.batch_body_bytes_max};\n" in text
    assert f"        default {limits.body_bytes_max};\n" in text
    for setting in ("proxy_read_timeout", "proxy_send_timeout", "proxy_next_upstream_timeout"):
        assert f"    {setting} {limits.nginx_timeout_s:g}s;" in text
    assert text.count(f"keepalive_timeout {limits.nginx_keepalive_s:g}s;") == 2
    # Timeouts for slow clients are the same in Nginx and in the service.
    for line in (
        f"client_header_timeout {limits.head_wait_s:g}s;",
        f"client_body_timeout {limits.body_wait_s:g}s;",
        f"send_timeout {limits.send_wait_s:g}s;",
        f"keepalive_timeout {limits.idle_connection_s:g}s;",
        f"worker_connections {limits.connections_max};",
    ):
        assert f"    {line}\n" in text


# Headers that Nginx adds


async def test_every_answer_has_each_common_header_once(front: Front) -> None:
    nginx, _ = await front.open(1)
    sent = [
        head("GET", path, Connection="close")
        for path in ("/currencies", "/metrics", "/docs", "/favicon.ico", "/wallets/none")
    ]
    sent += [post("/transfers", 40_000, Connection="close") + b" " * 40_000]
    sent += [b"GET / HTTP/1.1\r\nno header\r\n\r\n"]
    for request in sent:
        ending = await until_ended(nginx.port, request)
        lines = ending.answer.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
        headers = dict(line.split(": ", 1) for line in lines)
        assert len(headers) == len(lines), lines
        expected = {**COMMON, "Server": "nginx"}
        assert {name: headers.get(name) for name in COMMON} == expected, request
        is_document = request.startswith((b"GET /docs", b"GET /favicon.ico"))
        assert headers["Cache-Control"] == ("no-cache" if is_document else CACHING), request


async def test_long_answers_are_compressed_and_keep_their_tag(front: Front) -> None:
    _, api = await front.open(1)
    address, headers = f"{api.url}/openapi.json", {"Accept-Encoding": "gzip"}
    async with api.session.get(address, headers=headers, auto_decompress=False) as response:
        assert response.headers["Content-Encoding"] == "gzip"
        assert orjson.loads(gzip.decompress(await response.read()))["openapi"].startswith("3.1")
        tag = response.headers["ETag"]
    # Compressed bytes differ, so Nginx makes the tag weak.
    assert tag.startswith('W/"')
    known = await api.get("/openapi.json", {"If-None-Match": tag})
    assert (known.status, known.body) == (304, b"")


async def test_events_of_a_stream_are_not_buffered(front: Front) -> None:
    _, api = await front.open(1)
    ada, bob = await api.wallet(100), await api.wallet()
    async with api.session.get(f"{api.url}/wallets/{bob}/events") as response:
        assert response.status == 200
        await api.transfer(ada, bob, 7)
        async with asyncio.timeout(patient_s(5)):
            while b"transfer.posted" not in await response.content.readline():
                pass


async def test_the_access_log_has_no_secrets(front: Front, database: Database) -> None:
    nginx, api = await front.open(1)
    secret = "td_someone_" + "s" * 43
    headers = {"Authorization": f"Bearer {secret}"}
    await api.call("GET", "/currencies?cursor=hush", headers=headers, key="hush")
    await until(lambda: len(nginx.access_log()) >= 1)
    text = (nginx.directory / "access.log").read_text() + nginx.log_of_errors()
    assert "hush" not in text
    assert secret not in text
