"""Connections: requests behind each other, and what is kept of them."""

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import StreamReader

from tests.support.raw_http import cut, head, post
from tests.support.request_reader import call_of
from tests.support.waiting import patient_s, until
from transferd.config import Limits
from transferd.web.calls import origin_of
from transferd.web.listener import Listener
from transferd.web.problems import Problem
from transferd.web.protocol import Connection, Handler
from transferd.web.replies import Reply, problem_reply
from transferd.web.request import Request
from transferd.web.schemas import NewUser

_KINDS = (Connection, Request, Reply, StreamReader)
_USER = b'{"name":"Ada"}'
_GET, _POST = head("GET", "/"), post("/", len(_USER))


def composed(reply: Reply, request: Request) -> Reply:
    reply.compose(request, origin_of(request))
    return reply


async def refuse_unread(request: Request) -> Reply:
    """Answer without a look at the body."""
    return composed(Reply(404, b"{}"), request)


async def read_user(request: Request) -> Reply:
    """Answer a GET at once, and a POST when its body is read."""
    if request.method == "GET":
        return composed(Reply(200, b"{}"), request)
    try:
        await call_of(request).body(NewUser)
    except Problem as problem:
        return composed(problem_reply(problem, origin_of(request)), request)
    return composed(Reply(201, b"{}"), request)


@asynccontextmanager
async def listening(handler: Handler) -> AsyncIterator[int]:
    """The port of a listener with this handler."""
    listener = Listener("127.0.0.1", 0, Limits(), remedy="none")
    async with listener.serving(handler):
        yield int(listener.url.rpartition(":")[2])


# Requests that do not wait for the answer to the one before


@pytest.mark.parametrize("handler", [read_user, refuse_unread])
@pytest.mark.parametrize(
    "packets",
    [
        (_POST, _USER, _GET * 40),
        (_POST, _USER + _GET * 100),
        (_GET * 15 + _POST, _USER),
        (_GET * 15 + _POST, _USER + _GET * 40),
        (_GET * 16 + _POST + _USER[:5], _USER[5:] + _GET),
        ((_POST + _USER) * 300,),
    ],
    ids=["late body", "behind it", "16th", "16th and more", "17th", "many"],
)
async def test_every_request_is_answered(handler: Handler, packets: tuple[bytes, ...]) -> None:
    wanted = sum(packet.count(b"HTTP/1.1") for packet in packets)
    received = b""
    async with listening(handler) as port, asyncio.timeout(patient_s(20)):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for packet in packets:
            writer.write(packet)
            # So that the packets arrive one after the other.
            await asyncio.sleep(0.05)
        while received.count(b"HTTP/1.1") < wanted or not received.endswith(b"{}"):
            part = await reader.read(65_536)
            assert part, received[-500:]
            received += part
        await cut(writer)
    assert received.count(b"HTTP/1.1 4") == (wanted if handler is refuse_unread else 0)


async def test_a_flood_of_requests_waits_in_the_kernel() -> None:
    most = 0

    async def handler(request: Request) -> Reply:
        nonlocal most
        most = max(most, objects()["Request"])
        return await read_user(request)

    async with listening(handler) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write((_POST + _USER) * 500)
        answers = b""
        async with asyncio.timeout(patient_s(20)):
            while answers.count(b"HTTP/1.1 201") < 100:
                answers += await reader.read(65_536)
        await cut(writer)
    assert 1 < most <= 17


async def test_answers_are_sent_before_a_malformed_chunk_ends_the_connection() -> None:
    large = bytes(1_000_000)

    async def handler(request: Request) -> Reply:
        return composed(Reply(200, large, "application/octet-stream"), request)

    chunked = head("POST", "/", Transfer_Encoding="chunked") + b"1\r\nx\r\n"
    async with listening(handler) as port, asyncio.timeout(patient_s(20)):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1_000)
        writer.write(_GET + chunked)
        received = await reader.read(1_000)
        writer.write(b"zz\r\n")
        received += await reader.read()
        await cut(writer)
    assert received.count(large) == received.count(b"HTTP/1.1 200 OK") == 2


async def test_an_answer_is_sent_in_full_when_the_listener_ends() -> None:
    large = bytes(3_000_000)

    async def handler(request: Request) -> Reply:
        return composed(Reply(200, large, "application/octet-stream"), request)

    async with asyncio.timeout(patient_s(20)):
        async with listening(handler) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1_000)
            writer.write(_GET)
            received = await reader.read(1_000)
            reading = asyncio.create_task(reader.read())
        received += await reading
        await cut(writer)
    assert received.endswith(large)


# What is kept


@pytest.fixture
def without_garbage_collection() -> Iterator[None]:
    """Objects are freed only when nothing refers to them, not even a cycle."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def objects() -> Counter[str]:
    """How many objects of each kind exist."""
    return Counter(each.__name__ for each in map(type, gc.get_objects()) if each in _KINDS)


@pytest.mark.usefixtures("without_garbage_collection")
@pytest.mark.parametrize("late", [0, 40_000], ids=["with the head", "after the answer"])
async def test_an_idle_connection_keeps_neither_body_nor_answer(late: int) -> None:
    before = objects()
    async with listening(refuse_unread) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        body = bytes(50_000)
        writer.write(post("/", len(body)) + body[late:])
        assert (await reader.readuntil(b"{}")).startswith(b"HTTP/1.1 404 ")
        writer.write(body[:late])
        await until(lambda: objects() - before == {"Connection": 1})
        writer.write(_GET)
        assert (await reader.readuntil(b"{}")).startswith(b"HTTP/1.1 404 ")
        await cut(writer)
        await until(lambda: objects() - before == {})


@pytest.mark.usefixtures("without_garbage_collection")
@pytest.mark.parametrize("handler", [read_user, refuse_unread])
@pytest.mark.parametrize(
    "begun",
    [_POST + _USER[:5], head("POST", "/", Transfer_Encoding="chunked") + b"1\r\nx\r\nzz\r\n"],
    ids=["cut off", "malformed"],
)
async def test_nothing_is_kept_of_a_body_that_never_ends(handler: Handler, begun: bytes) -> None:
    before = objects()
    async with listening(handler) as port:
        for _ in range(3):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(begun)
            await until(lambda: objects()["Request"] > before["Request"] or not alive(before))
            await cut(writer)
        await until(lambda: not alive(before))


def alive(before: Counter[str]) -> Counter[str]:
    return objects() - before
