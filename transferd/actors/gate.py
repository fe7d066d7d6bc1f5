"""The backlog's high and low water marks: who may come in, who waits, who is turned away."""

import asyncio

from transferd.config import Limits
from transferd.domain.errors import Overloaded


class Gate:
    """Counts the transfers inside. Above the high mark callers wait until the low one is reached;
    when inside and waiting together reach the bound, they are turned away."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._inside = 0
        # With how many transfers each will come in.
        self._waiting: dict[asyncio.Future[None], int] = {}
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<Gate {self._inside} inside, {len(self._waiting)} waiting>"

    @property
    def inside(self) -> int:
        """How many transfers are inside."""
        return self._inside

    @property
    def waiting(self) -> int:
        """How many callers wait outside."""
        return len(self._waiting)

    def try_enter(self, weight: int = 1) -> bool:
        """Come in at once, if the gate is open; a batch of any size does."""
        if self._inside >= self._limits.backlog_high:
            self._is_closed = True
        if self._is_closed:
            return False
        self._inside += weight
        return True

    async def wait(self, timeout_s: float, weight: int = 1) -> None:
        """Come in when it is one's turn. Raises Overloaded; then nothing happened."""
        if self._inside + len(self._waiting) >= self._limits.backlog_max:
            raise Overloaded()
        ticket = asyncio.get_running_loop().create_future()
        self._waiting[ticket] = weight
        try:
            # Not wait_for: it may raise although the ticket was called; its place would be lost.
            await asyncio.wait([ticket], timeout=timeout_s)
        except asyncio.CancelledError:
            if ticket.done():
                self.leave(weight)
            raise
        finally:
            self._waiting.pop(ticket, None)
        if not ticket.done():
            raise Overloaded()

    def leave(self, weight: int = 1) -> None:
        """Go out; at the low mark the callers that wait come in."""
        self._inside -= weight
        if self._is_closed and self._inside <= self._limits.backlog_low:
            self._is_closed = False
            while self._waiting and self._inside < self._limits.backlog_high:
                ticket = next(iter(self._waiting))
                self._inside += self._waiting.pop(ticket)
                ticket.set_result(None)
            # The rest comes in at the next low mark; until then no new caller may overtake it.
            self._is_closed = bool(self._waiting)
