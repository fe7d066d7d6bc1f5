"""A broker in this process, for `transferd dev` where RabbitMQ is not installed.

It keeps nothing when the process ends. Nothing is lost by that: the rows of deliveries are in
PostgreSQL, and a notifier begins with a sweep.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from transferd.notifications.broker import Broker, Leave, PublicEvent, Take, Wake


class LocalBroker:
    """A `Broker` without a public exchange. Relay and consumer of the process share it."""

    reason = ""

    def __init__(self) -> None:
        self._wake: Wake | None = None

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
        """There is no version before."""

    async def wake(
        self, ledger_number: int, endpoint_ids: Sequence[str], delay_s: float = 0.0
    ) -> None:
        """Through the event loop."""
        if self._wake is not None:
            loop = asyncio.get_running_loop()
            loop.call_later(delay_s, self._wake, ledger_number, endpoint_ids)

    async def keep_queues(self) -> None:
        """There are no queues."""

    async def consume(
        self, *, wake: Wake, take: Take, taken_over: Callable[[], None], leave: Leave
    ) -> None:
        """From now on; there are no other messages."""
        self._wake = wake

    async def wait_lost(self) -> None:
        """Never."""
        await asyncio.Event().wait()
