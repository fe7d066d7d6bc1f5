"""A TCP proxy that cuts connections and delays or drops data, also exactly at a COMMIT."""

import asyncio
from urllib.parse import urlsplit

from tests.support.full_disk import Full
from tests.support.links import COMMIT, Cut, Flow, Link, Troubles
from transferd.devstack.ports import free_port

__all__ = ["COMMIT", "Cut", "Flow", "Full", "Proxy"]

# The same number of unaccepted connections as the servers behind the proxy.
_BACKLOG = 1024
# Another program may take a free port before the proxy listens on it.
_PORT_ATTEMPTS = 3


class Proxy(Troubles):
    """A proxy in front of the server at `url`; it listens inside `async with`.

    Connections are asyncio protocols and not streams: under uvloop a round trip costs 18 us instead
    of 30, and thousands of requests a second go through several proxies in one process.
    """

    def __init__(self, url: str) -> None:
        super().__init__(urlsplit(url))
        self._port = 0
        self._stalls_at_last = False
        self._server: asyncio.Server | None = None

    def __repr__(self) -> str:
        return f"<Proxy {self.flow.value}, {len(self.links)} connections, {self.cuts} cut>"

    async def __aenter__(self) -> "Proxy":
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            self._port = free_port()
            try:
                await self._listen()
                break
            except OSError:
                if attempt == _PORT_ATTEMPTS:
                    raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._close()
        self.flow = Flow.OPEN
        self.cut_all()
        while self.links:
            await asyncio.sleep(0)

    @property
    def url(self) -> str:
        """The URL of the server through this proxy."""
        login, at, _ = self.target.netloc.rpartition("@")
        return self.target._replace(netloc=f"{login}{at}{self.address}").geturl()

    @property
    def address(self) -> str:
        """The address on which it listens, `host:port`."""
        assert self._port, "it is not open"
        return f"127.0.0.1:{self._port}"

    def arm(
        self, cut: Cut, *, marker: bytes = COMMIT, times: int = 1, then_stall: bool = False
    ) -> None:
        """Cut the next `times` connections on which the client sends `marker`.

        With `then_stall` the proxy stalls after the last of these cuts.
        """
        self.cut, self.marker, self.cuts_left = cut, marker, times
        self._stalls_at_last = then_stall

    def fill_disk(self, step: Full, *, times: int) -> None:
        """The next `times` such steps fail in PostgreSQL with 53100, disk_full."""
        self.full, self.failures_left = step, times

    def cut_all(self) -> None:
        """Cut every connection that is open now."""
        for link in list(self.links):
            link.cut()

    def stall(self) -> None:
        """Forward no data until `resume`, as on a network that is down."""
        self._becomes(Flow.STALLED)

    def swallow(self) -> None:
        """A black hole: connections are accepted and stay open, and their data are lost."""
        self._becomes(Flow.SWALLOWED)

    def resume(self) -> None:
        """Undo `stall` and `swallow`."""
        for link in [each for each in self.links if each.has_lost_data]:
            link.cut()
        self._becomes(Flow.OPEN)

    async def refuse(self) -> None:
        """Cut all connections and refuse new ones."""
        self._close()
        self.cut_all()
        self.flow = Flow.REFUSED

    async def heal(self) -> None:
        """End all faults; open connections continue."""
        self.cuts_left = self.failures_left = 0
        self.delay_s = 0.0
        if self._server is None:
            await self._listen()
        self.resume()

    def has_cut(self) -> None:
        """Stall after the last cut, if `arm` demands it."""
        if not self.cuts_left and self._stalls_at_last:
            self.stall()

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Link(self).client, "127.0.0.1", self._port, backlog=_BACKLOG
        )

    def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def _becomes(self, flow: Flow) -> None:
        self.flow = flow
        for link in list(self.links):
            for side in (link.client, link.server):
                side.update_reading()
                if flow is Flow.OPEN:
                    side.flush()
