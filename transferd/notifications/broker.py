"""What relay and consumer need of a message broker: RabbitMQ, or for one process its own memory."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple, Protocol

from transferd.notifications.wakeup import WakeUp


class TransportFailure(Exception):
    """The broker did not take, or did not confirm, what it was given; the message says why."""


class PublicEvent(NamedTuple):
    """A CloudEvent for the public exchange, routed by its type."""

    id: str
    type: str
    body: bytes
    traceparent: str | None = None


class Incoming(Protocol):
    """A message that was received and is not acknowledged yet."""

    @property
    def body(self) -> bytes:
        """What was published."""
        ...

    @property
    def headers(self) -> Mapping[str, Any]:
        """What was published with it."""
        ...

    async def ack(self, multiple: bool = False) -> None:
        """The broker may forget it; with `multiple` also those before it."""
        ...

    async def reject(self) -> None:
        """The broker dead-letters it."""
        ...


Receive = Callable[[Incoming], None]


class Broker(Protocol):
    """One connection. It does not mend itself: its owner opens another one."""

    @property
    def reason(self) -> str:
        """Why the connection was lost; empty while it is not."""
        ...

    async def publish(self, events: Sequence[PublicEvent], *, timeout_s: float) -> list[str | None]:
        """Publish in order; for each, None once confirmed or why not. Raises TransportFailure."""
        ...

    async def take_over(self) -> None:
        """A notifier of the version before gets no further events. For a relay, which writes a row
        for each. Raises TransportFailure."""
        ...

    async def wake(self, wakeup: WakeUp, *, delay_s: float = 0.0) -> None:
        """Wake the notifier up, after `delay_s`. Best effort: rows without a message are swept."""
        ...

    async def consume(self, *, wakeups: Receive, others: Receive) -> None:
        """Receive wake-ups, and what else is in the queues. Raises TransportFailure."""
        ...

    async def wait_lost(self) -> None:
        """Return when the connection is of no more use."""
        ...


# Opens a connection; the context manager raises TransportFailure or ConfigurationError.
Connect = Callable[[], AbstractAsyncContextManager[Broker]]
