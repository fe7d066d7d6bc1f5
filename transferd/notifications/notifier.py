"""The notifier: takes events in order and hands each to whoever wants it.

A message is finished when each of its endpoints has it, or has a message of its own to be tried
again later, or has a dead letter, or was disabled, which its log says. What was recorded as
delivered is not delivered again.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from transferd.config import Limits
from transferd.domain.webhook import DeliveryStatus
from transferd.ledger.store.database import Database
from transferd.ledger.store.deliveries import Known, read_known
from transferd.ledger.store.errors import StoreError
from transferd.notifications.attempts import Attempt, Event, Sinks, Work, unreadable
from transferd.notifications.directory import LOG, Directory
from transferd.notifications.lanes import Job, Lane
from transferd.notifications.messages import Message, Transport
from transferd.notifications.recorder import Recorder
from transferd.notifications.sinks.result import DISABLED, SinkResult
from transferd.observability.facts import Facts, NotificationFinished, NotifierFailed

# What was given up is given up: only an operator, who marks it as pending, begins again.
_OVER = (DeliveryStatus.DELIVERED, DeliveryStatus.DEAD)


class Notifier:
    """Consumes a transport. `run` begins deliveries, the recorder's `run` ends them."""

    def __init__(
        self,
        *,
        database: Database,
        transport: Transport,
        directory: Directory,
        sinks: Sinks,
        recorder: Recorder,
        limits: Limits,
        facts: Facts,
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._transport = transport
        self._directory = directory
        self._sinks = sinks
        self._recorder = recorder
        self._limits = limits
        self._facts = facts
        self._clock = clock
        self._lanes: dict[str, Lane] = {}
        # What is on its way, so that a message that comes again meanwhile only waits with it.
        self._in_flight: dict[tuple[str, str], Attempt] = {}
        # What was recorded since PostgreSQL was asked last.
        self._just_closed: set[tuple[str, str]] = set()
        self._is_draining = False
        self.fault: str | None = None

    def __repr__(self) -> str:
        return f"<Notifier {len(self._in_flight)} in flight, {self.fault or 'running'}>"

    @property
    def in_flight(self) -> int:
        """Deliveries that were begun and are not recorded yet."""
        return len(self._in_flight)

    async def run(self) -> None:
        """Begin deliveries until cancelled."""
        try:
            while not self._is_draining:
                await self.notify_once()
            # Only the end of what is on its way is waited for, by `drain`.
            await asyncio.Event().wait()
        finally:
            for lane in self._lanes.values():
                await lane.stop()

    async def drain(self) -> None:
        """Begin nothing more and wait for what is on its way, as long as that may take."""
        self._is_draining = True
        give_up_at = self._clock() + self._limits.webhook_timeout_s + self._limits.command_timeout_s
        while (  # noqa: ASYNC110 an event for something that happens once is not worth its upkeep
            self._in_flight or not self._recorder.is_idle
        ) and self._clock() < give_up_at:
            await asyncio.sleep(self._limits.relay_poll_s)

    async def notify_once(self) -> int:
        """Begin the deliveries of what has come; how many messages. Waits for the first."""
        messages = await self._transport.receive(self._limits.notify_batch_max)
        if self._is_draining:
            # They are unfinished, so they come again, to whoever is next.
            return 0
        works = [work for message in messages if (work := await self._read(message)) is not None]
        known = await self._known([work.event.id for work in works])
        for work in works:
            self._begin(work, known)
        self._sweep()
        # Deliveries that need no waiting were all done just now; let others have the loop.
        await asyncio.sleep(0)
        return len(messages)

    async def _read(self, message: Message) -> Work | None:
        """The message as work; None if it is none, and was seen to."""
        if message.dead_reason is not None or message.returns >= self._limits.returns_max:
            reason = message.dead_reason or "returned too often"
            self._recorder.bury(message, reason.replace("_", " "))
            return None
        if message.broker_returns >= self._limits.renew_after_returns:
            # The broker gives up what comes back too often, and whoever holds a message when a
            # worker is killed sends it back. A copy begins anew, and remembers the count itself.
            message.returns += 1
            if await self._transport.renew(message):
                await self._transport.finish([message])
                return None
        try:
            return Work(message, Event.read(message.body))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            self._recorder.bury(message, unreadable(error))
            return None

    async def _known(self, event_ids: Sequence[str]) -> Known:
        """What was consumed of these already; while PostgreSQL is away they wait here."""
        wait_s = self._limits.relay_wait_first_s
        while True:
            self._just_closed.clear()
            try:
                known = await read_known(self._database, event_ids)
                await self._directory.refresh(known.webhooks_version)
            except StoreError as error:
                self.fault = f"PostgreSQL: {error}"
                self._facts.emit(NotifierFailed(error))
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, self._limits.relay_wait_max_s)
            else:
                self.fault = None
                return known

    def _begin(self, work: Work, known: Known) -> None:
        event = work.event
        chosen = work.message.endpoint_id
        wanting = self._directory.wanting(event.type, event.wallets)
        targets = wanting if chosen is None else [chosen] if self._exists(chosen) else []
        for endpoint_id in targets:
            pair = (event.id, endpoint_id)
            attempt = self._in_flight.get(pair)
            # What is being recorded, or was recorded while PostgreSQL was asked, is not known of
            # yet. A message for this endpoint alone is about the attempt after that one, and is
            # looked at again; any other only repeats what was begun.
            if chosen is not None and attempt is not None and attempt.is_over:
                attempt.behind.append(work.message)
                return
            if chosen is not None and pair in self._just_closed:
                self._transport.reconsider([work.message])
                return
            if attempt is not None:
                attempt.join(work)
            elif pair in self._just_closed or self._is_over(known.statuses.get(pair), work):
                self._repeated(work, endpoint_id)
            else:
                is_new = chosen is None and pair not in known.statuses
                self._attempt(Attempt(work, endpoint_id, is_new=is_new))
        if not work.open:
            self._recorder.finished(work)

    def _exists(self, endpoint_id: str) -> bool:
        return endpoint_id == LOG or self._directory.get(endpoint_id) is not None

    def _is_over(self, status: DeliveryStatus | None, work: Work) -> bool:
        if status is DeliveryStatus.RETRYING:
            # A message of its own is on its way, and only that one counts.
            return work.message.endpoint_id is None and self._transport.keeps_deferred
        if status is DeliveryStatus.SKIPPED:
            # A message of its own was on its way before the endpoint was disabled.
            return work.message.endpoint_id is None
        return status in _OVER

    def _attempt(self, attempt: Attempt) -> None:
        endpoint_id = attempt.endpoint_id
        self._in_flight[attempt.pair] = attempt
        attempt.on_over = self._closed
        if self._directory.is_disabled(endpoint_id):
            attempt.result = DISABLED
            self._recorder.record(attempt)
            return
        if self._sinks.is_immediate(endpoint_id):
            attempt.result = self._sinks.log_now(attempt)
            self._recorder.record(attempt)
            return
        lane = self._lanes.get(endpoint_id)
        if lane is None:
            lane = self._lanes[endpoint_id] = Lane(self._limits, self._clock, self._has_spare)

        def park() -> None:
            attempt.is_parked = True
            # One that is well has room again soon; one in trouble is asked less and less often.
            attempt.parks += lane.is_in_trouble
            self._recorder.record(attempt)

        if not lane.has_room:
            park()
            return

        async def run() -> bool:
            attempt.begin(self._clock(), self._facts.begin)
            try:
                webhook = self._directory.get(endpoint_id)
                result = await self._sinks.deliver(attempt, webhook)
            except Exception as error:
                # A fault of ours; but an attempt that never ended would keep its message for ever.
                self._facts.emit(NotifierFailed(error))
                result = SinkResult(f"could not be sent: {type(error).__name__}")
            attempt.end(self._clock(), result)
            self._recorder.record(attempt)
            return attempt.result.error is None

        lane.submit(Job(attempt.event.wallets, run, park))

    def _has_spare(self) -> bool:
        """Half of what may be unfinished is for whoever needs it, the rest keeps others going."""
        return len(self._in_flight) < self._limits.notify_prefetch // 2

    def _closed(self, attempt: Attempt) -> None:
        """It is recorded."""
        del self._in_flight[attempt.pair]
        self._just_closed.add(attempt.pair)
        if attempt.behind:
            self._transport.reconsider(attempt.behind)

    def _repeated(self, work: Work, endpoint_id: str) -> None:
        self._facts.emit(
            NotificationFinished(
                sink=self._sinks.name_of(endpoint_id),
                result="repeated",
                attempt=work.message.attempts,
                lag_s=(datetime.now(UTC) - work.event.time).total_seconds(),
                endpoint_id=endpoint_id,
                event_id=work.event.id,
                error=None,
            )
        )

    def _sweep(self) -> None:
        """Forget the lanes of endpoints that have nothing to do."""
        for endpoint_id in [
            id
            for id, lane in self._lanes.items()
            if lane.is_idle or (not lane.held and not self._exists(id))
        ]:
            del self._lanes[endpoint_id]
