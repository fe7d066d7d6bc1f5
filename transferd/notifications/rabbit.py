"""A connection to RabbitMQ that ends with an error when anything on it ends.

aio_pika's robust connection reports no error while it reconnects, and a consumer that the broker
has cancelled gets no more messages and no error. Here both end the connection with an error. The
owner reports it and opens another connection.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Self

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage
from aio_pika.exceptions import (
    CONNECTION_EXCEPTIONS,
    ChannelNotFoundEntity,
    DeliveryError,
    PublishError,
)
from aiormq import spec
from aiormq.channel import Channel
from yarl import URL

from transferd.commit.events import CLOUD_EVENT
from transferd.config import Limits
from transferd.notifications.broker import Leave, PublicEvent, Take, TransportFailure, Wake
from transferd.notifications.topology import Topology
from transferd.notifications.wakeups import WorkQueue, decode_wakeup, encode_wakeup, surplus

_FAILURES = (*CONNECTION_EXCEPTIONS, TimeoutError)
_PERSISTENT = 2
_HEARTBEAT_S = 10
# After this many looks at a queue that has messages and sends us none, it has forgotten us.
_LOOKS_MAX = 3


class RabbitBroker:
    """A `Broker` with the topology declared. Opens with `async with`.

    Opening raises TransportFailure, or ConfigurationError if the broker has another topology.
    """

    def __init__(self, url: str, topology: Topology, limits: Limits, name: str) -> None:
        self._url = URL(url)
        if "heartbeat" not in self._url.query:
            self._url = self._url.update_query(heartbeat=_HEARTBEAT_S)
        self._topology = topology
        self._limits = limits
        self._name = name
        self._connection: AbstractConnection | None = None
        self._confirming: Channel | None = None
        self._waking: Channel | None = None
        self._lost = asyncio.Event()
        self._consumes = False
        # How many messages each queue has sent us.
        self._received: Counter[str] = Counter()
        # Channels that we close ourselves.
        self._left: set[object] = set()
        self._work = [WorkQueue(name) for name in topology.work_queues]
        # One acknowledgement after the other.
        self._settling = asyncio.Lock()
        self.reason = ""

    def __repr__(self) -> str:
        return f"<RabbitBroker {self._url.host}:{self._url.port}, {self.reason or 'connected'}>"

    async def __aenter__(self) -> Self:
        try:
            async with self._in_time("RabbitMQ is out of reach"):
                self._connection = await aio_pika.connect(
                    self._url, client_properties={"connection_name": self._name}
                )
                channel = await self._connection.channel(publisher_confirms=True)
                await self._topology.declare(channel)
                self._confirming = await self._watched(channel)
                # A wake-up that gets lost delays events by some seconds: it needs no confirm.
                waking = await self._connection.channel(publisher_confirms=False)
                self._waking = await self._watched(waking)
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    async def publish(self, events: Sequence[PublicEvent], *, timeout_s: float) -> list[str | None]:
        """Publish in order, persistent; for each, None once confirmed or why not."""
        channel = self._confirming
        if channel is None or self._lost.is_set():
            raise TransportFailure(self.reason or "RabbitMQ is not connected")
        try:
            async with asyncio.timeout(timeout_s):
                # Each begins before the next one, so they are written in this order.
                results = await asyncio.gather(
                    *(self._publish(channel, event) for event in events), return_exceptions=True
                )
        except TimeoutError as error:
            # Whether they arrive is unknown, and so is the order of messages after them.
            self._lose(f"RabbitMQ did not confirm within {timeout_s} s")
            raise TransportFailure(self.reason) from error
        return [_why_not(result) for result in results]

    async def wake(
        self, ledger_number: int, endpoint_ids: Sequence[str], delay_s: float = 0.0
    ) -> None:
        """Into the work queue of the ledger, or into the retry queue of this delay."""
        if self._waking is None or self._lost.is_set():
            return
        try:
            async with self._in_time("RabbitMQ takes no wake-ups"):
                await self._waking.basic_publish(
                    encode_wakeup(ledger_number, endpoint_ids),
                    exchange=self._topology.retry_queue(delay_s) if delay_s else "",
                    routing_key=self._topology.work_queue(ledger_number),
                    properties=spec.Basic.Properties(delivery_mode=_PERSISTENT),
                )
        except TransportFailure as error:
            self._lose(str(error))

    async def keep_queues(self) -> None:
        """Send a wake-up about nothing into each work queue."""
        for number, _ in enumerate(self._topology.work_queues):
            await self.wake(number, [])

    async def consume(
        self, *, wake: Wake, take: Take, taken_over: Callable[[], None], leave: Leave
    ) -> None:
        """From the work queues; `take` gets those of the dead-letter queue and of the queue of an
        earlier version, if there is one."""

        async def take_other(message: AbstractIncomingMessage) -> None:
            await take(bytes(message.body), message.headers)
            await self._settle(message.ack)

        self._wake, self._taken_over, self._leave = wake, taken_over, leave
        async with self._in_time("RabbitMQ does not let us consume"):
            for queue in self._work:
                await self._consume_work(queue)
            # One at a time: they may be events in order.
            await self._consume(self._topology.dead, take_other, 1)
            await self._consume(self._topology.workers, take_other, 1)
            with suppress(ChannelNotFoundEntity):
                await self._consume(self._topology.previous_work, take_other, 1)
        self._consumes = True

    async def wait_lost(self) -> None:
        """Until the connection is lost, or the broker has forgotten that we consume."""
        looks: Counter[str] = Counter()
        while not self._lost.is_set():
            before = self._received.copy()
            try:
                async with asyncio.timeout(self._limits.consumer_check_s):
                    await self._lost.wait()
            except TimeoutError:
                if not self._consumes:
                    continue
                try:
                    names = [self._topology.workers, *self._topology.work_queues]
                    found = await self._look_at(names)
                except TransportFailure as error:
                    self._lose(str(error))
                    return
                _, workers = found[self._topology.workers]
                for queue, (ready, consumers) in found.items():
                    # A consumer that stands by gets nothing either.
                    is_active = before[queue] or workers < 2
                    is_silent = ready and before[queue] == self._received[queue]
                    looks[queue] = looks[queue] + 1 if is_silent and is_active else 0
                    if consumers == 0 or looks[queue] >= _LOOKS_MAX:
                        self._lose("RabbitMQ has forgotten our consumer")
                await self._share(workers)

    async def _share(self, workers: int) -> None:
        """Leave a queue to another worker if this one has more than its share of them."""
        queue = surplus(self._work, workers)
        if queue is None or queue.channel is None or self._lost.is_set():
            return
        queue.is_left = True
        # Deliveries of its ledgers end first: the other worker would make them a second time.
        leaving = asyncio.ensure_future(
            self._leave(lambda number: self._topology.work_queue(number) == queue.name)
        )
        lost = asyncio.ensure_future(self._lost.wait())
        await asyncio.wait((leaving, lost), return_when=asyncio.FIRST_COMPLETED)
        leaving.cancel()
        lost.cancel()
        if self._lost.is_set():
            return
        try:
            # Its messages return to the queue. Then we stand by behind the other workers.
            async with self._in_time("RabbitMQ does not answer"), self._settling:
                self._left.add(await queue.channel.get_underlay_channel())
                await queue.channel.close()
                queue.newest, queue.is_left = None, False
                await self._consume_work(queue)
        except TransportFailure as error:
            self._lose(str(error))

    async def take_over(self) -> None:
        """Unbind the queue of the version before, if there is one."""
        assert self._confirming is not None
        async with self._in_time("RabbitMQ does not answer"):
            await self._confirming.queue_unbind(
                self._topology.previous_work, self._topology.exchange, "#"
            )

    async def _look_at(self, queues: Sequence[str]) -> dict[str, tuple[int, int]]:
        """How many messages are ready in each queue, and how many consumers it has."""
        found = {}
        async with self._in_time("RabbitMQ does not answer"):
            channel = await self._open().channel()
            for name in queues:
                queue = await channel.declare_queue(name, passive=True)
                result = queue.declaration_result
                found[name] = (result.message_count or 0, result.consumer_count or 0)
            await channel.close()
        return found

    async def _consume_work(self, queue: WorkQueue) -> None:
        self._received[queue.name] = 0
        take = partial(self._take_wakeup, queue)
        queue.channel = await self._consume(queue.name, take, self._limits.notify_prefetch)

    async def _take_wakeup(self, queue: WorkQueue, message: AbstractIncomingMessage) -> None:
        """Those before the newest one are acknowledged."""
        if queue.is_left:
            return
        try:
            ledger_number, endpoint_ids = decode_wakeup(message.body)
        except ValueError:
            await self._settle(message.reject, queue)
            return
        previous, queue.newest = queue.newest, message
        self._wake(ledger_number, endpoint_ids)
        if previous is None:
            self._taken_over()
        else:
            await self._settle(partial(previous.ack, multiple=True), queue)

    async def _consume(
        self,
        name: str,
        take: Callable[[AbstractIncomingMessage], Awaitable[None]],
        prefetch: int,
    ) -> AbstractChannel:
        channel = await self._open().channel()
        queue = await channel.declare_queue(name, passive=True)
        await self._watched(channel)
        await channel.set_qos(prefetch_count=prefetch)

        async def take_it(message: AbstractIncomingMessage) -> None:
            self._received[name] += 1
            if not self._lost.is_set():
                await take(message)

        await queue.consume(take_it)
        return channel

    async def _settle(
        self, settle: Callable[[], Awaitable[None]], work: WorkQueue | None = None
    ) -> None:
        """Acknowledge or reject; if the broker does not learn of it, it sends the message again."""
        async with self._settling:
            if work is not None and work.is_left:
                return
            try:
                await settle()
            except _FAILURES as error:
                self._lose(f"RabbitMQ takes no acknowledgements: {_words(error)}")

    @asynccontextmanager
    async def _in_time(self, complaint: str) -> AsyncIterator[None]:
        """Raise TransportFailure, with this complaint, unless the block succeeds in time."""
        try:
            async with asyncio.timeout(self._limits.amqp_timeout_s):
                yield
        except _FAILURES as error:
            raise TransportFailure(f"{complaint}: {_words(error)}") from error

    async def _publish(self, channel: Channel, event: PublicEvent) -> None:
        await channel.basic_publish(
            event.body,
            exchange=self._topology.exchange,
            routing_key=f"{event.ledger}.{event.type}",
            # Without waiting for each to be written: one flush takes many.
            wait=False,
            properties=spec.Basic.Properties(
                content_type=CLOUD_EVENT,
                delivery_mode=_PERSISTENT,
                headers={"traceparent": event.traceparent} if event.traceparent else None,
                message_id=event.id,
                message_type=event.type,
            ),
        )

    def _open(self) -> AbstractConnection:
        assert self._connection is not None
        return self._connection

    async def _watched(self, channel: AbstractChannel) -> Channel:
        """The channel of aiormq. When it ends, this connection counts as lost."""
        below = await channel.get_underlay_channel()
        assert isinstance(below, Channel)
        below.closing.add_done_callback(partial(self._on_closed, below))
        below.on_consumer_cancel_callbacks.add(self._on_cancelled)
        return below

    def _on_closed(self, channel: object, closing: asyncio.Future[Any]) -> None:
        if channel in self._left:
            self._left.remove(channel)
            return
        error = None if closing.cancelled() else closing.exception()
        self._lose(f"RabbitMQ closed the connection: {_words(error)}")

    def _on_cancelled(self, _: object) -> None:
        self._lose("RabbitMQ has cancelled the consumer")

    def _lose(self, reason: str) -> None:
        self.reason = self.reason or reason
        self._lost.set()

    async def _close(self) -> None:
        self._lose("closed")
        connection, self._connection = self._connection, None
        if connection is not None:
            # A broker that hangs never answers a close.
            with suppress(*_FAILURES):
                async with asyncio.timeout(1.0):
                    await connection.close()


def _why_not(error: BaseException | None) -> str | None:
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
