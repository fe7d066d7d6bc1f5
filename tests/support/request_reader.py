"""Requests without a connection, and the service's reader of their bodies."""

import asyncio
from collections.abc import Iterable
from types import SimpleNamespace
from typing import TypeVar, cast

from aiohttp import EMPTY_PAYLOAD, HttpVersion11, StreamReader
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import RawRequestMessage
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from transferd.commit.origin import Origin
from transferd.config import Limits
from transferd.domain.ledger import MAIN
from transferd.web.auth import local_client
from transferd.web.calls import Call
from transferd.web.context import AppContext
from transferd.web.request import Request
from transferd.web.schemas import Body

Model = TypeVar("Model", bound=Body)

ORIGIN = Origin("a-request", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "/here")
JSON = ("Content-Type", "application/json")


class NoClient:
    """A client that reads nothing."""

    def write(self, data: bytes) -> None:
        """Ignore the bytes."""

    async def drain(self) -> None:
        """Return at once."""

    def abort(self) -> None:
        """Nothing to close."""

    def is_gone(self) -> bool:
        """Whether it is gone: never."""
        return False


def request_of(
    target: str = "/",
    headers: Iterable[tuple[str, str]] = (),
    body: bytes = b"",
    *,
    method: str = "POST",
) -> Request:
    """A request with these headers, also several of a name. A body needs a running loop."""
    stream = EMPTY_PAYLOAD
    if body:
        stream = StreamReader(BaseProtocol(asyncio.get_running_loop()), limit=2**23)
        stream.feed_data(body)
        stream.feed_eof()
    path, _, query = target.partition("?")
    message = RawRequestMessage(
        method=method,
        path=target,
        version=HttpVersion11,
        headers=CIMultiDictProxy(CIMultiDict(headers)),
        raw_headers=(),
        should_close=False,
        compression=None,
        upgrade=False,
        chunked=False,
        url=URL.build(path=path, query_string=query, encoded=True),
    )
    return Request(message, stream, NoClient())


def call_of(request: Request) -> Call:
    """The call of a route that uses only the limits of its context."""
    context = cast(AppContext, SimpleNamespace(limits=Limits()))
    call = Call(context, request, ORIGIN)
    call.principal = local_client(MAIN)
    return call


class Reader:
    """Reads bodies with the service's code, on one event loop."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self._runner = runner

    def read(
        self,
        model: type[Model],
        raw: bytes,
        *,
        headers: Iterable[tuple[str, str]] = (JSON,),
        bytes_max: int | None = None,
    ) -> Model:
        """The value of a body. Raises Problem."""

        async def read() -> Model:
            call = call_of(request_of(headers=headers, body=raw))
            return await call.body(model, bytes_max=bytes_max)

        return self._runner.run(read())
