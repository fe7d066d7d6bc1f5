"""An attempt to deliver one event to one endpoint, and the record of its result."""

from collections.abc import Sequence
from datetime import UTC, datetime

from transferd.domain.ledger import Ledger
from transferd.domain.webhook import DeliveryStatus
from transferd.ledger.store.deliveries import LOG, DeliveryKey, DeliveryRecord, WaitingDelivery
from transferd.notifications.event import Event
from transferd.notifications.sinks.log import about
from transferd.notifications.sinks.result import SinkResult
from transferd.observability.facts import Begin, NotificationFinished, Sent


class Attempt:
    """A delivery in the hands of the notifier, from the reading of its row to the writing.

    `result` is given if no request is needed.
    """

    __slots__ = ("_ended", "_spans", "_started", "delivery", "event", "ledger", "result")

    def __init__(
        self,
        ledger: Ledger,
        delivery: WaitingDelivery,
        event: Event,
        result: SinkResult | None = None,
    ) -> None:
        self.ledger = ledger
        self.delivery = delivery
        self.event = event
        self.result = result
        # Start and end of the request, and the traceparents of its two spans.
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
        """The identity of the delivery."""
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

    def record(self, delays_s: Sequence[float]) -> DeliveryRecord:
        """The new state of the delivery. `delays_s` is the back-off."""
        delivery, result = self.delivery, self.result
        assert result is not None, "the attempt has not ended"
        failures = delivery.failures + 1
        status, dead_reason, wait_s = DeliveryStatus.DEAD, None, None
        if result.error is None:
            status = DeliveryStatus.DELIVERED
        elif result.is_disabled and not delivery.attempts:
            status = DeliveryStatus.SKIPPED
        elif result.is_gone or result.is_disabled:
            dead_reason = "endpoint gone"
        elif result.is_unreadable:
            dead_reason = "undeliverable"
        elif failures > len(delays_s):
            dead_reason = "attempts exhausted"
        else:
            status = DeliveryStatus.RETRYING
            wait_s = _delay_s(failures, result.retry_after_s, delays_s)
        return DeliveryRecord(
            event_id=delivery.event_id,
            endpoint_id=delivery.endpoint_id,
            status=status,
            response_status=result.response_status,
            error=result.error,
            response_excerpt=result.response_excerpt,
            dead_reason=dead_reason,
            wait_s=wait_s,
        )

    def fact(self, record: DeliveryRecord) -> NotificationFinished:
        """For metrics, log and traces."""
        sent = None
        if self._started is not None:
            spans = self._spans or (None, None)
            sent = Sent(self.event.type, self._started, self._ended, record.response_status, *spans)
        is_skipped = record.status is DeliveryStatus.SKIPPED
        return NotificationFinished(
            sink="log" if self.endpoint_id == LOG else "webhook",
            result=record.status,
            attempt=self.delivery.attempts + (not is_skipped),
            lag_s=(datetime.now(UTC) - self.event.time).total_seconds(),
            endpoint_id=self.endpoint_id,
            event_id=self.event.id,
            error=record.error,
            about=about(self.event.json),
            sent=sent,
        )


def _delay_s(failures: int, retry_after_s: float | None, delays_s: Sequence[float]) -> float:
    """The back-off, or the first longer one that a receiver has asked for."""
    planned_s = delays_s[failures - 1]
    wanted_s = max(planned_s, retry_after_s or 0.0)
    return next((delay for delay in delays_s if delay >= wanted_s), delays_s[-1])
