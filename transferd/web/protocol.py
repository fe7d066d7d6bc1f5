"""Connections of clients: the requests of each, one after the other, and their limits."""

import asyncio
import logging
import weakref
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress

from aiohttp import EMPTY_PAYLOAD, StreamReader
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpProcessingError, HttpRequestParser, StreamWriter

from transferd.config import Limits
from transferd.web.replies import Reply
from transferd.web.request import Request

Handler = Callable[[Request], Awaitable[Reply]]

_LOG = logging.getLogger(__name__)
# Requests of one connection that wait for the answer to an earlier one.
_WAITING_MAX = 16
# aiohttp stops reading from the socket while twice as many bytes of a body wait for their reader.
_UNREAD_BYTES = 2**16


class Connections:
    """The open connections of a process: not more than `connections_max`.

    `run` is the task that closes those on which nothing comes.
    """

    def __init__(self, limits: Limits, connections_max: int) -> None:
        self.limits = limits
        self.connections_max = connections_max
        self.open: set[Connection] = set()
        # Whether each connection ends after the answer to its current request.
        self.is_ending = False
        self._none_is_open = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Connections {len(self)} of {self.connections_max}>"

    def __len__(self) -> int:
        return len(self.open)

    def new(self, handler: Handler) -> "Connection":
        """A connection whose requests `handler` answers; the event loop calls this."""
        return Connection(self, handler, asyncio.get_running_loop())

    def leave(self, connection: "Connection") -> None:
        """A connection is closed."""
        self.open.discard(connection)
        if not self.open:
            self._none_is_open.set()

    async def run(self) -> None:
        """Close slow and idle connections until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            # One sweep for all: a timer for each request would cost more than the sweep.
            await asyncio.sleep(self.limits.head_wait_s / 4)
            self.sweep_once(loop.time())

    def sweep_once(self, now: float) -> None:
        """Close connections that are idle for too long, or whose head takes too long."""
        head_began = now - self.limits.head_wait_s
        idle_since = now - self.limits.idle_connection_s
        for connection in list(self.open):
            if connection.head_began_at and connection.head_began_at <= head_began:
                # Without an answer: a client that sends nothing reads none either.
                connection.abort()
            elif connection.idle_since and connection.idle_since <= idle_since:
                connection.close()

    async def end(self, timeout_s: float) -> None:
        """Close each connection when its current answer is sent, or after `timeout_s`."""
        self.is_ending = True
        for connection in list(self.open):
            if connection.serving is None:
                connection.close()
        self._none_is_open.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self.open:
                    await self._none_is_open.wait()
        late = [each.serving for each in self.open if each.serving is not None]
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        for connection in list(self.open):
            connection.abort()


class Connection(BaseProtocol):
    """One connection: parses requests, calls the handler and sends its replies in order.

    A handler continues when its client leaves: a transfer is not undone. Times are the loop's, in
    seconds; 0 if the state that they belong to is not the current one.
    """

    __slots__ = (
        "__weakref__",
        "_body",
        "_connections",
        "_event_loop",
        "_handler",
        "_is_full",
        "_is_over",
        "_request_parser",
        "_requests",
        "head_began_at",
        "idle_since",
        "serving",
    )

    def __init__(
        self, connections: Connections, handler: Handler, loop: asyncio.AbstractEventLoop
    ) -> None:
        parser = HttpRequestParser(
            # With a strong reference the garbage collector would have to find closed connections.
            weakref.proxy(self),
            loop,
            _UNREAD_BYTES,
            payload_exception=ConnectionResetError,
            auto_decompress=False,
            max_msg_queue_size=_WAITING_MAX,
        )
        super().__init__(loop, parser)
        self._connections = connections
        self._handler = handler
        self._event_loop = loop
        self._request_parser = parser
        # The first one is being answered.
        self._requests: deque[Request] = deque()
        # The body of the last request. The body of a refused request may come after the answer.
        self._body: StreamReader = EMPTY_PAYLOAD
        # Whether no more bytes are read until the waiting requests are answered.
        self._is_full = False
        # Whether all further bytes are ignored.
        self._is_over = False
        self.head_began_at = 0.0
        self.idle_since = loop.time()
        # The task that answers the requests; None while the connection is idle.
        self.serving: asyncio.Task[None] | None = None

    # Calls of the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected. Beyond the limit, or at the end, it is disconnected at once."""
        super().connection_made(transport)
        connections = self._connections
        connections.open.add(self)
        if connections.is_ending or len(connections) > connections.connections_max:
            self.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is closed."""
        self._connections.leave(self)
        self._is_over = True
        if not self._body.is_eof():
            self._body.set_exception(ConnectionResetError("the client has disconnected"))
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes have come; or none, if bytes that came earlier may be parsed now."""
        if self._is_over or (self._is_full and not data):
            return
        if data and self.serving is None and not self.head_began_at and self._body.is_eof():
            self.head_began_at = self._event_loop.time()
        try:
            messages, is_upgraded, _ = self._request_parser.feed_data(data)
            for message, body in messages:
                self._requests.append(Request(message, body, self))
                self._body = body
            # Another protocol was asked for, and the service has none: the answer is the last one.
            self._is_over = is_upgraded
        except HttpProcessingError:
            self._is_over = True
            if self._body.is_eof():
                self._requests.append(Request.malformed(self))
            else:
                self._body.set_exception(ConnectionError("the body is not valid HTTP"))
        if not self._requests:
            return
        self.head_began_at = 0.0
        if self.serving is None:
            self.idle_since = 0.0
            self.serving = self._event_loop.create_task(self._serve())
        if len(self._requests) >= _WAITING_MAX and self.transport is not None:
            self._is_full = True
            self.transport.pause_reading()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """The reader of a body has taken bytes; aiohttp resumes reading."""
        super().resume_reading(resume_parser)
        if self._is_full and self.transport is not None:
            self.transport.pause_reading()

    # The answers

    async def _serve(self) -> None:
        """Answer the requests that have come."""
        try:
            while self._requests and not self.is_gone():
                if not await self._answer(self._requests[0]):
                    self.close()
                    return
                self._requests.popleft()
                self._request_parser.message_consumed()
                if self._is_full:
                    self._read_on()
                if self._requests:
                    # Many requests at once must not hold up other connections.
                    await asyncio.sleep(0)
            self.idle_since = self._event_loop.time()
        except ConnectionError:
            # The client has disconnected.
            self.abort()
        except asyncio.CancelledError:
            self.abort()
            raise
        except Exception:
            _LOG.exception("a connection failed")
            self.abort()
        finally:
            self.serving = None
            # A request refers to its connection.
            self._requests.clear()

    def _read_on(self) -> None:
        """Parse what has come while the connection was full, and read again."""
        self._is_full = False
        self.data_received(b"")
        if not self._is_full and self.transport is not None:
            self.transport.resume_reading()

    async def _answer(self, request: Request) -> bool:
        """Answer one request; returns whether another one may follow. Raises ConnectionError."""
        reply = await self._handler(request)
        await reply.send(self)
        is_read = request.body.is_eof() or await self._discard(request.body)
        if request.body is self._body:
            # An idle connection keeps nothing of a body that was refused unread.
            self._body = EMPTY_PAYLOAD
        return is_read and reply.keeps_connection and not self._connections.is_ending

    async def _discard(self, body: StreamReader) -> bool:
        """Read the rest of a body; returns whether it came within `linger_s`.

        A connection that is closed before all of it was read is reset, and the client may lose the
        answer.
        """
        try:
            async with asyncio.timeout(self._connections.limits.linger_s):
                while not body.is_eof():
                    await body.readany()
        except TimeoutError:
            return False
        except ConnectionError as error:
            # The stream keeps the error, and its traceback would keep the stream.
            error.__traceback__ = None
            return False
        return True

    # For requests, and for the end of a connection

    def is_gone(self) -> bool:
        """Whether the connection is closed."""
        return self.transport is None or self.transport.is_closing()

    def write(self, data: bytes) -> None:
        """Send bytes, now or when the client reads. Raises ConnectionError if it has gone."""
        if self.transport is None or self.transport.is_closing():
            raise ConnectionResetError("the client has disconnected")
        self.transport.write(data)

    async def drain(self) -> None:
        """Wait until the client has read most of it. Raises ConnectionError if it has gone."""
        if self.writing_paused:
            await StreamWriter(self, self._event_loop).drain()

    def close(self) -> None:
        """Close the connection when everything is sent."""
        self._is_over = True
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """Close the connection at once."""
        self._is_over = True
        if self.transport is not None:
            self.transport.abort()
