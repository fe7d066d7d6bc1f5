"""The connections of the TCP proxy, and the faults that it can cause."""

import asyncio
from collections import deque
from enum import Enum
from typing import cast
from urllib.parse import SplitResult

from tests.support.full_disk import Full, Statements

# The driver sends COMMIT as a simple query message, which ends with a zero byte.
COMMIT = b"COMMIT\0"


class Cut(Enum):
    """When a connection is cut, relative to a request. The client never gets the answer."""

    BEFORE = "before the server receives it"
    IN_FLIGHT = "while the server executes it"
    AFTER = "after the server has executed it"


class Flow(Enum):
    """How data and new connections are treated."""

    OPEN = "flowing"
    # Data arrive when the fault ends, as on a network that recovers.
    STALLED = "stalled"
    # Data are lost, and connections that lost data are cut when the fault ends.
    SWALLOWED = "swallowing"
    REFUSED = "refusing"


class Troubles:
    """The faults that are active on the connections of a proxy."""

    def __init__(self, target: SplitResult) -> None:
        self.target = target
        self.flow = Flow.OPEN
        # Delay of all data in both directions.
        self.delay_s = 0.0
        # The number of connections that were cut at the marker, and of writes that failed with
        # disk full.
        self.cuts = 0
        self.failed_writes = 0
        self.links: set[Link] = set()
        self.cut: Cut | None = None
        self.marker = COMMIT
        self.cuts_left = 0
        self.full = Full.COMMIT
        self.failures_left = 0

    def replaced(self, link: "Link", data: bytes) -> bytes:
        """The data to send to the server; a full disk replaces them."""
        if self.failures_left:
            failing = link.statements.failing(data, self.full)
            if failing is not None:
                self.failures_left -= 1
                self.failed_writes += 1
                return failing
        return data

    def cut_at(self, data: bytes) -> Cut | None:
        """The cut that these data trigger; None if they trigger none."""
        if not self.cuts_left or self.marker not in data:
            return None
        self.cuts_left -= 1
        self.cuts += 1
        return self.cut

    def has_cut(self) -> None:
        """Called when a connection was cut at the marker."""


class Side(asyncio.Protocol):
    """One end of a connection through a proxy."""

    def __init__(self, link: "Link") -> None:
        self.link = link
        self.transport: asyncio.Transport | None = None
        self.is_full = False
        self.is_lost = False
        # Data to be written when the connection is open, the delay is over or the stall ends.
        self._waiting: deque[bytes] = deque()

    @property
    def peer(self) -> "Side":
        link = self.link
        return link.server if self is link.client else link.client

    @property
    def is_open(self) -> bool:
        return self.transport is not None and not self.transport.is_closing()

    @property
    def is_gone(self) -> bool:
        """Whether it is closed or was never opened."""
        return self.transport is None or self.is_lost

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.link.opened(self)
        self.flush()
        self.update_reading()

    def data_received(self, data: bytes) -> None:
        if self is self.link.client:
            self.link.asked(data)
        else:
            self.link.answered(data)

    def connection_lost(self, _: Exception | None) -> None:
        self.is_lost = True
        self.link.lost(self)

    def pause_writing(self) -> None:
        self.is_full = True
        self.peer.update_reading()

    def resume_writing(self) -> None:
        self.is_full = False
        self.peer.update_reading()

    def update_reading(self) -> None:
        """Pause reading while the network stalls or the peer's buffer is full.

        The server's side of a muted connection is read even then, because its next data end it.
        """
        if self.transport is None or self.transport.is_closing():
            return
        is_muted = self is self.link.server and self.link.is_muted
        if (self.link.troubles.flow is Flow.STALLED and not is_muted) or self.peer.is_full:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def send(self, data: bytes) -> None:
        """Write now or later, always in order."""
        delay_s = self.link.troubles.delay_s
        if self.transport is None or self.link.troubles.flow is Flow.STALLED:
            self._waiting.append(data)
        elif delay_s or self._waiting:
            self._waiting.append(data)
            asyncio.get_running_loop().call_later(delay_s, self._write_one)
        elif not self.transport.is_closing():
            self.transport.write(data)

    def flush(self) -> None:
        """Write all waiting data now."""
        while self._waiting and self.is_open:
            self._write_one()

    def finish(self) -> None:
        """Close when everything is written."""
        self.flush()
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._waiting.clear()
        if self.transport is not None:
            self.transport.abort()

    def _write_one(self) -> None:
        if self._waiting and self.transport is not None and self.is_open:
            self.transport.write(self._waiting.popleft())


class Link:
    """A connection of a client and the corresponding connection to the server."""

    def __init__(self, troubles: Troubles) -> None:
        self.troubles = troubles
        self.client = Side(self)
        self.server = Side(self)
        self.statements = Statements()
        # Whether the next data of the server are dropped and the connection is cut.
        self.is_muted = False
        self.has_lost_data = False
        self._connecting: asyncio.Task[None] | None = None

    def opened(self, side: Side) -> None:
        """The client has connected, or the server has accepted the connection."""
        if side is self.client:
            self.troubles.links.add(self)
            if self.troubles.flow is Flow.SWALLOWED:
                self.has_lost_data = True
            elif self.troubles.flow is Flow.REFUSED:
                # The listener accepted it just before it closed.
                self.cut()
            else:
                self._connecting = asyncio.get_running_loop().create_task(self._connect())
                self._connecting.add_done_callback(self._settle)

    def asked(self, data: bytes) -> None:
        """Client to server."""
        troubles = self.troubles
        if troubles.flow is Flow.SWALLOWED:
            self.has_lost_data = True
            return
        self.statements.note(data)
        cut = troubles.cut_at(data)
        if cut is Cut.BEFORE:
            self.cut()
        else:
            # The next data of the server show that the COMMIT is done.
            self.is_muted = self.is_muted or cut is Cut.AFTER
            self.server.send(troubles.replaced(self, data))
        if cut is Cut.IN_FLIGHT:
            self.client.abort()
            self.server.finish()
        if cut is not None:
            troubles.has_cut()

    def answered(self, data: bytes) -> None:
        """Server to client."""
        if self.troubles.flow is Flow.SWALLOWED:
            self.has_lost_data = True
        elif self.is_muted:
            self.cut()
        else:
            self.client.send(data)

    def lost(self, side: Side) -> None:
        """One end has closed: close the other, except in a black hole."""
        if self.troubles.flow is Flow.SWALLOWED:
            self.has_lost_data = True
        else:
            side.peer.finish()
        self._settle()

    def cut(self) -> None:
        """Close both ends."""
        if self._connecting is not None:
            self._connecting.cancel()
        self.client.abort()
        self.server.abort()

    def _settle(self, *_: object) -> None:
        """Remove it when both ends are closed."""
        is_connecting = self._connecting is not None and not self._connecting.done()
        if self.client.is_gone and self.server.is_gone and not is_connecting:
            self.troubles.links.discard(self)

    async def _connect(self) -> None:
        target = self.troubles.target
        assert target.hostname is not None
        assert target.port is not None
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: self.server, target.hostname, target.port
            )
        except OSError:
            # The server is unreachable.
            self.client.abort()
        else:
            if not self.client.is_open and self.troubles.flow is not Flow.SWALLOWED:
                self.server.finish()
