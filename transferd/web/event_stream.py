"""Server-sent events, as an answer: https://html.spec.whatwg.org/multipage/server-sent-events.html"""

import asyncio
from collections.abc import Iterator, Sequence

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from transferd.config import Limits
from transferd.web.streams import EVENT_STREAM, Frame, Watch

HEADERS = {
    "Content-Type": EVENT_STREAM,
    # Nginx would collect events until a buffer is full.
    "X-Accel-Buffering": "no",
}


class EventStream(web.StreamResponse):
    """An answer that goes on until its client leaves or its replica drains.

    All of that happens in `prepare`, when the middleware has completed the headers and noted how
    long the request took: to its first byte, since the rest is as long as the client likes.
    """

    def __init__(self, watch: Watch, limits: Limits) -> None:
        super().__init__(headers=HEADERS)
        self._watch = watch
        self._limits = limits
        # A client that resumes must not find this connection, and a replica that is draining.
        self.force_close()

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send the headers and then events. Raises ConnectionError once the client has gone."""
        try:
            writer = await super().prepare(request)
            if writer is not None:
                await self._follow(request, writer)
        finally:
            self._watch.close()
        return writer

    async def _follow(self, request: web.BaseRequest, writer: AbstractStreamWriter) -> None:
        watch, clock = self._watch, asyncio.get_running_loop().time
        await self._send(request, writer, _opening(watch, self._limits.stream_retry_s))
        last_sent_at = clock()
        while not watch.is_over():
            frames = await watch.frames()
            for version, data in _writes(frames, self._limits.stream_write_bytes):
                if watch.is_over():
                    return
                await self._send(request, writer, data)
                watch.told = version
                last_sent_at = clock()
            if frames or await watch.wait(last_sent_at + self._limits.stream_heartbeat_s):
                continue
            # Keeps proxies from taking it for dead, and finds out whether the client is.
            await self._send(request, writer, b": heartbeat\n\n")
            last_sent_at = clock()

    async def _send(
        self, request: web.BaseRequest, writer: AbstractStreamWriter, data: bytes
    ) -> None:
        """Write, and wait until all but a buffer of it has left."""
        try:
            async with asyncio.timeout(self._limits.stream_send_timeout_s):
                await writer.write(data)
                await writer.drain()
        except TimeoutError:
            # Nothing can be said to a client that does not read, not even the end.
            if request.transport is not None:
                request.transport.abort()
            raise ConnectionResetError("the client does not read") from None


def _opening(watch: Watch, retry_s: float) -> bytes:
    # The id alone is no event, but a client remembers it: one that is cut off before its first
    # event resumes from here all the same.
    retry_ms = round(retry_s * 1000)
    text = f": the wallet is at version {watch.known}\nretry: {retry_ms}\nid: {watch.told}\n\n"
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
