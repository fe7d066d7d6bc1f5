"""A TCP proxy of our own: it cuts or stalls connections, also at the very moment of a COMMIT."""

import asyncio
from contextlib import suppress
from enum import Enum
from urllib.parse import urlsplit

# How the driver sends it: a simple query message, which ends with a zero byte.
COMMIT = b"COMMIT\0"
_CHUNK_BYTES = 64 * 1024


class Cut(Enum):
    """When a connection is cut; the client hears nothing in any case."""

    BEFORE = "before the server saw it"
    IN_FLIGHT = "while the server works on it"
    AFTER = "after the server did it"


class Proxy:
    """Stands between a client and the server at `url`. Opens with `async with`."""

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self._server: asyncio.Server | None = None
        self._links: dict[asyncio.Task[None], None] = {}
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._cut: Cut | None = None
        self._marker = COMMIT
        self._cuts_left = 0
        self._stalls_at_last = False
        # How many connections were cut at the marker.
        self.cuts = 0

    def __repr__(self) -> str:
        state = "flowing" if self._flowing.is_set() else "stalled"
        return f"<Proxy {state}, {len(self._links)} connections, {self.cuts} cut>"

    async def __aenter__(self) -> "Proxy":
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        self.cut_all()
        await asyncio.gather(*self._links, return_exceptions=True)

    @property
    def url(self) -> str:
        """The address of the server, by way of this proxy."""
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        login, at, _ = self._target.netloc.rpartition("@")
        user = f"{login}{at}"
        return self._target._replace(netloc=f"{user}127.0.0.1:{port}").geturl()

    def arm(
        self, cut: Cut, *, marker: bytes = COMMIT, times: int = 1, then_stall: bool = False
    ) -> None:
        """Cut the next `times` connections on which the client sends `marker`, and stall then."""
        self._cut, self._marker, self._cuts_left = cut, marker, times
        self._stalls_at_last = then_stall

    def cut_all(self) -> None:
        """Cut every connection that is open now."""
        for link in self._links:
            link.cancel()

    def stall(self) -> None:
        """Let nothing through any more, as on a network that has gone."""
        self._flowing.clear()

    def resume(self) -> None:
        """Undo `stall`."""
        self._flowing.set()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._links[link] = None
        link.add_done_callback(self._links.pop)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = [writer]
        pumps: list[asyncio.Task[None]] = []
        try:
            upstream = await asyncio.open_connection(self._target.hostname, self._target.port)
            writers.append(upstream[1])
            muted = asyncio.Event()
            pumps.append(asyncio.create_task(self._ask(reader, upstream[1], muted)))
            pumps.append(asyncio.create_task(self._answer(upstream[0], writer, muted)))
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        except OSError:
            pass  # The server is away: the client finds its connection closed.
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for each in writers:
                each.transport.abort()
                with suppress(OSError):
                    await each.wait_closed()

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, muted: asyncio.Event
    ) -> None:
        """Client to server, until one of them hangs up or it is time to cut."""
        while data := await reader.read(_CHUNK_BYTES):
            await self._flowing.wait()
            cut = self._cut_at(data)
            if cut is Cut.BEFORE:
                return
            if cut is Cut.AFTER:
                # The server's next word tells that it is done; the client shall not hear it.
                muted.set()
            writer.write(data)
            await writer.drain()
            if cut is Cut.IN_FLIGHT:
                return

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, muted: asyncio.Event
    ) -> None:
        """Server to client."""
        while data := await reader.read(_CHUNK_BYTES):
            if muted.is_set():
                return
            await self._flowing.wait()
            writer.write(data)
            await writer.drain()

    def _cut_at(self, data: bytes) -> Cut | None:
        if not self._cuts_left or self._marker not in data:
            return None
        self._cuts_left -= 1
        self.cuts += 1
        if not self._cuts_left and self._stalls_at_last:
            self.stall()
        return self._cut
