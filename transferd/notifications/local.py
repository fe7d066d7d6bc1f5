"""A broker in this process, for `transferd dev` where no RabbitMQ is installed.

It keeps nothing when the process ends. Nothing is lost by that: the rows of deliveries are in
PostgreSQL, and a notifier begins by reading what is due.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from transferd.notifications.broker import Broker, PublicEvent, Receive
from transferd.notifications.wakeup import WakeUp


class _Message:
    """A wake-up in memory; there is nothing to acknowledge."""

    headers: Mapping[str, Any] = {}

    def __init__(self, body: bytes) -> None:
        self.body = body

    async def ack(self, multiple: bool = False) -> None:
        pass

    async def reject(self) -> None:
        pass


class LocalBroker:
    """A `Broker` without a public exchange. Relay and consumer of the process share it."""

    reason = ""

    def __init__(self) -> None:
        self._receive: Receive | None = None

    def __repr__(self) -> str:
        return "<LocalBroker>"

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Broker]:
        """Itself."""
        yield self

    async def publish(self, events: Sequence[PublicEvent], *, timeout_s: float) -> list[str | None]:
        """Nothing is subscribed to the events."""
        return [None] * len(events)

    async def take_over(self) -> None:
        """There was none before."""

    async def wake(self, wakeup: WakeUp, *, delay_s: float = 0.0) -> None:
        """Through the event loop."""
        if self._receive is not None:
            message = _Message(wakeup.encode())
            asyncio.get_running_loop().call_later(delay_s, self._receive, message)

    async def consume(self, *, wakeups: Receive, others: Receive) -> None:
        """From now on."""
        self._receive = wakeups

    async def wait_lost(self) -> None:
        """Never."""
        await asyncio.Event().wait()
