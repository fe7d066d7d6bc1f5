"""A connection of a client: how long it may take, and what it hears if it is not even HTTP."""

import asyncio
from dataclasses import dataclass

from aiohttp import web

from transferd.config import Limits
from transferd.web.calls import origin_of
from transferd.web.headers import complete
from transferd.web.problems import MEDIA_TYPE, Problem


@dataclass(slots=True)
class Room:
    """How many connections there may be, and how many are open."""

    connections_max: int
    connections: int = 0


class Protocol(web.RequestHandler):
    """aiohttp's handler of a connection, but for the answers that it would give by itself.

    It bounds what aiohttp leaves open: how many connections there are, and how long the head of a
    request may take.
    """

    __slots__ = ("_head_timer", "_limits", "_room")

    def __init__(
        self,
        server: web.Server,
        *,
        loop: asyncio.AbstractEventLoop,
        limits: Limits,
        room: Room,
    ) -> None:
        super().__init__(
            server,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]  # as AppRunner passes it on
            auto_decompress=False,
            keepalive_timeout=limits.idle_connection_s,
            lingering_time=limits.linger_s,
        )
        self._limits = limits
        self._room = room
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected; one too many is gone at once."""
        super().connection_made(transport)
        self._room.connections += 1
        if self._room.connections > self._room.connections_max:
            self._abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is closed."""
        self._room.connections -= 1
        if self._head_timer is not None:
            self._head_timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Some bytes have come. If no request is in them, they begin one."""
        before = self._request_count
        super().data_received(data)
        if self._head_timer is not None and self._request_count != before:
            # A head is complete; bytes behind it begin another one.
            self._head_timer.cancel()
            self._head_timer = None
        waiter = self._waiter
        if self._head_timer is None and waiter is not None and not waiter.done():
            self._head_timer = self._loop.call_later(
                self._limits.head_wait_s, self._expect_request, self._request_count
            )

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the answer, with the headers that every one has, whichever part has made it.

        An HTTPException is one that no middleware has seen, such as that of an unknown Expect.
        """
        if isinstance(resp, web.HTTPException):
            resp = _answer(request, Problem.of_http(resp))
        complete(resp.headers)
        return await super().finish_response(request, resp, start_time)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what the parser refuses, before there is a request for the application.

        aiohttp's own is plain text that repeats what was sent, and a stack trace in the log: any
        stranger could fill it. Raises ConnectionError if an answer has begun.
        """
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun; nothing can be added to it")
        if status >= 500:
            self.log_exception("a connection failed", exc_info=exc)
        return _answer(request, Problem("malformed-request" if status < 500 else "internal-error"))

    def _expect_request(self, requests_before: int) -> None:
        self._head_timer = None
        if self._request_count == requests_before:
            self._abort()

    def _abort(self) -> None:
        # Nothing is said to it: what it would not send it would not read either.
        if self.transport is not None:
            self.transport.abort()


def _answer(request: web.BaseRequest, problem: Problem) -> web.Response:
    origin = origin_of(request)
    response = web.Response(
        status=problem.status,
        body=problem.body(origin),
        headers={
            "Content-Type": MEDIA_TYPE,
            "X-Request-Id": origin.request_id,
            **problem.headers,
        },
    )
    response.force_close()
    return response
