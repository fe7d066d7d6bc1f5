"""Replies: status, headers and body, composed once and sent with one write."""

import re
import time
from collections.abc import Mapping
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

from aiohttp import HttpVersion11

from transferd.commit.origin import Origin
from transferd.web.problems import MEDIA_TYPE, Problem
from transferd.web.request import Request, Writer

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
_NOT_CACHED = f"Cache-Control: {CACHING}\r\n"
_NO_HEADERS: Mapping[str, str] = {}
# RFC 9110 sections 15.3.5 and 15.4.5: these have no body.
_WITHOUT_BODY = frozenset({204, 304})
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Reply:
    """The answer to a request. `compose` comes before `send`, each exactly once.

    `extra` are headers beyond those that every answer has; `media_type` is None without a body.
    """

    __slots__ = ("content", "extra", "keeps_connection", "media_type", "message", "status")

    def __init__(
        self,
        status: int = 200,
        body: bytes = b"",
        media_type: str | None = JSON,
        extra: Mapping[str, str] = _NO_HEADERS,
    ) -> None:
        for name, value in extra.items():
            if _CONTROL.search(value):
                raise ValueError(f"the header {name} has a control character")
        self.status = status
        self.content = body
        self.media_type = media_type
        self.extra = extra
        # Whether more requests may come over the connection.
        self.keeps_connection = True
        self.message = b""

    def compose(self, request: Request, origin: Origin) -> None:
        """Build `message`, the bytes to send."""
        if not request.is_persistent:
            self.keeps_connection = False
        head = self._head(origin)
        if self.status not in _WITHOUT_BODY:
            head += self.framing(request)
        if self.keeps_connection and request.version < HttpVersion11:
            head += "Connection: keep-alive\r\n"
        self.message = f"{head}\r\n".encode()
        if self.content and request.method != "HEAD":
            self.message += self.content

    async def send(self, writer: Writer) -> None:
        """Send the answer, and wait while the client does not read. Raises ConnectionError."""
        writer.write(self.message)
        await writer.drain()

    def _head(self, origin: Origin) -> str:
        head = (
            f"{_opening(self.status, self.media_type, int(time.time()))}"
            f"X-Request-Id: {origin.request_id}\r\ntraceparent: {origin.traceparent}\r\n"
        )
        if "Cache-Control" not in self.extra:
            head += _NOT_CACHED
        for name, value in self.extra.items():
            head += f"{name}: {value}\r\n"
        return head if self.keeps_connection else f"{head}Connection: close\r\n"

    def framing(self, request: Request) -> str:
        """The header that says where the body ends."""
        return f"Content-Length: {len(self.content)}\r\n"


def problem_reply(problem: Problem, origin: Origin) -> Reply:
    """The answer that shows a problem."""
    reply = Reply(problem.status, problem.body(origin), MEDIA_TYPE, problem.headers)
    reply.keeps_connection = not problem.closes
    return reply


@lru_cache(maxsize=64)
def _opening(status: int, media_type: str | None, second: int) -> str:
    """The headers that all answers of one kind have during one second."""
    kind = "" if media_type is None else f"Content-Type: {media_type}\r\n"
    return (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{_COMMON}"
        f"Date: {formatdate(second, usegmt=True)}\r\n{kind}"
    )
