"""The deliveries to one endpoint: a bounded number at a time, and those of a wallet in order."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from transferd.config import Limits
from transferd.ledger.store.deliveries import DeliveryKey
from transferd.notifications.attempt import Attempt


class Lane:
    """The deliveries of one endpoint that are held; the others wait in the table.

    `deliver` makes an attempt and returns whether it succeeded. `read` asks for another reading of
    the table.
    """

    def __init__(
        self,
        limits: Limits,
        deliver: Callable[[Attempt], Awaitable[bool]],
        read: Callable[[], None],
    ) -> None:
        self._limits = limits
        self._deliver = deliver
        self._read = read
        # From the reading of the row to the writing of the result.
        self.held: dict[DeliveryKey, Attempt] = {}
        # Per wallet, in order. An event of two wallets is in two of them; an attempt begins when it
        # is the first in each.
        self._queues: dict[str, deque[Attempt]] = {}
        self._ready: deque[Attempt] = deque()
        self.running: dict[Attempt, asyncio.Task[None]] = {}
        self._failures_in_a_row = 0
        self._pauses_in_a_row = 0
        self._pause: asyncio.TimerHandle | None = None
        # False once something was put back: deliveries that the reading finds would overtake it.
        self.is_being_read = False
        # From `stop` until the endpoint is read again. Its end of a pause would read it otherwise.
        self._is_stopped = False
        # The table may have more deliveries than were read.
        self.has_more = False

    def __repr__(self) -> str:
        return f"<Lane {len(self.running)} of {len(self.held)} running>"

    @property
    def is_idle(self) -> bool:
        """Whether nothing is held, and nothing is known to wait."""
        return not (self.held or self.has_more or self.is_being_read or self._pause)

    def room(self, *, is_tight: bool) -> int:
        """Before a reading: how many more may be held. As many as run at a time, and more of an
        endpoint that does not fail, unless memory `is_tight`."""
        self._is_stopped = False
        if self._pause is not None:
            return 0
        held_max = self._limits.endpoint_in_flight_max
        if not is_tight and not self._is_failing:
            held_max = self._limits.endpoint_held_max
        return max(held_max - len(self.held), 0)

    def submit(self, attempt: Attempt) -> None:
        """Take an attempt. It runs when those of its wallets that came before have ended."""
        self.hold(attempt)
        is_first = True
        for wallet in attempt.event.wallets:
            queue = self._queues.setdefault(wallet, deque())
            is_first = is_first and not queue
            queue.append(attempt)
        if is_first:
            self._ready.append(attempt)
        self._start()

    def hold(self, attempt: Attempt) -> None:
        """Hold an attempt that needs no running."""
        self.held[attempt.key] = attempt

    def release(self, attempt: Attempt) -> None:
        """The result of the attempt is written."""
        del self.held[attempt.key]
        self.read_if_more()

    def read_if_more(self) -> None:
        """Ask for a reading of the table if it may have more and half of the held ones are done."""
        is_half_done = 2 * len(self.held) <= self._limits.endpoint_held_max
        if self.has_more and self._pause is None and is_half_done:
            self._read()

    def put_back(self) -> None:
        """Let go of all attempts that have not begun: they wait in the table."""
        waiting = {*self._ready}.union(*self._queues.values()) - self.running.keys()
        self.has_more = self.has_more or self.is_being_read or bool(waiting)
        self.is_being_read = False
        for attempt in waiting:
            del self.held[attempt.key]
        self._ready.clear()
        # A running attempt is the first in each of its queues, and later ones wait for it.
        self._queues = {
            wallet: deque([queue[0]])
            for wallet, queue in self._queues.items()
            if queue[0] in self.running
        }

    def stop(self) -> None:
        """Begin nothing more, unless more is submitted. Running attempts come to their end."""
        self.put_back()
        self.has_more = False
        self._is_stopped = True
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None

    @property
    def _is_failing(self) -> bool:
        return self._failures_in_a_row >= self._limits.endpoint_in_flight_max

    def _start(self) -> None:
        while self._ready and len(self.running) < self._limits.endpoint_in_flight_max:
            attempt = self._ready.popleft()
            self.running[attempt] = asyncio.create_task(self._run(attempt))

    async def _run(self, attempt: Attempt) -> None:
        succeeded = False
        try:
            succeeded = await self._deliver(attempt)
        finally:
            del self.running[attempt]
            for wallet in attempt.event.wallets:
                self._leave(wallet)
            self._note(succeeded)
            self._start()

    def _leave(self, wallet: str) -> None:
        """The first of a wallet's queue has ended; the next may be the first in all its queues."""
        queue = self._queues[wallet]
        queue.popleft()
        if not queue:
            del self._queues[wallet]
        elif all(self._queues[other][0] is queue[0] for other in queue[0].event.wallets):
            self._ready.append(queue[0])

    def _note(self, succeeded: bool) -> None:
        """Pause when as many attempts in a row have failed as may run at a time."""
        if succeeded:
            self._failures_in_a_row = self._pauses_in_a_row = 0
            return
        self._failures_in_a_row += 1
        if self._is_failing and self._pause is None and not self._is_stopped:
            self.put_back()
            pause_s = min(
                self._limits.endpoint_pause_first_s * 2.0**self._pauses_in_a_row,
                self._limits.endpoint_pause_max_s,
            )
            self._pauses_in_a_row += 1
            self._pause = asyncio.get_running_loop().call_later(pause_s, self._resume)

    def _resume(self) -> None:
        self._pause = None
        self._read()
