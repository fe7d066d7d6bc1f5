"""The notifier's transport over RabbitMQ: consume, defer through the wait queues, acknowledge."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from aio_pika.exceptions import CONNECTION_EXCEPTIONS
from aiormq import spec
from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel

from transferd.config import Limits
from transferd.notifications.broker import ATTEMPTS, ENDPOINT, PARKS, RETURNS, Broker, Parcel
from transferd.notifications.inbox import Inbox
from transferd.notifications.messages import Deferred, Message, Outgoing, TransportFailure
from transferd.notifications.topology import Topology
from transferd.observability.facts import Facts, NotifierFailed

# After this many looks at a queue that has messages and gives us none, it has forgotten us.
_LOOKS_MAX = 3


class Acknowledgements:
    """What was acknowledged on one channel: one frame for all that is done from the front."""

    def __init__(self, broker: Broker, channel: Channel) -> None:
        self.broker = broker
        self._channel = channel
        # The lowest tag that is not done, and those above it that are.
        self._open = 1
        self._done: set[int] = set()

    async def send(self, tags: Sequence[int]) -> None:
        """These are done with. Only puts frames into the queue of the writer; it has no bound."""
        self._done.update(tags)
        while self._open in self._done:
            self._done.remove(self._open)
            self._open += 1
        # A tag that was acknowledged before may not be named again, so the last one of these is.
        front = [tag for tag in tags if tag < self._open]
        if front:
            await self._channel.basic_ack(max(front), multiple=True, wait=False)
        # One that takes long must not hold back those behind it: they fill the prefetch.
        for tag in tags:
            if tag > self._open:
                await self._channel.basic_ack(tag, wait=False)

    async def refuse(self, tag: int) -> None:
        """This one has to come again."""
        await self._channel.basic_nack(tag, requeue=True, wait=False)
        self._done.add(tag)


class Receipt(NamedTuple):
    """Where a message came from. Once that connection is gone the broker sends it again anyway."""

    acknowledgements: Acknowledgements
    tag: int


class RabbitTransport:
    """A `Transport`. `run` keeps it connected; what was received stays usable in between."""

    keeps_deferred = True

    def __init__(
        self, connect: Callable[[], Broker], topology: Topology, limits: Limits, facts: Facts
    ) -> None:
        self._connect = connect
        self._topology = topology
        self._limits = limits
        self._facts = facts
        self._broker: Broker | None = None
        self._inbox = Inbox(limits.notify_linger_s)
        self._received_count = 0
        # Received with this connection and not finished.
        self._held_count = 0
        self.fault: str | None = "not connected yet"

    def __repr__(self) -> str:
        return f"<RabbitTransport {len(self._inbox)} received, {self.fault or 'consuming'}>"

    async def run(self) -> None:
        """Stay connected until cancelled. ConfigurationError if the broker cannot be used."""
        wait_s = 0.0
        while True:
            try:
                async with self._connect() as broker:
                    await broker.consume(
                        self._topology.work, self._take(broker), prefetch=self._prefetch
                    )
                    await broker.consume(self._topology.dead, self._take(broker), prefetch=100)
                    self._broker, self.fault, wait_s = broker, None, 0.0
                    await self._watch(broker)
                self.fault = broker.reason
            except TransportFailure as error:
                self.fault = str(error)
            finally:
                # What was received and not begun comes again with the next connection.
                self._broker = None
                self._held_count = 0
                self._inbox.clear()
            self._facts.emit(NotifierFailed(TransportFailure(self.fault)))
            wait_s = min(max(wait_s * 2, self._limits.relay_wait_first_s), self._wait_max_s)
            await asyncio.sleep(wait_s)

    async def receive(self, messages_max: int) -> list[Message]:
        """At least one message; waits for it."""
        return await self._inbox.take(messages_max)

    async def defer(self, deferred: Sequence[Deferred]) -> list[bool]:
        """Publish to the wait queues; for each, whether the broker has confirmed it."""
        return await self._publish(
            [
                Parcel(
                    item.outgoing,
                    self._topology.wait_queue(item.delay_s),
                    {ATTEMPTS: item.attempts, PARKS: item.parks},
                )
                for item in deferred
            ]
        )

    async def renew(self, message: Message) -> bool:
        """Publish a copy to the work queue, where the broker counts its returns from 0 again."""
        outgoing = Outgoing("", "", message.body, None, message.endpoint_id)
        headers = {
            ATTEMPTS: message.attempts,
            PARKS: message.parks,
            RETURNS: message.returns,
        }
        [is_certain] = await self._publish([Parcel(outgoing, self._topology.work, headers)])
        return is_certain

    def reconsider(self, messages: Sequence[Message]) -> None:
        """Receive these once more; those of an earlier connection come again by themselves."""
        self._inbox.put([m for m in messages if not m.receipt.acknowledgements.broker.is_lost])

    async def finish(self, messages: Sequence[Message]) -> None:
        """Acknowledge."""
        done: dict[Acknowledgements, list[int]] = {}
        for receipt in self._valid(messages):
            done.setdefault(receipt.acknowledgements, []).append(receipt.tag)
        for acknowledgements, tags in done.items():
            try:
                await acknowledgements.send(tags)
            except CONNECTION_EXCEPTIONS as error:
                acknowledgements.broker.lose(f"RabbitMQ takes no acknowledgements: {error}")

    async def give_back(self, messages: Sequence[Message]) -> None:
        """Return to the queue."""
        for receipt in self._valid(messages):
            try:
                await receipt.acknowledgements.refuse(receipt.tag)
            except CONNECTION_EXCEPTIONS as error:
                receipt.acknowledgements.broker.lose(f"RabbitMQ takes nothing back: {error}")
                return

    @property
    def _prefetch(self) -> int:
        return self._limits.notify_prefetch

    @property
    def _wait_max_s(self) -> float:
        return self._limits.relay_wait_max_s

    def _take(self, broker: Broker) -> Callable[[Channel, DeliveredMessage], None]:
        known: dict[Channel, Acknowledgements] = {}

        def take(channel: Channel, delivered: DeliveredMessage) -> None:
            if broker.is_lost:
                return
            if channel not in known:
                known[channel] = Acknowledgements(broker, channel)
            self._received_count += 1
            self._held_count += 1
            self._inbox.put([_message(known[channel], delivered, self._topology)])

        return take

    async def _publish(self, parcels: Sequence[Parcel]) -> list[bool]:
        broker = self._broker
        if broker is None:
            return [False] * len(parcels)
        try:
            outcomes = await broker.publish(parcels, timeout_s=self._limits.amqp_timeout_s)
        except TransportFailure:
            return [False] * len(parcels)
        return [outcome is None for outcome in outcomes]

    def _valid(self, messages: Sequence[Message]) -> list[Receipt]:
        """The receipts that the broker still knows; they are held no longer."""
        receipts: list[Receipt] = [message.receipt for message in messages]
        valid = [receipt for receipt in receipts if not receipt.acknowledgements.broker.is_lost]
        self._held_count -= len(valid)
        return valid

    async def _watch(self, broker: Broker) -> None:
        """Until the connection is lost, or the broker has forgotten that we consume."""
        looks = 0
        while not broker.is_lost:
            before = self._received_count
            try:
                async with asyncio.timeout(self._limits.consumer_check_s):
                    await broker.wait_lost()
            except TimeoutError:
                ready, consumers = await broker.look_at(self._topology.work)
                # With another worker's consumer at work ours is silent for good reason; connecting
                # anew then costs nothing.
                is_idle = ready > 0 and before == self._received_count and not self._held_count
                looks = looks + 1 if is_idle else 0
                if consumers == 0 or looks >= _LOOKS_MAX:
                    broker.lose("RabbitMQ has forgotten our consumer")


def _message(
    acknowledgements: Acknowledgements, delivered: DeliveredMessage, topology: Topology
) -> Message:
    headers = delivered.header.properties.headers or {}
    delivery = delivered.delivery
    assert isinstance(delivery, spec.Basic.Deliver)
    dead = delivery.routing_key == topology.dead
    broker_returns = _count(headers, "x-delivery-count")
    return Message(
        body=delivered.body,
        endpoint_id=_id(headers.get(ENDPOINT)),
        attempts=_count(headers, ATTEMPTS),
        parks=_count(headers, PARKS),
        returns=_count(headers, RETURNS) + broker_returns,
        broker_returns=broker_returns,
        dead_reason=str(headers.get("x-first-death-reason", "unknown")) if dead else None,
        receipt=Receipt(acknowledgements, delivery.delivery_tag or 0),
    )


def _id(value: object) -> str | None:
    """An id that can be stored; others may publish too, with anything in its place."""
    try:
        return str(UUID(value)) if isinstance(value, str) else None
    except ValueError:
        return None


def _count(headers: dict[str, Any], name: str) -> int:
    value = headers.get(name, 0)
    return value if isinstance(value, int) and 0 <= value < 1_000_000 else 0
