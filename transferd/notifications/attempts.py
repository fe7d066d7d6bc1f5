"""An attempt to deliver one event to one endpoint: what it is about, and how it is made."""

import asyncio
import random
from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

import orjson

from transferd.config import Settings
from transferd.domain.webhook import Webhook, WebhookStatus
from transferd.notifications.directory import LOG
from transferd.notifications.messages import Message
from transferd.notifications.sinks.log import LogSink, about
from transferd.notifications.sinks.result import DISABLED, SinkResult
from transferd.notifications.sinks.webhook import WebhookSink
from transferd.observability.facts import About, Begin, Sent

# Which members of an event's data are wallets, by the first word of its type.
_WALLETS_OF = {"transfer": ("source_wallet_id", "destination_wallet_id"), "wallet": ("id",)}
_TEXT_MAX = 200


class Event(NamedTuple):
    """A CloudEvent, and what the notifier needs of it."""

    id: str
    type: str
    time: datetime
    wallets: tuple[str, ...]
    traceparent: str | None
    json: dict[str, Any]

    @classmethod
    def read(cls, body: bytes) -> "Event":
        """Raises ValueError, TypeError, KeyError or AttributeError for what is no event of ours."""
        event = orjson.loads(body)
        id, type, traceparent = event["id"], event["type"], event.get("traceparent")
        names = _WALLETS_OF.get(type.partition(".")[0], ())
        # Each once: the second would wait for the first, which is itself.
        wallets = tuple(dict.fromkeys(event["data"][name] for name in names))
        time = datetime.fromisoformat(event["time"])
        for text in (id, type, *wallets, "" if traceparent is None else traceparent):
            if not isinstance(text, str) or len(text) > _TEXT_MAX or not text.isprintable():
                raise ValueError("an id, a type or a wallet is no short printable text")
        if time.tzinfo is None:
            raise ValueError("the time has no offset")
        return cls(id, type, time, wallets, traceparent, event)


class Work:
    """A message in hand. `open` counts the attempts that have to end before it is finished."""

    __slots__ = ("event", "is_given_back", "message", "open")

    def __init__(self, message: Message, event: Event) -> None:
        self.message = message
        self.event = event
        self.open = 0
        # Set when one of its attempts could not be put off: then it has to come again.
        self.is_given_back = False


class Attempt:
    """One (event, endpoint) on its way, for every message that waits for it."""

    __slots__ = (
        "_ended",
        "_spans",
        "_started",
        "behind",
        "endpoint_id",
        "is_dropped",
        "is_new",
        "is_over",
        "is_parked",
        "on_over",
        "parks",
        "result",
        "works",
    )

    def __init__(self, work: Work, endpoint_id: str, *, is_new: bool) -> None:
        self.endpoint_id = endpoint_id
        self.works = [work]
        work.open += 1
        # Nothing is known of it, and no message asks for this endpoint: so a disabled one skips it.
        # All else was on its way, and is kept until an operator decides.
        self.is_new = is_new
        # Its endpoint is too slow to even begin; it does not count as an attempt. `parks` is how
        # often that was so because of trouble, and what the wait grows with.
        self.is_parked = False
        self.parks = work.message.parks
        # Its endpoint was deleted: nobody waits for it any more.
        self.is_dropped = False
        self.result = SinkResult()
        # Set when only its recording is left. Messages for this endpoint that come then are about
        # the next attempt, and are looked at once this one is recorded.
        self.is_over = False
        # From when to when it was with the receiver, and the traceparents of its two spans.
        self._started: float | None = None
        self._ended = 0.0
        self._spans: tuple[str, str] | None = None
        self.behind: list[Message] = []
        self.on_over: Callable[[Attempt], None] = lambda _: None

    def __repr__(self) -> str:
        return f"<Attempt {self.number} of {self.event.id} at {self.endpoint_id}>"

    @property
    def event(self) -> Event:
        """What is delivered."""
        return self.works[0].event

    @property
    def message(self) -> Message:
        """The message that began it."""
        return self.works[0].message

    @property
    def pair(self) -> tuple[str, str]:
        """What it is recognized by."""
        return (self.event.id, self.endpoint_id)

    @property
    def number(self) -> int:
        """1 for the first attempt."""
        return self.message.attempts + 1

    @property
    def about(self) -> About:
        """Whose request the event came from."""
        return about(self.event.json)

    @property
    def traceparent(self) -> str | None:
        """What the receiver is told: the span of the request to it, or else the event's own."""
        return self.event.traceparent if self._spans is None else self._spans[1]

    @property
    def sent(self) -> Sent | None:
        """What a trace tells of it; None if it never began."""
        if self._started is None:
            return None
        return Sent(
            self.event.type,
            self._started,
            self._ended,
            self.result.response_status,
            *(self._spans or (None, None)),
        )

    def begin(self, now: float, begin_span: Begin | None) -> None:
        """It goes to its receiver. Only then: what is parked or repeated is no attempt."""
        self._started = now
        if begin_span is not None:
            delivery = begin_span(self.event.traceparent)
            self._spans = (delivery, begin_span(delivery))

    def end(self, now: float, result: SinkResult) -> None:
        """It came back."""
        self._ended = now
        self.result = result

    def join(self, work: Work) -> None:
        """Another message of the same waits for the end of this."""
        self.works.append(work)
        work.open += 1
        self.is_new = self.is_new and work.message.endpoint_id is None


class Sinks:
    """The log and the webhooks, with failures and slowness simulated where asked for."""

    def __init__(self, settings: Settings, log: LogSink, webhooks: WebhookSink) -> None:
        self._fail_rate = settings.notify_fail_rate
        self._delay_s = settings.notify_delay_s
        self._log = log
        self._webhooks = webhooks

    def name_of(self, endpoint_id: str) -> str:
        """The label of an endpoint's kind."""
        return "log" if endpoint_id == LOG else "webhook"

    def is_immediate(self, endpoint_id: str) -> bool:
        """Whether delivering needs no waiting, so that no task has to be made for it."""
        return endpoint_id == LOG and not self._delay_s

    def log_now(self, attempt: Attempt) -> SinkResult:
        """Write the line."""
        return self._simulated_failure() or self._log.deliver(attempt.event.json)

    async def deliver(self, attempt: Attempt, webhook: Webhook | None) -> SinkResult:
        """Deliver, within the limits of the sink. Never raises for what a receiver does."""
        if self._delay_s:
            await asyncio.sleep(self._delay_s)
        if (failure := self._simulated_failure()) is not None:
            return failure
        if attempt.endpoint_id == LOG:
            return self._log.deliver(attempt.event.json)
        if webhook is None:
            attempt.is_dropped = True
            return SinkResult()
        if webhook.status is not WebhookStatus.ACTIVE:
            return DISABLED
        event = attempt.event
        return await self._webhooks.deliver(
            webhook, event.id, attempt.message.body, attempt.traceparent
        )

    def _simulated_failure(self) -> SinkResult | None:
        if self._fail_rate and random.random() < self._fail_rate:
            return SinkResult("simulated failure (TRANSFERD_NOTIFY_FAIL_RATE)")
        return None


def unreadable(error: Exception) -> str:
    """The reason for the dead letter of a message that is no event."""
    return f"not an event: {type(error).__name__}: {error}"
