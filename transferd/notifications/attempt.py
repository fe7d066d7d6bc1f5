"""An attempt to deliver one event to one endpoint, and what its result makes of the delivery."""

from collections.abc import Sequence
from datetime import UTC, datetime

from transferd.domain.webhook import DeliveryStatus
from transferd.ledger.store.deliveries import DeliveryKey, DeliveryRecord, WaitingDelivery
from transferd.notifications.directory import LOG
from transferd.notifications.event import Event
from transferd.notifications.sinks.log import about
from transferd.notifications.sinks.result import SinkResult
from transferd.observability.facts import Begin, NotificationFinished, Sent


class Attempt:
    """A delivery in the hands of the notifier, from the reading of its row to the writing."""

    __slots__ = ("_ended", "_spans", "_started", "delivery", "event", "result")

    def __init__(self, delivery: WaitingDelivery, event: Event) -> None:
        self.delivery = delivery
        self.event = event
        # None: it was cancelled, and the delivery waits as before.
        self.result: SinkResult | None = None
        # From when to when it was with the receiver, and the traceparents of its two spans.
        self._started: float | None = None
        self._ended = 0.0
        self._spans: tuple[str, str] | None = None

    def __repr__(self) -> str:
        return f"<Attempt {self.delivery.attempts + 1} of {self.event.id} at {self.endpoint_id}>"

    @property
    def endpoint_id(self) -> str:
        """The webhook, or the log."""
        return self.delivery.endpoint_id

    @property
    def key(self) -> DeliveryKey:
        """What identifies the delivery."""
        return self.delivery.key

    @property
    def traceparent(self) -> str | None:
        """For the receiver: the span of the request to it, or else the event's own."""
        return self.event.traceparent if self._spans is None else self._spans[1]

    def begin(self, now: float, begin_span: Begin | None) -> None:
        """The request begins."""
        self._started = now
        if begin_span is not None:
            delivery = begin_span(self.event.traceparent)
            self._spans = (delivery, begin_span(delivery))

    def end(self, now: float, result: SinkResult) -> None:
        """The request has ended."""
        self._ended = now
        self.result = result

    def fact(self, record: DeliveryRecord) -> NotificationFinished:
        """For metrics, log and traces."""
        sent = None
        if self._started is not None:
            spans = self._spans or (None, None)
            sent = Sent(self.event.type, self._started, self._ended, record.response_status, *spans)
        return NotificationFinished(
            sink="log" if self.endpoint_id == LOG else "webhook",
            result=record.status,
            attempt=self.delivery.attempts + record.attempts,
            lag_s=(datetime.now(UTC) - self.event.time).total_seconds(),
            endpoint_id=self.endpoint_id,
            event_id=self.event.id,
            error=record.error,
            about=about(self.event.json),
            sent=sent,
        )


def record_of(
    delivery: WaitingDelivery, result: SinkResult, delays_s: Sequence[float]
) -> DeliveryRecord:
    """What the result of an attempt makes of its delivery. `delays_s` is the back-off."""
    failures = delivery.failures + 1
    status, dead_reason, wait_s = DeliveryStatus.DELIVERED, None, None
    if result.is_disabled and not delivery.attempts:
        status = DeliveryStatus.SKIPPED
    elif result.is_gone or result.is_disabled:
        status, dead_reason = DeliveryStatus.DEAD, "endpoint gone"
    elif result.is_unreadable:
        status, dead_reason = DeliveryStatus.DEAD, "undeliverable"
    elif result.error is not None and failures > len(delays_s):
        status, dead_reason = DeliveryStatus.DEAD, "attempts exhausted"
    elif result.error is not None:
        status = DeliveryStatus.RETRYING
        wait_s = _delay_s(failures, result.retry_after_s, delays_s)
    return DeliveryRecord(
        event_id=delivery.event_id,
        endpoint_id=delivery.endpoint_id,
        status=status,
        attempts=0 if status is DeliveryStatus.SKIPPED else 1,
        failures=0 if result.error is None else 1,
        response_status=result.response_status,
        error=result.error,
        response_excerpt=result.response_excerpt,
        dead_reason=dead_reason,
        wait_s=wait_s,
        keeps_event=delivery.endpoint_id != LOG or status is not DeliveryStatus.DELIVERED,
    )


def _delay_s(failures: int, retry_after_s: float | None, delays_s: Sequence[float]) -> float:
    """The back-off, or the first longer one that a receiver has asked for."""
    planned_s = delays_s[failures - 1]
    wanted_s = max(planned_s, retry_after_s or 0.0)
    return next((delay for delay in delays_s if delay >= wanted_s), delays_s[-1])
