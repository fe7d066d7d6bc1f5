"""The backlog's high and low water marks: who may come in, who waits, who is turned away."""

import asyncio
from collections import deque

from transferd.config import Limits
from transferd.domain.errors import Overloaded


class Gate:
    """Counts the envelopes inside. Above the high mark callers wait until the low one is reached;
    when inside and waiting together reach the bound, they are turned away."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._inside = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<Gate {self._inside} inside, {len(self._waiting)} waiting>"

    @property
    def inside(self) -> int:
        """How many envelopes are inside."""
        return self._inside

    @property
    def waiting(self) -> int:
        """How many callers wait outside."""
        return len(self._waiting)

    def try_enter(self) -> bool:
        """Come in at once, if the gate is open."""
        if self._inside >= self._limits.backlog_high:
            self._is_closed = True
        if self._is_closed:
            return False
        self._inside += 1
        return True

    async def wait(self, timeout_s: float) -> None:
        """Come in when it is one's turn. Raises Overloaded; then nothing happened."""
        if self._inside + len(self._waiting) >= self._limits.backlog_max:
            raise Overloaded()
        ticket = asyncio.get_running_loop().create_future()
        self._waiting.append(ticket)
        try:
            # Not wait_for: it may raise although the ticket was called; its place would be lost.
            await asyncio.wait([ticket], timeout=timeout_s)
        except asyncio.CancelledError:
            if ticket.done():
                self.leave()
            raise
        finally:
            if ticket in self._waiting:
                self._waiting.remove(ticket)
        if not ticket.done():
            raise Overloaded()

    def leave(self) -> None:
        """Go out; whoever waits comes in once the low mark is reached."""
        self._inside -= 1
        if self._is_closed and self._inside <= self._limits.backlog_low:
            self._is_closed = False
            while self._waiting and self._inside < self._limits.backlog_high:
                self._inside += 1
                self._waiting.popleft().set_result(None)
            # Who is left outside comes in at the next low mark; till then nobody may overtake them.
            self._is_closed = bool(self._waiting)
