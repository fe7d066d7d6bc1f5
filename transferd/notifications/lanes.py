"""One endpoint's deliveries: a bounded number at a time, and for each wallet in order."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from transferd.config import Limits

# The clock that decides may be a little behind the one that woke us.
_WATCH_MIN_S = 0.001


class Job:
    """A delivery that waits for its turn, or runs. `blockers`: wallets where others come first.

    `run` makes it and tells whether it went well; `park` is called instead when the lane gives it
    up before it began.
    """

    __slots__ = ("blockers", "park", "run", "submitted_at", "wallets")

    def __init__(
        self,
        wallets: Sequence[str],
        run: Callable[[], Awaitable[bool]],
        park: Callable[[], None],
    ) -> None:
        self.wallets = wallets
        self.run = run
        self.park = park
        self.blockers = 0
        self.submitted_at = 0.0


class Lane:
    """The deliveries to one endpoint. `has_spare` tells whether there is room that nobody needs."""

    def __init__(
        self, limits: Limits, clock: Callable[[], float], has_spare: Callable[[], bool]
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._has_spare = has_spare
        # Per wallet, in the order in which they came. An event of two wallets is in two of them.
        self._queues: dict[str, deque[Job]] = {}
        # All that did not begin yet, as a set in order, and those of them that nothing blocks.
        self._waiting: dict[Job, None] = {}
        self._ready: deque[Job] = deque()
        self._running: dict[Job, asyncio.Task[None]] = {}
        self._failures_in_a_row = 0
        # When a delivery last came to an end, or the first began after a rest.
        self._ended_at = 0.0
        self._watch: asyncio.TimerHandle | None = None
        self._is_stopped = False

    def __repr__(self) -> str:
        return f"<Lane {len(self._running)} of {self.held} running>"

    @property
    def held(self) -> int:
        """Deliveries that wait or run."""
        return len(self._waiting) + len(self._running)

    @property
    def has_room(self) -> bool:
        """Whether another delivery may be held here.

        What is not held will be overtaken by what comes later, so as much as possible is; but one
        in trouble holds only what it tries.
        """
        if self.is_in_trouble:
            return self.held < self._limits.endpoint_in_flight_max
        return self.held < self._limits.endpoint_held_max or self._has_spare()

    @property
    def is_in_trouble(self) -> bool:
        """Whether all deliveries go wrong, or none has come to its end for suspiciously long."""
        return self._failures_in_a_row >= self._limits.endpoint_in_flight_max or self._hangs

    @property
    def is_idle(self) -> bool:
        """Whether nothing is held, and nothing is remembered against the endpoint."""
        return not self.held and not self._failures_in_a_row

    @property
    def _hangs(self) -> bool:
        limit_s = self._limits.endpoint_trouble_s
        return bool(self._running) and self._clock() - self._ended_at > limit_s

    def submit(self, job: Job) -> None:
        """Take a job. It runs when those of its wallets that came before are over."""
        job.submitted_at = self._clock()
        if not self._running:
            self._ended_at = job.submitted_at
        self._waiting[job] = None
        for wallet in job.wallets:
            queue = self._queues.setdefault(wallet, deque())
            job.blockers += bool(queue)
            queue.append(job)
        if not job.blockers:
            self._ready.append(job)
        self._start()

    async def stop(self) -> None:
        """Give up what runs and begin nothing more."""
        self._is_stopped = True
        if self._watch is not None:
            self._watch.cancel()
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self) -> None:
        while (
            self._ready
            and not self._is_stopped
            and len(self._running) < self._limits.endpoint_in_flight_max
        ):
            job = self._ready.popleft()
            del self._waiting[job]
            self._running[job] = asyncio.create_task(self._run(job))
        if self._waiting and self._watch is None and not self._is_stopped:
            self._watch_after(self._limits.endpoint_trouble_s)

    async def _run(self, job: Job) -> None:
        went_well = False
        try:
            went_well = await job.run()
        finally:
            self._failures_in_a_row = 0 if went_well else self._failures_in_a_row + 1
            del self._running[job]
            self._ended_at = self._clock()
            for wallet in job.wallets:
                self._leave(wallet)
            self._start()

    def _leave(self, wallet: str) -> None:
        """The first of a wallet's queue is over; the next one may have waited only for it."""
        queue = self._queues[wallet]
        queue.popleft()
        if not queue:
            del self._queues[wallet]
            return
        queue[0].blockers -= 1
        if not queue[0].blockers:
            self._ready.append(queue[0])

    def _watch_after(self, delay_s: float) -> None:
        self._watch = asyncio.get_running_loop().call_later(delay_s, self._park_if_it_lasts)

    def _park_if_it_lasts(self) -> None:
        """What waits behind deliveries that do not end would keep its room from all others."""
        self._watch = None
        if not self._waiting:
            return
        now, oldest = self._clock(), next(iter(self._waiting))
        if not self._hangs and now - oldest.submitted_at <= self._limits.endpoint_hold_s:
            ends_at = self._ended_at + self._limits.endpoint_trouble_s
            self._watch_after(max(ends_at - now, _WATCH_MIN_S))
            return
        parked, self._waiting = self._waiting, {}
        self._ready.clear()
        self._queues = {wallet: deque([job]) for job in self._running for wallet in job.wallets}
        for job in parked:
            job.park()
