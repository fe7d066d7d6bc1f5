"""What travels between the outbox, the broker and the notifier, whichever transport carries it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol


class TransportFailure(Exception):
    """The transport did not take, or did not confirm, what it was given; the message says why."""


class Outgoing(NamedTuple):
    """A message to publish, for one endpoint or, without `endpoint_id`, for whoever wants it."""

    event_id: str
    event_type: str
    body: bytes
    traceparent: str | None = None
    endpoint_id: str | None = None


@dataclass(slots=True)
class Message:
    """A message that was received.

    `attempts` were made before with its endpoint, `parks` is how often it had to wait because that
    was in trouble, `returns` how often it came back unfinished, and `broker_returns` how many of
    these the broker counts. `dead_reason` is why the broker itself gave it up. `receipt` belongs to
    the transport.
    """

    body: bytes
    endpoint_id: str | None = None
    attempts: int = 0
    parks: int = 0
    returns: int = 0
    broker_returns: int = 0
    dead_reason: str | None = None
    receipt: Any = None


class Deferred(NamedTuple):
    """A message of one (event, endpoint), to come again after `delay_s`."""

    outgoing: Outgoing
    delay_s: float
    attempts: int
    parks: int
    source: Message


class Transport(Protocol):
    """Where the notifier's messages come from, and where they wait for another attempt."""

    # Whether what was put off comes again also after this process has ended.
    keeps_deferred: bool

    @property
    def fault(self) -> str | None:
        """Why nothing can be received now, in one line; None if all is well."""
        ...

    async def receive(self, messages_max: int) -> list[Message]:
        """At least one message; waits for it."""
        ...

    async def defer(self, deferred: Sequence[Deferred]) -> list[bool]:
        """Let messages come again later; for each, whether that is certain."""
        ...

    async def renew(self, message: Message) -> bool:
        """Put a copy at the end of the queue, which has no returns yet; whether that is certain."""
        ...

    def reconsider(self, messages: Sequence[Message]) -> None:
        """Receive these once more, as they are: they came too early."""
        ...

    async def finish(self, messages: Sequence[Message]) -> None:
        """These are done with. What the transport has forgotten meanwhile comes again anyway."""
        ...

    async def give_back(self, messages: Sequence[Message]) -> None:
        """These could not be finished; let them come again."""
        ...
