"""Ends attempts: puts off what failed, records everything in one transaction, finishes messages."""

import asyncio
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime

from transferd.config import Limits
from transferd.domain.webhook import DeliveryStatus, WebhookStatus
from transferd.ledger.ids import new_id
from transferd.ledger.store.database import Database
from transferd.ledger.store.dead_letters import DeadLetter, insert_dead_letters
from transferd.ledger.store.deliveries import DeliveryRecord, record_deliveries
from transferd.ledger.store.errors import Rejected, StoreError
from transferd.ledger.store.webhooks import update_webhook
from transferd.notifications.attempts import Attempt, Event, Work
from transferd.notifications.directory import LOG
from transferd.notifications.messages import Deferred, Message, Outgoing, Transport
from transferd.observability.facts import (
    DeadLettersKept,
    Facts,
    NotificationFinished,
    NotifierFailed,
)


class _Ending:
    """What a batch of attempts comes to."""

    def __init__(self) -> None:
        self.records: list[DeliveryRecord] = []
        self.letters: list[DeadLetter] = []
        self.gone: list[str] = []
        self.facts: list[NotificationFinished] = []

    def halves(self) -> list["_Ending"]:
        """What is written apart when PostgreSQL refuses some row; nothing for a single one."""
        if len(self.records) + len(self.letters) <= 1:
            return []
        first, second = _Ending(), _Ending()
        # Rounded up and down, so that one of each comes apart too.
        record, letter = (len(self.records) + 1) // 2, len(self.letters) // 2
        first.records, second.records = self.records[:record], self.records[record:]
        first.letters, second.letters = self.letters[:letter], self.letters[letter:]
        first.gone = self.gone
        return [first, second]


class Recorder:
    """Takes attempts that are over, and records them in `run`. `delays_s` is the back-off."""

    def __init__(
        self,
        *,
        database: Database,
        transport: Transport,
        delays_s: Sequence[float],
        limits: Limits,
        facts: Facts,
    ) -> None:
        self._database = database
        self._transport = transport
        self._delays_s = tuple(delays_s)
        self._limits = limits
        self._facts = facts
        self._attempts: deque[Attempt] = deque()
        self._letters: deque[tuple[Message, DeadLetter]] = deque()
        self._finished: list[Message] = []
        self._something_over = asyncio.Event()
        self.is_idle = True
        self.fault: str | None = None

    def __repr__(self) -> str:
        return f"<Recorder {len(self._attempts)} to record, {self.fault or 'running'}>"

    def record(self, attempt: Attempt) -> None:
        """This attempt is over."""
        attempt.is_over = True
        self._attempts.append(attempt)
        self._something_over.set()

    def bury(self, message: Message, reason: str) -> None:
        """This message is none, or was given up by the broker: keep it as it is."""
        event_id, event_type = _named(message.body)
        letter = DeadLetter(
            id=new_id(),
            endpoint_id=message.endpoint_id,
            event_id=event_id,
            event_type=event_type,
            reason="undeliverable",
            detail=reason,
            attempts=message.attempts,
            body=message.body,
        )
        self._letters.append((message, letter))
        self._something_over.set()

    def finished(self, work: Work) -> None:
        """Nothing is left to be done for this message."""
        self._finished.append(work.message)
        self._something_over.set()

    async def run(self) -> None:
        """Record until cancelled."""
        while True:
            await self._something_over.wait()
            self._something_over.clear()
            self.is_idle = False
            # What an attempt needs to be over is not much; a transaction is.
            await asyncio.sleep(self._limits.notify_linger_s)
            while self._attempts or self._letters or self._finished:
                await self.record_once()
            self.is_idle = True

    async def record_once(self) -> int:
        """Record some of what is over, and finish its messages; how many attempts."""
        count = min(len(self._attempts), self._limits.notify_batch_max)
        attempts = [self._attempts.popleft() for _ in range(count)]
        buried = [self._letters.popleft() for _ in range(len(self._letters))]
        finished, self._finished = self._finished, []
        ending = _Ending()
        deferred = [self._ended(attempt, ending) for attempt in attempts]
        await self._defer([item for item in deferred if item is not None], attempts, ending)
        ending.letters += [letter for _, letter in buried]
        await self._write(ending)
        for fact in ending.facts:
            self._facts.emit(fact)
        finished += [message for message, _ in buried]
        returned = self._close(attempts, finished)
        await self._transport.finish(finished)
        if returned:
            # Whatever kept them from being put off had better have a moment.
            await asyncio.sleep(self._limits.relay_wait_first_s)
            await self._transport.give_back(returned)
        return count

    def _ended(self, attempt: Attempt, ending: _Ending) -> Deferred | None:
        """Note what becomes of it; what has to come again, if so."""
        result, number = attempt.result, attempt.number
        if attempt.is_dropped:
            return None
        if attempt.is_parked:
            step = min(max(attempt.parks, 1), len(self._delays_s))
            ending.facts.append(self._fact(attempt, "parked"))
            return self._again(attempt, self._delays_s[step - 1], number - 1, attempt.parks)
        if result.error is None:
            self._conclude(attempt, ending, DeliveryStatus.DELIVERED)
        elif result.is_disabled and attempt.is_new:
            self._conclude(attempt, ending, DeliveryStatus.SKIPPED)
        elif result.is_gone or result.is_disabled:
            # What was on its way can still be sent once the endpoint is active again.
            if result.is_gone:
                ending.gone.append(attempt.endpoint_id)
            self._give_up(attempt, ending, "endpoint gone")
        elif number > len(self._delays_s):
            self._give_up(attempt, ending, "attempts exhausted")
        else:
            delay_s = self._delay_s(number, result.retry_after_s)
            self._conclude(attempt, ending, DeliveryStatus.RETRYING, wait_s=delay_s)
            return self._again(attempt, delay_s, number, 0)
        return None

    def _delay_s(self, number: int, retry_after_s: float | None) -> float:
        """The back-off, or the first longer one that a receiver has asked for."""
        planned_s = self._delays_s[number - 1]
        wanted_s = max(planned_s, retry_after_s or 0.0)
        return next((delay for delay in self._delays_s if delay >= wanted_s), self._delays_s[-1])

    def _give_up(self, attempt: Attempt, ending: _Ending, reason: str) -> None:
        self._conclude(attempt, ending, DeliveryStatus.DEAD)
        ending.letters.append(
            DeadLetter(
                id=new_id(),
                endpoint_id=attempt.endpoint_id,
                event_id=attempt.event.id,
                event_type=attempt.event.type,
                reason=reason,
                detail=attempt.result.error or "",
                attempts=attempt.number,
                body=attempt.message.body,
            )
        )

    def _conclude(
        self,
        attempt: Attempt,
        ending: _Ending,
        status: DeliveryStatus,
        wait_s: float | None = None,
    ) -> None:
        result, event = attempt.result, attempt.event
        ending.records.append(
            DeliveryRecord(
                id=new_id(),
                event_id=event.id,
                endpoint_id=attempt.endpoint_id,
                event_type=event.type,
                status=status,
                attempts=0 if status is DeliveryStatus.SKIPPED else 1,
                response_status=result.response_status,
                error=result.error,
                response_excerpt=result.response_excerpt,
                event=None if attempt.endpoint_id == LOG else attempt.message.body.decode(),
                wait_s=wait_s,
            )
        )
        ending.facts.append(self._fact(attempt, status))

    def _again(self, attempt: Attempt, delay_s: float, attempts: int, parks: int) -> Deferred:
        event = attempt.event
        outgoing = Outgoing(
            event.id, event.type, attempt.message.body, event.traceparent, attempt.endpoint_id
        )
        return Deferred(outgoing, delay_s, attempts, parks, attempt.message)

    async def _defer(
        self, deferred: Sequence[Deferred], attempts: Sequence[Attempt], ending: _Ending
    ) -> None:
        """Put off, before anything is recorded. What cannot be is neither recorded nor finished."""
        if not deferred:
            return
        certain = await self._transport.defer(deferred)
        failed = {
            (item.outgoing.event_id, item.outgoing.endpoint_id)
            for item, is_certain in zip(deferred, certain, strict=True)
            if not is_certain
        }
        if not failed:
            return
        for attempt in attempts:
            if attempt.pair in failed:
                for work in attempt.works:
                    work.is_given_back = True
        ending.records = [r for r in ending.records if (r.event_id, r.endpoint_id) not in failed]
        ending.facts = [f for f in ending.facts if (f.event_id, f.endpoint_id) not in failed]

    async def _write(self, ending: _Ending) -> None:
        """One transaction; while PostgreSQL is away everything waits here, unfinished."""
        if not ending.records and not ending.letters:
            return
        wait_s = self._limits.relay_wait_first_s
        while True:
            try:
                await self._write_once(ending)
            except Rejected as error:
                # Another try will not help. Without its record an event may be delivered twice;
                # without going on none would be.
                self._facts.emit(NotifierFailed(error))
                for half in ending.halves():
                    await self._write(half)
                return
            except StoreError as error:
                self.fault = f"PostgreSQL: {error}"
                self._facts.emit(NotifierFailed(error))
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, self._limits.relay_wait_max_s)
            else:
                self.fault = None
                if ending.letters:
                    self._facts.emit(DeadLettersKept(len(ending.letters)))
                return

    async def _write_once(self, ending: _Ending) -> None:
        async with self._database.transaction() as transaction:
            if ending.records:
                await record_deliveries(transaction, ending.records)
            if ending.letters:
                await insert_dead_letters(transaction, ending.letters)
            for endpoint_id in set(ending.gone):
                await update_webhook(
                    transaction,
                    endpoint_id,
                    status=WebhookStatus.DISABLED,
                    reason="it answered 410 Gone",
                )

    def _close(self, attempts: Sequence[Attempt], finished: list[Message]) -> list[Message]:
        """Close the attempts; adds what is finished to `finished`, returns what must come again."""
        returned: list[Message] = []
        for attempt in attempts:
            attempt.on_over(attempt)
            for work in attempt.works:
                work.open -= 1
                if not work.open:
                    (returned if work.is_given_back else finished).append(work.message)
        return returned

    def _fact(self, attempt: Attempt, result: str) -> NotificationFinished:
        return NotificationFinished(
            sink="log" if attempt.endpoint_id == LOG else "webhook",
            result=result,
            attempt=0 if result == DeliveryStatus.SKIPPED else attempt.number,
            lag_s=(datetime.now(UTC) - attempt.event.time).total_seconds(),
            endpoint_id=attempt.endpoint_id,
            event_id=attempt.event.id,
            error=attempt.result.error,
            about=attempt.about,
            sent=attempt.sent,
        )


def _named(body: bytes) -> tuple[str | None, str | None]:
    """Id and type of the event, if it is one: then it can be sent again."""
    try:
        event = Event.read(body)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None, None
    return event.id, event.type
