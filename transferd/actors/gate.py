"""The gate: limits the backlog of a ledger with a high and a low water mark."""

import asyncio

from transferd.actors.intake import Intake
from transferd.config import Limits
from transferd.domain.errors import Overloaded


class Gate:
    """Counts the commands inside. From the high mark on, callers wait until the low mark is
    reached. When the commands inside and the waiting callers together reach `backlog_max`, or those
    of all ledgers `backlog_all_max`, further callers get Overloaded, but a ledger may always have
    one command. A batch counts as one command: `batches_max` limits batches."""

    def __init__(self, intake: Intake, limits: Limits) -> None:
        self._intake = intake
        self._limits = limits
        self._inside = 0
        # In the order of their arrival; the values are not used.
        self._waiting: dict[asyncio.Future[None], None] = {}
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<Gate {self._inside} inside, {len(self._waiting)} waiting>"

    @property
    def inside(self) -> int:
        """The number of commands inside."""
        return self._inside

    @property
    def waiting(self) -> int:
        """The number of callers that wait."""
        return len(self._waiting)

    def try_enter(self) -> bool:
        """Enter and return True if the gate is open."""
        if self._inside >= self._limits.backlog_high:
            self._is_closed = True
        if self._is_closed or (self._inside and self._intake.is_full):
            return False
        self._inside += 1
        self._intake.enter()
        return True

    async def wait(self, timeout_s: float) -> None:
        """Wait for the gate to open and enter. Raises Overloaded; then nothing has happened."""
        backlog = self._inside + len(self._waiting)
        if backlog >= self._limits.backlog_max or self._intake.is_full:
            raise Overloaded()
        ticket = asyncio.get_running_loop().create_future()
        self._waiting[ticket] = None
        self._intake.enter()
        try:
            # Not wait_for: it may raise although the ticket is done, and the place would be lost.
            await asyncio.wait([ticket], timeout=timeout_s)
        except asyncio.CancelledError:
            if ticket.done():
                self.leave()
            else:
                self._intake.leave()
            raise
        finally:
            self._waiting.pop(ticket, None)
        if not ticket.done():
            self._intake.leave()
            raise Overloaded()

    def leave(self) -> None:
        """Leave. At the low mark, waiting callers enter in order, up to the high mark."""
        self._inside -= 1
        self._intake.leave()
        if self._is_closed and self._inside <= self._limits.backlog_low:
            self._is_closed = False
            while self._waiting and self._inside < self._limits.backlog_high:
                ticket = next(iter(self._waiting))
                del self._waiting[ticket]
                self._inside += 1
                ticket.set_result(None)
            # The other callers enter at the next low mark. Until then no new caller may overtake
            # them.
            self._is_closed = bool(self._waiting)
