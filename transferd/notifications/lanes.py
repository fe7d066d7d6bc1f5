"""One endpoint's deliveries: a bounded number at a time, and for each wallet in order."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from transferd.config import Limits


class Job:
    """A delivery that waits for its turn, or runs. `blockers`: wallets where others come first."""

    __slots__ = ("blockers", "run", "started_at", "wallets")

    def __init__(self, wallets: Sequence[str], run: Callable[[], Awaitable[bool]]) -> None:
        self.wallets = wallets
        self.run = run
        self.blockers = 0
        self.started_at = 0.0


class Lane:
    """The deliveries to one endpoint. `run` of a job tells whether it went well."""

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock
        # Per wallet, in the order in which they came. An event of two wallets is in two of them.
        self._queues: dict[str, deque[Job]] = {}
        self._ready: deque[Job] = deque()
        self._running: dict[Job, asyncio.Task[None]] = {}
        self._last_went_well = True
        self._is_stopped = False
        self.held = 0

    def __repr__(self) -> str:
        return f"<Lane {len(self._running)} of {self.held} running>"

    @property
    def has_room(self) -> bool:
        """Whether another delivery may be held here. One in trouble holds only what it tries."""
        limits = self._limits
        return self.held < (
            limits.endpoint_in_flight_max if self.is_in_trouble else limits.endpoint_held_max
        )

    @property
    def is_in_trouble(self) -> bool:
        """Whether the last delivery went wrong, or one takes suspiciously long."""
        if not self._last_went_well:
            return True
        oldest = next(iter(self._running), None)
        if oldest is None:
            return False
        return self._clock() - oldest.started_at > self._limits.endpoint_trouble_s

    @property
    def is_idle(self) -> bool:
        """Whether nothing is held, and nothing is remembered against the endpoint."""
        return not self.held and self._last_went_well

    def submit(self, job: Job) -> None:
        """Take a job. It runs when those of its wallets that came before are over."""
        self.held += 1
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
            job.started_at = self._clock()
            self._running[job] = asyncio.create_task(self._run(job))

    async def _run(self, job: Job) -> None:
        try:
            self._last_went_well = await job.run()
        finally:
            del self._running[job]
            self.held -= 1
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
