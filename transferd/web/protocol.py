"""Client connections: their limits, and the answer to bytes that are not HTTP."""

import asyncio
from typing import Any

from aiohttp import EMPTY_PAYLOAD, StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage

from transferd.config import Limits
from transferd.web.calls import origin_of
from transferd.web.problems import Problem
from transferd.web.replies import problem_reply


class Connections:
    """The open connections of a process: not more than `connections_max`.

    `run` is the task that closes those that send the head of a request too slowly.
    """

    def __init__(self, limits: Limits, connections_max: int) -> None:
        self._limits = limits
        self.open: set[Protocol] = set()
        self.connections_max = connections_max

    def __repr__(self) -> str:
        return f"<Connections {len(self)} of {self.connections_max}>"

    def __len__(self) -> int:
        return len(self.open)

    async def run(self) -> None:
        """Close slow connections until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            # One sweep for all connections: a timer for each head would cost more than the sweep.
            await asyncio.sleep(self._limits.head_wait_s / 4)
            self.sweep_once(loop.time())

    def sweep_once(self, now: float) -> int:
        """Close connections whose head began `head_wait_s` ago or earlier; returns how many."""
        began = now - self._limits.head_wait_s
        slow = [each for each in self.open if each.head_began_at and each.head_began_at <= began]
        for connection in slow:
            connection.abort()
        return len(slow)


class Protocol(web.RequestHandler):
    """aiohttp's connection handler with problems in place of aiohttp's own error pages.

    It adds two limits that aiohttp does not have: the number of connections, and the time that the
    head of a request may take. `head_began_at` is the loop's time at which the first byte of an
    incomplete head came; 0 without one.
    """

    __slots__ = ("_body", "_connections", "_event_loop", "_is_busy", "head_began_at")

    def __init__(
        self,
        server: web.Server,
        *,
        loop: asyncio.AbstractEventLoop,
        limits: Limits,
        connections: Connections,
    ) -> None:
        super().__init__(
            server,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]  # as AppRunner passes it on
            auto_decompress=False,
            keepalive_timeout=limits.idle_connection_s,
            lingering_time=limits.linger_s,
        )
        self._connections = connections
        self._event_loop = loop
        # From a complete head to the end of its answer.
        self._is_busy = False
        # Of the last request. A refused one may still come after its answer.
        self._body: StreamReader = EMPTY_PAYLOAD
        self.head_began_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected. One connection too many is closed at once."""
        super().connection_made(transport)
        self._connections.open.add(self)
        if len(self._connections) > self._connections.connections_max:
            self.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is closed."""
        self._connections.open.discard(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes have come. Outside of a request they begin or continue a head."""
        # aiohttp calls this without bytes when it has read a body.
        if data and not self._is_busy and not self.head_began_at and self._body.is_eof():
            self.head_began_at = self._event_loop.time()
        super().data_received(data)

    def begin_request(self, body: StreamReader) -> None:
        """A head is complete; the bytes behind it are its body or the next request."""
        self._is_busy = True
        self._body = body
        self.head_began_at = 0.0

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the answer."""
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            self._is_busy = False

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to bytes that the parser refuses, before there is a request.

        aiohttp's own answer is plain text that repeats the bytes, and it logs a stack trace: any
        client could fill the log. Raises ConnectionError if an answer has begun.
        """
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun; nothing can be added to it")
        if status >= 500:
            self.log_exception("a connection failed", exc_info=exc)
        code = "malformed-request" if status < 500 else "internal-error"
        origin = origin_of(request)
        reply = problem_reply(Problem(code, closes=True), origin)
        reply.compose(request, origin)
        return reply

    def abort(self) -> None:
        """Close the connection without an answer: a client that sends nothing reads none either."""
        if self.transport is not None:
            self.transport.abort()


def make_request(
    message: RawRequestMessage,
    payload: StreamReader,
    protocol: Any,
    writer: AbstractStreamWriter,
    task: "asyncio.Task[None]",
) -> web.BaseRequest:
    """The request of a complete head; `protocol` is a `Protocol`."""
    protocol.begin_request(payload)
    return web.BaseRequest(message, payload, protocol, writer, task, asyncio.get_running_loop())
