"""Requests that two parsers could read differently, and oversized ones: none is executed.

Each is sent to a replica and through Nginx.
"""

import asyncio
import gzip
import os
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest

from loadtest.front import running_nginx
from tests.conftest import Database, Replicas
from tests.support.api import Api
from tests.support.contract import footprint
from tests.support.memory import resident_bytes
from tests.support.pressure import counted
from tests.support.raw_http import Ending, head, post, until_ended
from tests.support.waiting import until

# A request that must not be executed: it is hidden in the body of another.
_BODY = b'{"name":"Eve"}'
_HIDDEN = post("/users", len(_BODY), Idempotency_Key="hidden", Connection="close") + _BODY
_POST = "POST /users HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
_ENDS = "Connection: close\r\n"


@pytest.fixture(params=["replica", "nginx"])
async def door(
    request: pytest.FixtureRequest, replicas: Replicas
) -> AsyncIterator[tuple[Api, int]]:
    """A client, and the port where the odd requests go to."""
    api = await replicas.start()
    port = urlsplit(api.url).port
    assert port is not None
    if request.param == "replica":
        yield api, port
        return
    async with running_nginx([urlsplit(api.url).netloc]) as nginx:
        yield api, nginx.port


def framed(lines: str, body: bytes) -> bytes:
    """A POST whose length is given by these lines."""
    return f"{_POST}{_ENDS}{lines}\r\n\r\n".encode("latin-1") + body


def chunked(body: bytes) -> bytes:
    """The body as one chunk, and the last chunk."""
    return b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


_INSIDE = {
    "length and chunks": ("Content-Length: 5\r\nTransfer-Encoding: chunked", b"0\r\n\r\n"),
    "chunks and length": ("Transfer-Encoding: chunked\r\nContent-Length: 5", b"0\r\n\r\n"),
    "two lengths": (f"Content-Length: 2\r\nContent-Length: {2 + len(_HIDDEN)}", b"{}"),
    "a list of lengths": (f"Content-Length: 2, {2 + len(_HIDDEN)}", b"{}"),
    "a length with a sign": ("Content-Length: +2", b"{}"),
    "a length below zero": ("Content-Length: -1", b""),
    "a length in hexadecimal": ("Content-Length: 0x2", b"{}"),
    "a length with a comma": ("Content-Length: 2,", b"{}"),
    "no digits at all": ("Content-Length: ", b"{}"),
    "a blank before the colon": ("Content-Length : 2", b"{}"),
    "a length beyond all numbers": ("Content-Length: " + "9" * 40, b"{}"),
    "a folded coding": ("Transfer-Encoding:\r\n chunked", b"0\r\n\r\n"),
    "an unknown coding": ("Transfer-Encoding: xchunked\r\nContent-Length: 2", b"{}"),
    "the coding twice": ("Transfer-Encoding: chunked, chunked", b"0\r\n\r\n"),
    "two codings": (
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        b"0\r\n\r\n",
    ),
    "a coding after the chunks": ("Transfer-Encoding: chunked, identity", b"0\r\n\r\n"),
    "a coding with a control": ("Transfer-Encoding: \x0bchunked", b"0\r\n\r\n"),
    "a chunk beyond all numbers": (
        "Transfer-Encoding: chunked",
        b"ffffffffffffffff2\r\n{}\r\n0\r\n\r\n",
    ),
    "a chunk below zero": ("Transfer-Encoding: chunked", b"-2\r\n{}\r\n0\r\n\r\n"),
    "a chunk in another notation": ("Transfer-Encoding: chunked", b"0x2\r\n{}\r\n0\r\n\r\n"),
    "a chunk that is longer than it says": (
        "Transfer-Encoding: chunked",
        b"2\r\n{}{}\r\n0\r\n\r\n",
    ),
    "a header in a trailer": (
        "Transfer-Encoding: chunked",
        b"2\r\n[]\r\n0\r\nContent-Length: 400\r\n\r\n",
    ),
    "an end of line without a return": (f"Content-Length: 2\nX-Length: {len(_HIDDEN)}", b"[]"),
    "a whole request in a chunk": ("Transfer-Encoding: chunked", chunked(_HIDDEN)),
    "a whole request in a body": (f"Content-Length: {len(_HIDDEN)}", b""),
}


async def test_a_request_smuggled_in_a_body_is_not_executed(
    door: tuple[Api, int], database: Database
) -> None:
    api, port = door
    before = await footprint(database)
    endings = await asyncio.gather(
        *(until_ended(port, framed(lines, body) + _HIDDEN) for lines, body in _INSIDE.values())
    )
    for name, ending in zip(_INSIDE, endings, strict=True):
        assert len(ending.statuses) == 1, (name, ending)
        assert ending.statuses[0] in {400, 413, 422}, (name, ending)
        assert ending.code in {"malformed-request", "malformed-json", "invalid-request"} or (
            ending.code == "body-too-large" and name == "a length beyond all numbers"
        ), (name, ending)
    assert await footprint(database) == before
    assert (await api.get("/idempotency-keys/hidden")).status == 404


_ODD = {
    "an unknown expectation": head("GET", "/currencies", Expect="tea", Connection="close"),
    "an expectation at no address": head("GET", "/nowhere", Expect="tea", Connection="close"),
    "no host": b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n",
    "two hosts": head("GET", "/healthz", host="b", Connection="close"),
    "a proxy's request": b"GET http://[::/healthz HTTP/1.1\r\nHost: a\r\n\r\n",
    "a tunnel": head("CONNECT", "a:80", Connection="close"),
    "another version": b"GET /healthz HTTP/9.9\r\nHost: a\r\n\r\n",
    "the next version": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": bytes.fromhex("160301020001000001fc0303") + bytes(200),
    "a NUL": b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n",
    "a name that is none": b"GET /healthz HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
    "a long method": b"G" * 20_000 + b" / HTTP/1.1\r\nHost: a\r\n\r\n",
    "a megabyte of an address": b"GET /" + b"x" * 2**20 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    "a megabyte of a header": b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 2**20 + b"\r\n\r\n",
    "a hundred thousand headers": b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 100_000,
    "a hundred thousand trailers": (
        f"{_POST}{_ENDS}Transfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\n".encode()
        + b"X: y\r\n" * 100_000
        + b"\r\n"
    ),
    "a length without end": framed("Content-Length: 9999999999", b""),
    "chunks without end": framed("Transfer-Encoding: chunked", b"1000\r\n" + b" " * 4_096 + b"\r\n")
    + (b"1000\r\n" + b" " * 4_096 + b"\r\n") * 100,
}


async def test_odd_and_too_large_requests_are_refused_at_once(
    door: tuple[Api, int], database: Database
) -> None:
    _, port = door
    before = await footprint(database)
    endings = await asyncio.gather(*(until_ended(port, sent) for sent in _ODD.values()))
    for name, ending in zip(_ODD, endings, strict=True):
        # A client that writes without end may lose the answer: TCP resets the connection.
        if ending.statuses or ("megabyte" not in name and "thousand" not in name):
            assert_refused(name, ending)
    assert await footprint(database) == before


def assert_refused(name: str, ending: Ending) -> None:
    """One answer, a problem of the 4xx, and quickly."""
    assert len(ending.statuses) == 1, (name, ending)
    # Nginx leaves out an expectation that it does not know.
    if name == "an unknown expectation" and ending.statuses == [200]:
        return
    assert 400 <= ending.statuses[0] < 500, (name, ending)
    expected = {"malformed-request", "body-too-large", "not-found", "invalid-request"}
    assert ending.code in expected, (name, ending)
    # A connection lingers for two seconds, in Nginx for five, to read the rest of the request.
    assert ending.took_s < 7, (name, ending)


async def test_a_compression_bomb_is_not_decompressed(
    door: tuple[Api, int], replicas: Replicas
) -> None:
    _, port = door
    bomb = gzip.compress(bytes(64 * 2**20))
    assert len(bomb) > 32 * 1024
    small = gzip.compress(b'{"name":"' + b"x" * 2**20 + b'"}')
    # The replica is in this process.
    before = resident_bytes(os.getpid())
    for raw, code in ((bomb, "body-too-large"), (small, "unsupported-media-type")):
        packed = {"Content_Encoding": "gzip", "Connection": "close"}
        for path in ("/users", "/transfers"):
            ending = await until_ended(port, post(path, len(raw), **packed) + raw)
            assert ending.code in {code, "unsupported-media-type"}
    # With Transfer-Encoding instead, it is no JSON, and Nginx refuses the request.
    way = f"{_POST}{_ENDS}Transfer-Encoding: gzip, chunked\r\n\r\n".encode() + chunked(small)
    assert (await until_ended(port, way)).code in {"malformed-json", "malformed-request"}
    assert resident_bytes(os.getpid()) - before < 16 * 2**20
    await until(lambda: counted(replicas, "transferd_connections") <= 1)
