"""The message broker of relay and consumer: RabbitMQ, or the memory of one process."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple, Protocol


class TransportFailure(Exception):
    """The broker did not take, or did not confirm, a message; the message of the error says why."""


class PublicEvent(NamedTuple):
    """A CloudEvent for the public exchange, routed by the name of its ledger and its type."""

    ledger: str
    id: str
    type: str
    body: bytes
    traceparent: str | None = None


# Gets the number of a ledger, and the ids of its endpoints that have due deliveries.
Wake = Callable[[int, Sequence[str]], None]
# Gets a condition for numbers of ledgers, which go to another worker: ends their deliveries.
Leave = Callable[[Callable[[int], bool]], Awaitable[None]]
# Gets body and headers of a message that is not a wake-up; when it returns, the message is done.
Take = Callable[[bytes, Mapping[str, Any]], Awaitable[None]]


class Broker(Protocol):
    """One connection. It does not reconnect: its owner opens another one."""

    @property
    def reason(self) -> str:
        """Why the connection was lost; empty while it is not."""
        ...

    async def publish(self, events: Sequence[PublicEvent], *, timeout_s: float) -> list[str | None]:
        """Publish in order; for each, None once confirmed or why not. Raises TransportFailure."""
        ...

    async def take_over(self) -> None:
        """Send no further events to a notifier of the version before. For a relay, which writes a
        row for each. Raises TransportFailure."""
        ...

    async def wake(
        self, ledger_number: int, endpoint_ids: Sequence[str], delay_s: float = 0.0
    ) -> None:
        """Wake the notifier of a ledger up, after `delay_s`. Best effort: a sweep finds all due
        rows."""
        ...

    async def keep_queues(self) -> None:
        """Send a wake-up about nothing into each work queue. RabbitMQ closes a channel whose newest
        message is not acknowledged for half an hour."""
        ...

    async def consume(
        self, *, wake: Wake, take: Take, taken_over: Callable[[], None], leave: Leave
    ) -> None:
        """Receive wake-ups, and the other messages in the queues. Raises TransportFailure.

        `taken_over` is called when a queue sends its first wake-up: no other worker consumes it.
        `leave` is called before a queue goes to another worker, so that all have a share.
        The newest wake-up of each queue stays unacknowledged, so that the broker gives it to
        another consumer if this one dies.
        """
        ...

    async def wait_lost(self) -> None:
        """Return when the connection cannot be used any more."""
        ...


# Opens a connection; the context manager raises TransportFailure or ConfigurationError.
Connect = Callable[[], AbstractAsyncContextManager[Broker]]
