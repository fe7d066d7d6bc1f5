"""Replies: status, headers and body, composed once and sent with one write."""

import re
import time
from collections.abc import Mapping
from email.utils import formatdate
from functools import cache, lru_cache
from http import HTTPStatus

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter

from transferd.commit.origin import Origin
from transferd.web.problems import MEDIA_TYPE, Problem

JSON = "application/json"
# Security headers, the same as in nginx/headers.conf for the answers of Nginx itself; a test
# compares them. /docs is Swagger UI, which needs inline styles and data URLs for icons. `Server`
# has no version, because that would only help attackers.
COMMON = {
    "Server": "transferd",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline';"
    " img-src 'self' data:; frame-ancestors 'none'",
}
# No cache stores an answer unless the route allows it.
CACHING = "no-store"

_COMMON = "".join(f"{name}: {value}\r\n" for name, value in COMMON.items())
_NO_HEADERS: Mapping[str, str] = {}
# RFC 9110 sections 15.3.5 and 15.4.5: these have no body.
_WITHOUT_BODY = frozenset({204, 304})
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Reply(web.StreamResponse):
    """The answer to a request. `compose` comes before the answer is sent, exactly once.

    `extra` are headers beyond those that every answer has; `media_type` is None without a body.
    """

    def __init__(
        self,
        status: int = 200,
        body: bytes = b"",
        media_type: str | None = JSON,
        extra: Mapping[str, str] = _NO_HEADERS,
    ) -> None:
        super().__init__(status=status)
        self.content = body
        self.media_type = media_type
        self.extra = extra
        self._keeps_connection = True
        self.message = b""

    @property
    def keep_alive(self) -> bool:
        """Whether the connection stays open after the answer."""
        return self._keeps_connection

    def force_close(self) -> None:
        """Close the connection after the answer."""
        self._keeps_connection = False

    def compose(self, request: web.BaseRequest, origin: Origin) -> None:
        """Build `message`, the bytes to send."""
        self.message = self._head(request, origin).encode()
        if self.content and request.method != "HEAD":
            self.message += self.content

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send the answer, and wait while the client does not read. Raises ConnectionError."""
        writer = request.writer
        await writer.write_eof(self.message)
        return writer

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is left to send after `prepare`."""

    def _head(self, request: web.BaseRequest, origin: Origin) -> str:
        status, extra = self.status, self.extra
        head = (
            f"{_status_line(status)}{_COMMON}Date: {_date(int(time.time()))}\r\n"
            f"X-Request-Id: {origin.request_id}\r\ntraceparent: {origin.traceparent}\r\n"
        )
        if self.media_type is not None:
            head += f"Content-Type: {self.media_type}\r\n"
        if status not in _WITHOUT_BODY:
            head += self.framing(request)
        if "Cache-Control" not in extra:
            head += f"Cache-Control: {CACHING}\r\n"
        for name, value in extra.items():
            if _CONTROL.search(value):
                raise ValueError(f"the header {name} has a control character")
            head += f"{name}: {value}\r\n"
        if not request.keep_alive:
            self._keeps_connection = False
        if not self._keeps_connection:
            head += "Connection: close\r\n"
        elif request.version < HttpVersion11:
            head += "Connection: keep-alive\r\n"
        return head + "\r\n"

    def framing(self, request: web.BaseRequest) -> str:
        """The header that says where the body ends."""
        return f"Content-Length: {len(self.content)}\r\n"


def problem_reply(problem: Problem, origin: Origin) -> Reply:
    """The answer that shows a problem."""
    reply = Reply(problem.status, problem.body(origin), MEDIA_TYPE, problem.headers)
    if problem.closes:
        reply.force_close()
    return reply


@cache
def _status_line(status: int) -> str:
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)
