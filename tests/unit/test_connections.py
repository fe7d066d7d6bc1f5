"""Connections keep nothing of what was answered, and nothing is left of them when they close."""

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import StreamReader

from tests.support.raw_http import cut, head, post
from tests.support.waiting import until
from transferd.config import Limits
from transferd.web.calls import origin_of
from transferd.web.listener import Listener
from transferd.web.protocol import Connection
from transferd.web.replies import Reply
from transferd.web.request import Request

_KINDS = (Connection, Request, Reply, StreamReader)


async def refuse_unread(request: Request) -> Reply:
    """Answer without a look at the body."""
    reply = Reply(404, b"{}")
    reply.compose(request, origin_of(request))
    return reply


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


@asynccontextmanager
async def listening() -> AsyncIterator[int]:
    """The port of a listener that refuses everything."""
    listener = Listener("127.0.0.1", 0, Limits(), remedy="none")
    async with listener.serving(refuse_unread):
        yield int(listener.url.rpartition(":")[2])


@pytest.mark.usefixtures("without_garbage_collection")
@pytest.mark.parametrize("late", [0, 40_000], ids=["with the head", "after the answer"])
async def test_an_idle_connection_keeps_neither_body_nor_answer(late: int) -> None:
    before = objects()
    async with listening() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        body = bytes(50_000)
        writer.write(post("/nothing", len(body)) + body[late:])
        assert (await reader.readuntil(b"{}")).startswith(b"HTTP/1.1 404 ")
        writer.write(body[:late])
        await until(lambda: objects() - before == {"Connection": 1})
        writer.write(head("GET", "/nothing"))
        assert (await reader.readuntil(b"{}")).startswith(b"HTTP/1.1 404 ")
        await cut(writer)
        await until(lambda: objects() - before == {})
