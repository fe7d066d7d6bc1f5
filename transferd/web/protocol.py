"""A client connection: its limits, and the answer to bytes that are not HTTP."""

import asyncio
from dataclasses import dataclass

from aiohttp import web

from transferd.config import Limits
from transferd.web.calls import origin_of
from transferd.web.headers import complete
from transferd.web.problems import MEDIA_TYPE, Problem


@dataclass(slots=True)
class ConnectionCount:
    """The open connections of a process, and the most that it allows."""

    connections_max: int
    connections: int = 0


class Protocol(web.RequestHandler):
    """aiohttp's connection handler with problems in place of aiohttp's own error pages.

    It adds two limits that aiohttp does not have: the number of connections, and the time that the
    head of a request may take.

    `_request_count` and `_waiter` are private to aiohttp. They say when a head is complete and when
    the connection waits for one; the first public call after a head comes a loop iteration later,
    so without them each request would cost a timer. tests/integration/test_slow_clients.py fails
    when an aiohttp changes them.
    """

    __slots__ = ("_connection_count", "_event_loop", "_head_timer", "_limits")

    def __init__(
        self,
        server: web.Server,
        *,
        loop: asyncio.AbstractEventLoop,
        limits: Limits,
        connection_count: ConnectionCount,
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
        self._connection_count = connection_count
        self._event_loop = loop
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected. One connection too many is closed at once."""
        super().connection_made(transport)
        count = self._connection_count
        count.connections += 1
        if count.connections > count.connections_max:
            self._abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is closed."""
        self._connection_count.connections -= 1
        if self._head_timer is not None:
            self._head_timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes have come. Unless they complete the head of a request, its timer starts."""
        before = self._request_count
        super().data_received(data)
        if self._head_timer is not None and self._request_count != before:
            # A head is complete; the bytes behind it belong to the next one.
            self._head_timer.cancel()
            self._head_timer = None
        waiter = self._waiter
        if self._head_timer is None and waiter is not None and not waiter.done():
            self._head_timer = self._event_loop.call_later(
                self._limits.head_wait_s, self._expect_request, self._request_count
            )

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the answer, with the headers that every answer has.

        An HTTPException that aiohttp raises outside the middleware, such as for an unknown Expect
        header, becomes a problem here.
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
        """The answer to bytes that the parser refuses, before there is a request.

        aiohttp's own answer is plain text that repeats the bytes, and it logs a stack trace: any
        client could fill the log. Raises ConnectionError if an answer has begun.
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
        # Without an answer: a client that does not send would not read one either.
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
