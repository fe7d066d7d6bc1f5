"""Server-sent events, as an answer: https://html.spec.whatwg.org/multipage/server-sent-events.html"""

import asyncio
from collections.abc import Iterator, Sequence

from aiohttp import HttpVersion11

from transferd.config import Limits
from transferd.web.replies import Reply
from transferd.web.request import Request, Writer
from transferd.web.streams import EVENT_STREAM, Frame, Watch

_LAST_CHUNK = b"0\r\n\r\n"
HEADERS = {
    # Nginx would collect events until a buffer is full.
    "X-Accel-Buffering": "no",
}


class StreamHead(Reply):
    """The answer to HEAD: the headers of a stream, whose length is not known."""

    def __init__(self) -> None:
        super().__init__(200, media_type=EVENT_STREAM, extra=HEADERS)

    def framing(self, request: Request) -> str:
        """No header: the length is not known."""
        return ""


class EventStream(Reply):
    """An answer that lasts until its client leaves or the replica drains.

    It is sent by `send`, so the measured duration of the request ends with its first byte.
    """

    def __init__(self, watch: Watch, limits: Limits) -> None:
        super().__init__(200, media_type=EVENT_STREAM, extra=HEADERS)
        self._watch = watch
        self._limits = limits
        # A client that resumes must not reuse this connection to a draining replica.
        self.keeps_connection = False
        self._is_chunked = True

    async def send(self, writer: Writer) -> None:
        """Send the headers and then events. Raises ConnectionError once the client has gone."""
        try:
            writer.write(self.message)
            await self._follow(writer)
            if self._is_chunked:
                writer.write(_LAST_CHUNK)
        finally:
            self._watch.close()

    def framing(self, request: Request) -> str:
        """Chunks; for HTTP/1.0 the end of the connection is the end of the stream."""
        self._is_chunked = request.version >= HttpVersion11
        return "Transfer-Encoding: chunked\r\n" if self._is_chunked else ""

    async def _follow(self, writer: Writer) -> None:
        watch, clock = self._watch, asyncio.get_running_loop().time
        await self._write(writer, _opening(watch, self._limits.stream_retry_s))
        last_sent_at = clock()
        while not watch.is_over():
            frames = await watch.frames()
            for version, data in _writes(frames, self._limits.stream_write_bytes):
                if watch.is_over():
                    return
                await self._write(writer, data)
                watch.sent = version
                last_sent_at = clock()
            if frames or await watch.wait(last_sent_at + self._limits.stream_heartbeat_s):
                continue
            # Proxies close a silent connection, and a write shows whether the client is there.
            await self._write(writer, b": heartbeat\n\n")
            last_sent_at = clock()

    async def _write(self, writer: Writer, data: bytes) -> None:
        """Write, and wait until no more than the connection's buffer is unsent."""
        try:
            async with asyncio.timeout(self._limits.stream_send_timeout_s):
                writer.write(b"%x\r\n%b\r\n" % (len(data), data) if self._is_chunked else data)
                await writer.drain()
        except TimeoutError:
            # A client that does not read gets no end of the stream either.
            writer.abort()
            raise ConnectionResetError("the client does not read") from None


def _opening(watch: Watch, retry_s: float) -> bytes:
    # An id alone is no event, but the client keeps it: if the connection breaks before the first
    # event, the client resumes from here.
    retry_ms = round(retry_s * 1000)
    text = f": the wallet is at version {watch.latest}\nretry: {retry_ms}\nid: {watch.sent}\n\n"
    return text.encode()


def _writes(frames: Sequence[Frame], bytes_max: int) -> Iterator[Frame]:
    """Neighbouring frames joined into writes of about `bytes_max`, each with its last version."""
    data: list[bytes] = []
    size = 0
    for position, frame in enumerate(frames, start=1):
        data.append(frame.data)
        size += len(frame.data)
        if size >= bytes_max or position == len(frames):
            yield Frame(frame.version, b"".join(data))
            data, size = [], 0
