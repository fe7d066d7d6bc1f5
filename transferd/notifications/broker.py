"""One connection to RabbitMQ. It does not mend itself: whoever owns it opens another one.

A robust connection waits silently while it reconnects, and a consumer that the broker has cancelled
stays silent for ever; here both end with an error that the owner sees, reports and acts on.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, NamedTuple, Self

import aio_pika
from aio_pika.exceptions import CONNECTION_EXCEPTIONS, DeliveryError, PublishError
from aiormq import spec
from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel
from yarl import URL

from transferd.commit.events import CLOUD_EVENT
from transferd.config import Limits
from transferd.notifications.messages import Outgoing, TransportFailure
from transferd.notifications.topology import Topology

ENDPOINT = "x-transferd-endpoint"
ATTEMPTS = "x-transferd-attempts"
PARKS = "x-transferd-parks"
RETURNS = "x-transferd-returns"

_FAILURES = (*CONNECTION_EXCEPTIONS, TimeoutError)
_PERSISTENT = 2
_HEARTBEAT_S = 10


class Parcel(NamedTuple):
    """A message and where it goes: to the exchange of events, or straight to a queue."""

    outgoing: Outgoing
    queue: str | None = None
    headers: dict[str, Any] | None = None


class Broker:
    """A connection with the topology declared. Opens with `async with`.

    Opening raises TransportFailure, or ConfigurationError if the broker has another topology.
    """

    def __init__(self, url: str, topology: Topology, limits: Limits, name: str) -> None:
        self._url = URL(url)
        if "heartbeat" not in self._url.query:
            self._url = self._url.update_query(heartbeat=_HEARTBEAT_S)
        self._topology = topology
        self._limits = limits
        self._name = name
        self._connection: aio_pika.abc.AbstractConnection | None = None
        self._publishing: Channel | None = None
        self._lost = asyncio.Event()
        self.reason = ""

    def __repr__(self) -> str:
        return f"<Broker {self._url.host}:{self._url.port}, {self.reason or 'connected'}>"

    @property
    def is_lost(self) -> bool:
        """Whether the connection, or what was opened on it, has ended."""
        return self._lost.is_set()

    async def __aenter__(self) -> Self:
        try:
            async with asyncio.timeout(self._limits.amqp_timeout_s):
                self._connection = await aio_pika.connect(
                    self._url, client_properties={"connection_name": self._name}
                )
                channel = await self._open_channel()
                await self._topology.declare(channel)
                self._publishing = await self._watched(channel)
        except BaseException as error:
            await self._close()
            if isinstance(error, _FAILURES):
                raise TransportFailure(f"RabbitMQ is out of reach: {_words(error)}") from error
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._close()

    async def wait_lost(self) -> None:
        """Return when the connection is of no more use; `reason` says why."""
        await self._lost.wait()

    def lose(self, reason: str) -> None:
        """Declare the connection useless."""
        self.reason = self.reason or reason
        self._lost.set()

    async def publish(self, parcels: Sequence[Parcel], *, timeout_s: float) -> list[str | None]:
        """Publish in order, persistent and mandatory; for each, None once confirmed or why not."""
        channel = self._publishing
        if channel is None or self.is_lost:
            raise TransportFailure(self.reason or "RabbitMQ is not connected")
        # The library tells what the broker has returned by its message id, and would take a second
        # message with the same one for confirmed. So only the first has the event's, the others one
        # that the library makes up.
        ids = {parcel.outgoing.event_id: parcel.outgoing.event_id for parcel in parcels}
        # Each begins before the next one, so they are written in this order.
        tasks = [
            asyncio.ensure_future(
                self._publish(channel, parcel, ids.pop(parcel.outgoing.event_id, ""))
            )
            for parcel in parcels
        ]
        try:
            _, late = await asyncio.wait(tasks, timeout=timeout_s)
        except asyncio.CancelledError:
            for task in tasks:
                task.cancel()
            raise
        if late:
            # Whether they arrive is unknown, and so is the order of whatever would follow them.
            self.lose(f"RabbitMQ did not confirm within {timeout_s} s")
            for task in late:
                task.cancel()
            await asyncio.wait(late)
        return [_outcome(task) for task in tasks]

    async def consume(
        self, queue: str, receive: Callable[[Channel, DeliveredMessage], None], *, prefetch: int
    ) -> None:
        """Hand every message of the queue, with its channel, to `receive`."""
        try:
            async with asyncio.timeout(self._limits.amqp_timeout_s):
                channel = await self._watched(await self._open_channel())
                await channel.basic_qos(prefetch_count=prefetch)

                async def take(message: DeliveredMessage) -> None:
                    receive(channel, message)

                await channel.basic_consume(queue, take)
        except _FAILURES as error:
            raise TransportFailure(f"RabbitMQ does not let us consume: {_words(error)}") from error

    async def look_at(self, queue: str) -> tuple[int, int]:
        """How many messages are ready in a queue, and how many consumers it has."""
        try:
            async with asyncio.timeout(self._limits.amqp_timeout_s):
                channel = await self._open_channel()
                found = await channel.declare_queue(queue, passive=True)
                result = found.declaration_result
                await channel.close()
        except _FAILURES as error:
            raise TransportFailure(f"RabbitMQ does not answer: {_words(error)}") from error
        return result.message_count or 0, result.consumer_count or 0

    async def _publish(self, channel: Channel, parcel: Parcel, message_id: str) -> None:
        outgoing = parcel.outgoing
        headers = dict(parcel.headers or {})
        if outgoing.traceparent:
            headers["traceparent"] = outgoing.traceparent
        if outgoing.endpoint_id:
            headers[ENDPOINT] = outgoing.endpoint_id
        await channel.basic_publish(
            outgoing.body,
            exchange="" if parcel.queue else self._topology.exchange,
            routing_key=parcel.queue or outgoing.event_type,
            mandatory=True,
            # Without waiting for each to be written: one flush takes many.
            wait=False,
            properties=spec.Basic.Properties(
                content_type=CLOUD_EVENT,
                delivery_mode=_PERSISTENT,
                headers=headers,
                message_id=message_id or None,
                message_type=outgoing.event_type,
            ),
        )

    async def _open_channel(self) -> aio_pika.abc.AbstractChannel:
        assert self._connection is not None
        return await self._connection.channel(publisher_confirms=True, on_return_raises=True)

    async def _watched(self, channel: aio_pika.abc.AbstractChannel) -> Channel:
        """The channel below, whose end is the end of this connection for us."""
        below = await channel.get_underlay_channel()
        assert isinstance(below, Channel)
        below.closing.add_done_callback(self._on_closed)
        below.on_consumer_cancel_callbacks.add(self._on_cancelled)
        return below

    def _on_closed(self, closing: asyncio.Future[Any]) -> None:
        error = None if closing.cancelled() else closing.exception()
        self.lose(f"RabbitMQ closed the connection: {_words(error)}")

    def _on_cancelled(self, _: object) -> None:
        self.lose("RabbitMQ has cancelled the consumer")

    async def _close(self) -> None:
        self.lose("closed")
        connection, self._connection = self._connection, None
        if connection is not None:
            # A broker that hangs never answers a close.
            with suppress(*_FAILURES):
                async with asyncio.timeout(1.0):
                    await connection.close()


def _outcome(task: asyncio.Future[None]) -> str | None:
    if task.cancelled():
        return "not confirmed"
    error = task.exception()
    if error is None:
        return None
    if isinstance(error, PublishError):
        return "RabbitMQ has no queue for it"
    if isinstance(error, DeliveryError):
        return "RabbitMQ refused it: a queue is full"
    return _words(error)


def _words(error: BaseException | None) -> str:
    if error is None:
        return "without a reason"
    text = " ".join(str(error).split())
    return text or type(error).__name__
