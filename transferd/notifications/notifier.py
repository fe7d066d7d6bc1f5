"""The notifier: reads deliveries that are due, makes the attempts and hands on their results.

The row of a delivery decides. A wake-up only names endpoints to look at, so a surplus wake-up does
nothing, and a sweep finds rows without one.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from transferd.config import Limits
from transferd.domain.ledger import Ledger
from transferd.ledger.store.database import Database, LedgerDatabase
from transferd.ledger.store.deliveries import LOG, WaitingDelivery, read_waiting
from transferd.ledger.store.errors import StoreError
from transferd.ledger.watch import LedgerList
from transferd.notifications.attempt import Attempt
from transferd.notifications.directory import Directories, Directory
from transferd.notifications.event import Event, Unreadable
from transferd.notifications.lane import Lane
from transferd.notifications.ledger_lanes import LedgerLanes
from transferd.notifications.results import Results
from transferd.notifications.sinks.result import DISABLED, SinkResult
from transferd.notifications.sinks.sinks import Sinks
from transferd.observability.facts import Facts, NotifierFailed


class _Open:
    """A ledger that has deliveries in flight, with a lane for each endpoint that has some."""

    def __init__(self, ledger: Ledger, database: LedgerDatabase, directory: Directory) -> None:
        self.ledger = ledger
        self.database = database
        self.directory = directory
        self.lanes: dict[str, Lane] = {}

    @property
    def held(self) -> int:
        """Deliveries that were read and whose results are not written yet."""
        return sum(len(lane.held) for lane in self.lanes.values())


class Notifier:
    """Makes the due deliveries of the endpoints that `wake` names. `delays_s` is the back-off.

    Several ledgers are read at a time, and none holds more than half of all deliveries, so that
    slow receivers of one ledger delay no other.
    """

    def __init__(
        self,
        *,
        database: Database,
        ledgers: LedgerList,
        directories: Directories,
        sinks: Sinks,
        delays_s: Sequence[float],
        limits: Limits,
        facts: Facts,
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._ledgers = ledgers
        self._directories = directories
        self._sinks = sinks
        self._limits = limits
        self._facts = facts
        self._clock = clock
        # By number of the ledger; and its endpoints that are to be read.
        self._open: dict[int, _Open] = {}
        self._hungry: dict[int, dict[str, None]] = {}
        # Set when a ledger has no more deliveries in flight.
        self._closed = asyncio.Event()
        self._reading = LedgerLanes[int](
            self._read,
            self._note,
            limits,
            lanes_max=limits.notify_lanes_max,
            # Further wake-ups may follow at once; one query reads for all of them.
            linger_s=limits.notify_linger_s,
        )
        self.results = Results(
            database=database, delays_s=delays_s, written=self._let_go, limits=limits, facts=facts
        )

    def __repr__(self) -> str:
        return f"<Notifier {self.in_flight} in flight, {self.fault or 'running'}>"

    @property
    def fault(self) -> str | None:
        """Why nothing can be read now; None if all is well."""
        return self._reading.fault

    @property
    def in_flight(self) -> int:
        """Deliveries that were read and whose results are not written yet."""
        return sum(each.held for each in self._open.values())

    def wake(self, ledger_number: int, endpoint_ids: Sequence[str]) -> None:
        """Look at these endpoints."""
        if endpoint_ids:
            self._hungry.setdefault(ledger_number, {}).update(dict.fromkeys(endpoint_ids))
            self._reading.add(ledger_number)

    def forget(self, is_meant: Callable[[int], bool] = lambda _: True) -> None:
        """Begin nothing more in these ledgers until they are woken up: another worker may have
        taken over."""
        for number in [*filter(is_meant, self._hungry)]:
            del self._hungry[number]
        for opened in [each for number, each in self._open.items() if is_meant(number)]:
            for endpoint_id, lane in [*opened.lanes.items()]:
                lane.stop()
                self._forget_if_idle(opened, endpoint_id)

    async def leave(self, is_meant: Callable[[int], bool]) -> None:
        """The same, and wait until running attempts are over and written, for a time."""
        self.forget(is_meant)
        wait_s = self._limits.webhook_timeout_s + self._limits.command_timeout_s
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                while any(map(is_meant, self._open)):
                    self._closed.clear()
                    await self._closed.wait()

    async def drain(self) -> None:
        """Wait until running attempts are over and written, for a time. `read` has ended."""
        lanes = [lane for opened in self._open.values() for lane in opened.lanes.values()]
        for lane in lanes:
            lane.put_back()
        running = [task for lane in lanes for task in lane.running.values()]
        wait_s = self._limits.webhook_timeout_s + self._limits.command_timeout_s
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await asyncio.gather(*running, return_exceptions=True)
                await self.results.wait_written()

    async def read(self) -> None:
        """Begin deliveries until cancelled."""
        await self._reading.run()

    async def _read(self, number: int) -> bool:
        """Read what is due at hungry endpoints of a ledger and begin it; whether there are more.

        Raises StoreError; then the endpoints are read again.
        """
        opened = await self._opened(number)
        if opened is None:
            return False
        lanes, room = self._next_lanes(opened)
        found = await self._due(opened, lanes, room) if room else []
        for delivery in found:
            lane = lanes[delivery.endpoint_id]
            if lane.is_being_read:
                self._begin(opened, lane, delivery)
                room[delivery.endpoint_id] -= 1
        for endpoint_id, left in room.items():
            lane = lanes[endpoint_id]
            lane.is_being_read = False
            lane.has_more = lane.has_more or left == 0
            lane.read_if_more()
            self._forget_if_idle(opened, endpoint_id)
        # Immediate deliveries were all made just now; other tasks get the event loop.
        await asyncio.sleep(0)
        return number in self._hungry and self._budget(opened) > 0

    async def _opened(self, number: int) -> _Open | None:
        """None if nothing is to be read, or there is no such ledger: then the sweep finds it."""
        ledger = await self._ledgers.find(number)
        if ledger is None or number not in self._hungry:
            self._hungry.pop(number, None)
            return None
        if number not in self._open:
            self._open[number] = _Open(
                ledger, self._database.of(ledger), self._directories.of(ledger)
            )
        return self._open[number]

    def _budget(self, opened: _Open) -> int:
        """How many more deliveries of a ledger may be held."""
        is_tight = self.in_flight >= self._limits.notify_held_max
        most = (
            self._limits.endpoint_in_flight_max if is_tight else self._limits.notify_held_max // 2
        )
        return max(most - opened.held, 0)

    def _next_lanes(self, opened: _Open) -> tuple[dict[str, Lane], dict[str, int]]:
        """The lanes of the endpoints to read next, and how much room each has, if it has some.

        Endpoints without a place stay hungry until a delivery of the ledger has ended.
        """
        number, budget = opened.ledger.number, self._budget(opened)
        held_max = self._limits.notify_held_max
        is_tight = self.in_flight >= held_max or opened.held >= held_max // 4
        lanes: dict[str, Lane] = {}
        room: dict[str, int] = {}
        hungry = self._hungry[number]
        for endpoint_id in [*hungry][: self._limits.notify_endpoints_max]:
            if not budget:
                break
            del hungry[endpoint_id]
            lane = opened.lanes.get(endpoint_id)
            if lane is None:
                deliver = partial(self._deliver, opened)
                lane = Lane(self._limits, deliver, partial(self.wake, number, [endpoint_id]))
                opened.lanes[endpoint_id] = lane
            count = min(lane.room(is_tight=is_tight), budget)
            budget -= count
            # A wake-up while the table is read makes the endpoint hungry again.
            lane.has_more = count == 0
            if count:
                lanes[endpoint_id], room[endpoint_id] = lane, count
                lane.is_being_read = True
        if not hungry:
            del self._hungry[number]
        return lanes, room

    async def _due(
        self, opened: _Open, lanes: dict[str, Lane], room: dict[str, int]
    ) -> list[WaitingDelivery]:
        in_flight = [key for lane in lanes.values() for key in lane.held]
        try:
            found, version = await read_waiting(opened.database, room, in_flight)
            await opened.directory.refresh(opened.database, version)
        except StoreError:
            # Not those that were stopped or put back meanwhile.
            again = [endpoint_id for endpoint_id, lane in lanes.items() if lane.is_being_read]
            self.wake(opened.ledger.number, again)
            for endpoint_id, lane in lanes.items():
                lane.is_being_read = False
                self._forget_if_idle(opened, endpoint_id)
            raise
        return found

    def _begin(self, opened: _Open, lane: Lane, delivery: WaitingDelivery) -> None:
        result: SinkResult | None = None
        try:
            event = Event.read(delivery.event)
        except Unreadable as error:
            event = Event.unreadable(delivery.event_id)
            result = SinkResult(str(error), is_unreadable=True)
        else:
            if delivery.endpoint_id != LOG:
                result = None if opened.directory.active(delivery.endpoint_id) else DISABLED
            elif self._sinks.log_is_immediate:
                result = self._sinks.write_log(event)
        attempt = Attempt(opened.ledger, delivery, event, result)
        if result is None:
            lane.submit(attempt)
        else:
            lane.hold(attempt)
            self.results.add(attempt)

    async def _deliver(self, opened: _Open, attempt: Attempt) -> bool:
        """Make an attempt; whether it succeeded."""
        attempt.begin(self._clock(), self._facts.begin)
        try:
            result = await self._send(opened.directory, attempt)
        except Exception as error:
            # A fault of this program. Without a result the lane would never release the delivery.
            self._facts.emit(NotifierFailed(error))
            result = SinkResult(f"could not be sent: {type(error).__name__}")
        attempt.end(self._clock(), result)
        self.results.add(attempt)
        return result.error is None

    async def _send(self, directory: Directory, attempt: Attempt) -> SinkResult:
        if attempt.endpoint_id == LOG:
            return await self._sinks.log(attempt.event)
        webhook = directory.active(attempt.endpoint_id)
        if webhook is None:
            return DISABLED
        return await self._sinks.post(
            webhook, attempt.event, attempt.delivery.event, attempt.traceparent
        )

    def _let_go(self, attempt: Attempt) -> None:
        """The result of the attempt is written."""
        number = attempt.ledger.number
        opened = self._open[number]
        opened.lanes[attempt.endpoint_id].release(attempt)
        self._forget_if_idle(opened, attempt.endpoint_id)
        if number in self._hungry:
            self._reading.add(number)

    def _forget_if_idle(self, opened: _Open, endpoint_id: str) -> None:
        number = opened.ledger.number
        lane = opened.lanes.get(endpoint_id)
        if lane is not None and lane.is_idle and endpoint_id not in self._hungry.get(number, ()):
            del opened.lanes[endpoint_id]
        if not opened.lanes:
            self._open.pop(number, None)
            self._closed.set()

    def _note(self, _: int, error: Exception | None) -> None:
        if error is not None:
            self._facts.emit(NotifierFailed(error))
