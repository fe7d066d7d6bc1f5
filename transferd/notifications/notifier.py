"""The notifier: reads deliveries that are due, makes the attempts and hands on their results.

The row of a delivery decides. A wake-up only names endpoints to look at, so a surplus wake-up does
nothing, and a sweep finds rows without one.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from transferd.config import Limits
from transferd.ledger.store.database import LedgerDatabase
from transferd.ledger.store.deliveries import LOG, WaitingDelivery, read_waiting
from transferd.ledger.store.errors import StoreError
from transferd.notifications.attempt import Attempt
from transferd.notifications.directory import Directory
from transferd.notifications.event import Event, Unreadable
from transferd.notifications.lane import Lane
from transferd.notifications.results import Results
from transferd.notifications.retrying import fault_of, run_forever
from transferd.notifications.sinks.result import DISABLED, SinkResult
from transferd.notifications.sinks.sinks import Sinks
from transferd.observability.facts import Facts, NotifierFailed


class Notifier:
    """Makes the due deliveries of the endpoints that `wake` names. `delays_s` is the back-off."""

    def __init__(
        self,
        *,
        database: LedgerDatabase,
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
        self._limits = limits
        self._facts = facts
        self._clock = clock
        # One for each endpoint that has work; and the endpoints that are to be read.
        self._lanes: dict[str, Lane] = {}
        self._hungry: dict[str, None] = {}
        self._something_to_read = asyncio.Event()
        self.results = Results(
            database=database, delays_s=delays_s, written=self._let_go, limits=limits, facts=facts
        )
        # Why nothing can be read now; None if all is well.
        self.fault: str | None = None

    def __repr__(self) -> str:
        return f"<Notifier {self.in_flight} in flight, {self.fault or 'running'}>"

    @property
    def in_flight(self) -> int:
        """Deliveries that were read and whose results are not written yet."""
        return sum(len(lane.held) for lane in self._lanes.values())

    def wake(self, endpoint_ids: Sequence[str]) -> None:
        """Look at these endpoints."""
        self._hungry.update(dict.fromkeys(endpoint_ids))
        self._something_to_read.set()

    def forget(self) -> None:
        """Begin nothing more until it is woken up: another worker may have taken over."""
        self._hungry.clear()
        for endpoint_id, lane in [*self._lanes.items()]:
            lane.stop()
            self._forget_if_idle(endpoint_id)

    async def drain(self) -> None:
        """Wait until running attempts are over and written, for a time. `read` has ended."""
        for lane in self._lanes.values():
            lane.put_back()
        running = [task for lane in self._lanes.values() for task in lane.running.values()]
        wait_s = self._limits.webhook_timeout_s + self._limits.command_timeout_s
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await asyncio.gather(*running, return_exceptions=True)
                await self.results.wait_written()

    async def read(self) -> None:
        """Begin deliveries until cancelled."""
        await run_forever(self.read_once, self._limits, self._note)

    async def read_once(self) -> int:
        """Wait until something may be due, read it and begin it; how many deliveries.

        Raises StoreError; then the endpoints are read again.
        """
        await self._something_to_read.wait()
        self._something_to_read.clear()
        # Further wake-ups may follow at once; one query reads for all of them.
        await asyncio.sleep(self._limits.notify_linger_s)
        lanes, room = self._next_lanes()
        found = await self._read(lanes, room) if room else []
        for delivery in found:
            lane = lanes[delivery.endpoint_id]
            if lane.is_being_read:
                self._begin(lane, delivery)
                room[delivery.endpoint_id] -= 1
        for endpoint_id, left in room.items():
            lane = lanes[endpoint_id]
            lane.is_being_read = False
            lane.has_more = lane.has_more or left == 0
            lane.read_if_more()
            self._forget_if_idle(endpoint_id)
        # Immediate deliveries were all made just now; other tasks get the event loop.
        await asyncio.sleep(0)
        return len(found)

    def _next_lanes(self) -> tuple[dict[str, Lane], dict[str, int]]:
        """The lanes of the endpoints to read next, and how much room each has, if it has some."""
        is_tight = self.in_flight >= self._limits.notify_held_max
        lanes: dict[str, Lane] = {}
        room: dict[str, int] = {}
        for endpoint_id in [*self._hungry][: self._limits.notify_endpoints_max]:
            del self._hungry[endpoint_id]
            lane = self._lanes.get(endpoint_id)
            if lane is None:
                read = partial(self.wake, [endpoint_id])
                lane = self._lanes[endpoint_id] = Lane(self._limits, self._deliver, read)
            count = lane.room(is_tight=is_tight)
            # A wake-up while the table is read makes the endpoint hungry again.
            lane.has_more = count == 0
            if count:
                lanes[endpoint_id], room[endpoint_id] = lane, count
                lane.is_being_read = True
        if self._hungry:
            self._something_to_read.set()
        return lanes, room

    async def _read(self, lanes: dict[str, Lane], room: dict[str, int]) -> list[WaitingDelivery]:
        in_flight = [key for lane in lanes.values() for key in lane.held]
        try:
            found, version = await read_waiting(self._database, room, in_flight)
            await self._directory.refresh(self._database, version)
        except StoreError:
            for lane in lanes.values():
                lane.is_being_read = False
            self.wake([*lanes])
            raise
        return found

    def _begin(self, lane: Lane, delivery: WaitingDelivery) -> None:
        result: SinkResult | None = None
        try:
            event = Event.read(delivery.event)
        except Unreadable as error:
            event = Event.unreadable(delivery.event_id)
            result = SinkResult(str(error), is_unreadable=True)
        else:
            if delivery.endpoint_id != LOG:
                result = None if self._directory.active(delivery.endpoint_id) else DISABLED
            elif self._sinks.log_is_immediate:
                result = self._sinks.write_log(event)
        attempt = Attempt(delivery, event, result)
        if result is None:
            lane.submit(attempt)
        else:
            lane.hold(attempt)
            self.results.add(attempt)

    async def _deliver(self, attempt: Attempt) -> bool:
        """Make an attempt; whether it succeeded."""
        attempt.begin(self._clock(), self._facts.begin)
        try:
            result = await self._send(attempt)
        except Exception as error:
            # A fault of this program. Without a result the lane would never release the delivery.
            self._facts.emit(NotifierFailed(error))
            result = SinkResult(f"could not be sent: {type(error).__name__}")
        attempt.end(self._clock(), result)
        self.results.add(attempt)
        return result.error is None

    async def _send(self, attempt: Attempt) -> SinkResult:
        if attempt.endpoint_id == LOG:
            return await self._sinks.log(attempt.event)
        webhook = self._directory.active(attempt.endpoint_id)
        if webhook is None:
            return DISABLED
        return await self._sinks.post(
            webhook, attempt.event, attempt.delivery.event, attempt.traceparent
        )

    def _let_go(self, attempt: Attempt) -> None:
        """The result of the attempt is written."""
        self._lanes[attempt.endpoint_id].release(attempt)
        self._forget_if_idle(attempt.endpoint_id)

    def _forget_if_idle(self, endpoint_id: str) -> None:
        lane = self._lanes.get(endpoint_id)
        if lane is not None and lane.is_idle and endpoint_id not in self._hungry:
            del self._lanes[endpoint_id]

    def _note(self, error: Exception | None) -> None:
        self.fault = fault_of(error)
        if error is not None:
            self._facts.emit(NotifierFailed(error))
