"""Steps for ledgers: several ledgers at a time and in turn, each ledger once at a time."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from functools import partial
from typing import Generic, TypeVar

from transferd.config import Limits
from transferd.ledger.store.errors import StoreError
from transferd.notifications.broker import TransportFailure
from transferd.notifications.retrying import fault_of, next_wait_s

Key = TypeVar("Key", bound=Hashable)


class LedgerLanes(Generic[Key]):
    """Runs `step` for each ledger that was added. It returns whether the ledger has more to do.

    A ledger with more to do waits behind the others. One whose step raises StoreError or
    TransportFailure waits alone, and twice as long after each further failure, up to a maximum.
    `note` gets the failure of each step, or None. `linger_s` is the wait before the first step, in
    which further work may come.
    """

    def __init__(
        self,
        step: Callable[[Key], Awaitable[bool]],
        note: Callable[[Key, Exception | None], None],
        limits: Limits,
        *,
        lanes_max: int,
        linger_s: float = 0.0,
    ) -> None:
        self._step = step
        self._note = note
        self._limits = limits
        self._lanes_max = lanes_max
        self._linger_s = linger_s
        self._ready: dict[Key, None] = {}
        self._waiting: dict[Key, asyncio.TimerHandle] = {}
        self._running: dict[Key, asyncio.Task[bool]] = {}
        # Added while they ran.
        self._again: set[Key] = set()
        # How long each ledger that fails has waited last.
        self._failing: dict[Key, float] = {}
        # Those that failed already when another ledger succeeded.
        self._excused: set[Key] = set()
        self._is_open = False
        self._crash: asyncio.Future[None] | None = None
        # The failure of a ledger if none has succeeded since; None if all is well.
        self.fault: str | None = None

    def __repr__(self) -> str:
        return f"<LedgerLanes {len(self._running)} of {self._lanes_max} running>"

    def add(self, key: Key) -> None:
        """The ledger has something to do."""
        if key in self._running:
            self._again.add(key)
        elif key not in self._waiting and key not in self._ready:
            self._wait(key, self._linger_s)

    async def run(self) -> None:
        """Run steps until cancelled; then running ones are cancelled. Raises the error of a step
        that is not a failure of PostgreSQL or the broker."""
        self._crash = asyncio.get_running_loop().create_future()
        self._is_open = True
        self._start()
        try:
            await self._crash
        finally:
            self._is_open = False
            for handle in self._waiting.values():
                handle.cancel()
            self._waiting.clear()
            for task in self._running.values():
                task.cancel()
            await asyncio.gather(*self._running.values(), return_exceptions=True)

    def _wait(self, key: Key, wait_s: float) -> None:
        if wait_s:
            loop = asyncio.get_running_loop()
            self._waiting[key] = loop.call_later(wait_s, self._make_ready, key)
        else:
            self._make_ready(key)

    def _make_ready(self, key: Key) -> None:
        self._waiting.pop(key, None)
        self._ready[key] = None
        self._start()

    def _start(self) -> None:
        while self._is_open and len(self._running) < self._lanes_max:
            key = self._next()
            if key is None:
                return
            del self._ready[key]
            task = asyncio.ensure_future(self._step(key))
            self._running[key] = task
            task.add_done_callback(partial(self._end, key))

    def _next(self) -> Key | None:
        """The first that is ready. Ledgers that fail, as at a server that hangs, get half of the
        lanes at most."""
        failing = sum(key in self._failing for key in self._running)
        may_fail = failing < max(self._lanes_max // 2, 1)
        return next((key for key in self._ready if may_fail or key not in self._failing), None)

    def _end(self, key: Key, task: asyncio.Task[bool]) -> None:
        del self._running[key]
        is_added = key in self._again
        self._again.discard(key)
        if task.cancelled() or self._crash is None or self._crash.done():
            return
        error = task.exception()
        if error is None:
            self._succeed(key)
            if task.result():
                self._make_ready(key)
            elif is_added:
                self._wait(key, self._linger_s)
        elif isinstance(error, StoreError | TransportFailure):
            self._fail(key, error)
        else:
            self._crash.set_exception(error)
        self._start()

    def _succeed(self, key: Key) -> None:
        self._failing.pop(key, None)
        self._excused = set(self._failing)
        self.fault = None
        self._note(key, None)

    def _fail(self, key: Key, error: Exception) -> None:
        wait_s = next_wait_s(self._failing.get(key, 0.0), self._limits)
        self._failing[key] = wait_s
        if key not in self._excused:
            self.fault = fault_of(error)
        self._note(key, error)
        self._wait(key, wait_s)
