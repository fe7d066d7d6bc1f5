"""A request as it came over a connection."""

from typing import Protocol

from aiohttp import EMPTY_PAYLOAD, HttpVersion, HttpVersion11, StreamReader
from aiohttp.http import RawRequestMessage
from multidict import CIMultiDict, CIMultiDictProxy, MultiDictProxy
from yarl import URL


class Writer(Protocol):
    """Sends bytes to the client of a request."""

    def write(self, data: bytes) -> None:
        """Send bytes, now or when the client reads. Raises ConnectionError if it has gone."""
        ...

    async def drain(self) -> None:
        """Wait until the client has read most of it. Raises ConnectionError if it has gone."""
        ...

    def abort(self) -> None:
        """Close the connection at once."""
        ...

    def is_gone(self) -> bool:
        """Whether the connection is closed."""
        ...


_MALFORMED = RawRequestMessage(
    method="",
    path="/",
    version=HttpVersion11,
    headers=CIMultiDictProxy(CIMultiDict()),
    raw_headers=(),
    should_close=True,
    compression=None,
    upgrade=False,
    chunked=False,
    url=URL("/"),
)


class Request:
    """The head of a request, its body, which may still be on its way, and the way to its client.

    `target` is the address as it was sent, `url` the same, parsed, without a host.
    """

    __slots__ = ("body", "headers", "is_persistent", "method", "target", "url", "version", "writer")

    def __init__(self, message: RawRequestMessage, body: StreamReader, writer: Writer) -> None:
        self.method: str = message.method
        self.target: str = message.path
        url = message.url
        self.url: URL = url.relative() if url.absolute else url
        self.version: HttpVersion = message.version
        self.headers: CIMultiDictProxy[str] = message.headers
        # Whether more requests may follow. Not after one that asks for another protocol: the parser
        # drops bytes behind it.
        self.is_persistent: bool = not (message.should_close or message.upgrade)
        self.body = body
        self.writer = writer

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.url.path}>"

    @classmethod
    def malformed(cls, writer: Writer) -> "Request":
        """In place of bytes that the parser refuses."""
        return cls(_MALFORMED, EMPTY_PAYLOAD, writer)

    @property
    def is_malformed(self) -> bool:
        """Whether it stands for bytes that the parser refuses."""
        return not self.method

    @property
    def path(self) -> str:
        """The path, decoded."""
        return self.url.path

    @property
    def query(self) -> MultiDictProxy[str]:
        """The parameters of the query, decoded."""
        return self.url.query

    @property
    def has_query(self) -> bool:
        """Whether the address has a query."""
        return bool(self.url.raw_query_string)

    @property
    def has_body(self) -> bool:
        """Whether bytes of a body have come or are on their way."""
        return not self.body.at_eof()

    @property
    def content_length(self) -> int:
        """The announced length of the body in bytes; 0 if none is announced."""
        # The parser has checked that these are digits; Python refuses to read thousands of them.
        return int(self.headers.get("Content-Length", "0").lstrip("0") or 0)
