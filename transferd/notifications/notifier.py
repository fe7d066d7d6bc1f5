"""The notifier: reads the deliveries that are due, makes the attempts and writes their results.

The row of a delivery decides what is done. A wake-up only says which rows to look at, so one too
many does nothing, and a row without one is found by a sweep.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from transferd.config import Limits
from transferd.ledger.store.database import Database
from transferd.ledger.store.deliveries import (
    RetryKey,
    WaitingDelivery,
    endpoints_waiting,
    make_due,
    read_waiting,
)
from transferd.ledger.store.errors import StoreError
from transferd.notifications.attempt import Attempt, record_of
from transferd.notifications.directory import LOG, Directory
from transferd.notifications.event import UNREADABLE, Event, why_unreadable
from transferd.notifications.lane import Lane
from transferd.notifications.results import Results
from transferd.notifications.sinks.result import DELETED, DISABLED, SinkResult
from transferd.notifications.sinks.sinks import Sinks
from transferd.notifications.wakeup import WakeUp
from transferd.observability.facts import Facts, NotifierFailed


class Notifier:
    """Delivers what `wake` names. Two loops, `read` and `write`; attempts run between them.

    `retries` are wake-ups to send, each with its delay in seconds.
    """

    def __init__(
        self,
        *,
        database: Database,
        directory: Directory,
        sinks: Sinks,
        delays_s: Sequence[float],
        limits: Limits,
        facts: Facts,
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._directory = directory
        self._sinks = sinks
        self._delays_s = tuple(delays_s)
        self._limits = limits
        self._facts = facts
        self._clock = clock
        self._lanes: dict[str, Lane] = {}
        # The endpoints whose due deliveries are to be read, and the retries whose time has come.
        self._hungry: dict[str, None] = {}
        self._due: list[RetryKey] = []
        self._sweeps = False
        self._something_to_read = asyncio.Event()
        self._ended: deque[Attempt] = deque()
        self._something_to_write = asyncio.Event()
        self._is_writing = False
        self._is_draining = False
        self._idle = asyncio.Event()
        self.retries: asyncio.Queue[tuple[WakeUp, float]] = asyncio.Queue(limits.retries_queued_max)
        self._results = Results(database, limits, facts)
        self._fault: str | None = None

    def __repr__(self) -> str:
        return f"<Notifier {self.in_flight} in flight, {self.fault or 'running'}>"

    @property
    def fault(self) -> str | None:
        """Why nothing can be read or written now; None if all is well."""
        return self._fault or self._results.fault

    @property
    def in_flight(self) -> int:
        """Deliveries that were read and whose results are not written yet."""
        return sum(len(lane.held) for lane in self._lanes.values())

    def wake(self, wakeup: WakeUp) -> None:
        """Look at these rows."""
        self._due += wakeup.retries
        for endpoint_id in (*wakeup.endpoints, *(retry.endpoint_id for retry in wakeup.retries)):
            self._hungry[endpoint_id] = None
        self._read_soon()

    def sweep(self) -> None:
        """Look at all rows that are due."""
        self._sweeps = True
        self._read_soon()

    def forget(self) -> None:
        """Read nothing more until it is woken up: another worker may have taken over."""
        self._hungry.clear()
        self._due.clear()
        self._sweeps = False
        for lane in self._lanes.values():
            lane.has_more = False

    async def wait_idle(self) -> None:
        """Return when nothing is known to be due or in flight."""
        await self._idle.wait()

    async def read(self) -> None:
        """Begin deliveries until cancelled."""
        wait_s = 0.0
        try:
            while True:
                await self._something_to_read.wait()
                self._something_to_read.clear()
                # Others may be about to come; one query reads them all.
                await asyncio.sleep(self._limits.notify_linger_s)
                try:
                    await self.read_once()
                except StoreError as error:
                    wait_s = await self._failed(error, wait_s)
                    self._something_to_read.set()
                else:
                    self._fault, wait_s = None, 0.0
        finally:
            for lane in self._lanes.values():
                await lane.stop()

    async def read_once(self) -> int:
        """Read what is due and begin it; how many deliveries. Raises StoreError."""
        if self._is_draining:
            return 0
        await self._take_wakeups()
        hungry, room = self._next_lanes()
        if not room:
            if self._hungry:
                self._read_soon()
            self._idle_if_so()
            return 0
        in_flight = [key for id in room for key in self._lanes[id].held]
        try:
            found, version = await read_waiting(self._database, room, in_flight)
            await self._directory.refresh(self._database, version)
        except StoreError:
            for endpoint_id in room:
                self._lanes[endpoint_id].is_being_read = False
            self._hungry = hungry | self._hungry
            raise
        for delivery in found:
            lane = self._lanes[delivery.endpoint_id]
            if lane.reading_is_stale:
                lane.has_more = True
                continue
            self._begin(delivery)
            room[delivery.endpoint_id] -= 1
        for endpoint_id, left in room.items():
            lane = self._lanes[endpoint_id]
            lane.is_being_read = False
            lane.has_more = lane.has_more or left == 0
            lane.read_if_more()
            self._forget_if_idle(endpoint_id)
        if self._hungry:
            self._read_soon()
        self._idle_if_so()
        # Deliveries that need no waiting were all made just now; let others have the loop.
        await asyncio.sleep(0)
        return len(found)

    async def write(self) -> None:
        """Write results until cancelled."""
        while True:
            await self._something_to_write.wait()
            self._something_to_write.clear()
            # An attempt ends quickly; a transaction for each would be dear.
            await asyncio.sleep(self._limits.notify_linger_s)
            while self._ended:
                await self.write_once()

    async def write_once(self) -> int:
        """Write the results of some attempts in one transaction; how many."""
        count = min(len(self._ended), self._limits.notify_batch_max)
        attempts = [self._ended.popleft() for _ in range(count)]
        self._is_writing = True
        records = [
            (attempt, record_of(attempt.delivery, attempt.result, self._delays_s))
            for attempt in attempts
            if attempt.result is not None and attempt.result is not DELETED
        ]
        gone = [attempt.key for attempt in attempts if attempt.result is DELETED]
        await self._results.delete(gone)
        unwritten = await self._results.write(records)
        self._is_writing = False
        retries: dict[float, list[RetryKey]] = {}
        for attempt, record in records:
            self._facts.emit(attempt.fact(record))
            if record.wait_s is not None:
                retry = RetryKey(*attempt.key, attempt.delivery.attempts + 1)
                retries.setdefault(record.wait_s, []).append(retry)
        for delay_s, keys in retries.items():
            # With too many queued, since the broker is away, the sweep finds the others.
            with suppress(asyncio.QueueFull):
                self.retries.put_nowait((WakeUp(retries=tuple(keys)), delay_s))
        for attempt in attempts:
            if attempt not in unwritten:
                lane = self._lanes[attempt.endpoint_id]
                lane.release(attempt)
                self._forget_if_idle(attempt.endpoint_id)
        self._idle_if_so()
        return count

    async def drain(self) -> None:
        """Begin nothing more and wait for what was begun, as long as that may take."""
        self._is_draining = True
        for lane in self._lanes.values():
            lane.put_back()
        give_up_at = self._clock() + self._limits.webhook_timeout_s + self._limits.command_timeout_s
        while (  # noqa: ASYNC110 an event for something that happens once is not worth its upkeep
            self._ended or self._is_writing or any(lane.running for lane in self._lanes.values())
        ) and self._clock() < give_up_at:
            await asyncio.sleep(self._limits.relay_poll_s)

    async def _take_wakeups(self) -> None:
        """Make due what retries name, and find what a sweep asks for. Raises StoreError."""
        if self._sweeps:
            for endpoint_id in await endpoints_waiting(self._database):
                self._hungry[endpoint_id] = None
            self._sweeps = False
        if self._due:
            due, self._due = self._due, []
            try:
                await make_due(self._database, due)
            except StoreError:
                self._due += due
                raise

    def _next_lanes(self) -> tuple[dict[str, None], dict[str, int]]:
        """The endpoints to read next, and how much room the lane of each has, where it has some."""
        hungry = dict.fromkeys(list(self._hungry)[: self._limits.notify_endpoints_max])
        is_tight = self.in_flight >= self._limits.notify_held_max
        room = {}
        for endpoint_id in hungry:
            del self._hungry[endpoint_id]
            lane = self._lanes.get(endpoint_id)
            if lane is None:
                read = partial(self._read_endpoint, endpoint_id)
                lane = self._lanes[endpoint_id] = Lane(self._limits, self._deliver, read)
            count = lane.room(is_tight=is_tight)
            # What comes while the table is read makes the endpoint hungry again.
            lane.has_more = count == 0
            if count:
                room[endpoint_id] = count
                lane.is_being_read, lane.reading_is_stale = True, False
        return hungry, room

    def _begin(self, delivery: WaitingDelivery) -> None:
        lane = self._lanes[delivery.endpoint_id]
        try:
            event = Event.read(delivery.event)
        except UNREADABLE as error:
            event = Event.unreadable(delivery.event_id)
            attempt = Attempt(delivery, event)
            self._end_at_once(lane, attempt, SinkResult(why_unreadable(error), is_unreadable=True))
            return
        attempt = Attempt(delivery, event)
        if not self._directory.exists(delivery.endpoint_id):
            self._end_at_once(lane, attempt, DELETED)
        elif self._directory.is_disabled(delivery.endpoint_id):
            self._end_at_once(lane, attempt, DISABLED)
        elif delivery.endpoint_id == LOG and self._sinks.log_is_immediate:
            self._end_at_once(lane, attempt, self._sinks.write_log(event))
        else:
            lane.submit(attempt)

    def _end_at_once(self, lane: Lane, attempt: Attempt, result: SinkResult) -> None:
        attempt.result = result
        lane.hold(attempt)
        self._ended.append(attempt)
        self._something_to_write.set()

    async def _deliver(self, attempt: Attempt) -> bool:
        """Make an attempt; whether it succeeded."""
        attempt.begin(self._clock(), self._facts.begin)
        event = attempt.event
        try:
            if attempt.endpoint_id == LOG:
                result = await self._sinks.log(event)
            else:
                webhook = self._directory.get(attempt.endpoint_id)
                if webhook is None:
                    attempt.result = DELETED
                    return True
                result = await self._sinks.post(
                    webhook, event, attempt.delivery.event, attempt.traceparent
                )
            attempt.end(self._clock(), result)
        except Exception as error:
            # A fault of ours; without a result the delivery would be held for ever.
            self._facts.emit(NotifierFailed(error))
            attempt.end(self._clock(), SinkResult(f"could not be sent: {type(error).__name__}"))
        finally:
            self._ended.append(attempt)
            self._something_to_write.set()
        assert attempt.result is not None
        return attempt.result.error is None

    def _forget_if_idle(self, endpoint_id: str) -> None:
        lane = self._lanes.get(endpoint_id)
        if lane is not None and lane.is_idle and endpoint_id not in self._hungry:
            del self._lanes[endpoint_id]

    def _read_endpoint(self, endpoint_id: str) -> None:
        self._hungry[endpoint_id] = None
        self._read_soon()

    def _read_soon(self) -> None:
        self._idle.clear()
        self._something_to_read.set()

    def _idle_if_so(self) -> None:
        knows_work = self._hungry or self._due or self._sweeps
        if not knows_work and all(lane.is_idle for lane in self._lanes.values()):
            self._idle.set()

    async def _failed(self, error: StoreError, wait_s: float) -> float:
        """Say so and wait; how long it was."""
        self._fault = f"PostgreSQL: {error}"
        self._facts.emit(NotifierFailed(error))
        limits = self._limits
        wait_s = min(max(wait_s * 2, limits.relay_wait_first_s), limits.relay_wait_max_s)
        await asyncio.sleep(wait_s)
        return wait_s
