"""The queues of the broker, through connections of their own."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aio_pika
from aio_pika.abc import AbstractIncomingMessage

from tests.support.waiting import patient_s
from transferd.config import Limits, Settings
from transferd.notifications.topology import Topology


def topology_of(settings: Settings, limits: Limits | None = None) -> Topology:
    """The names of queues and exchanges of a worker with these settings."""
    return Topology(settings.amqp_prefix, settings.retry_delays_s, limits or Limits())


def queue_names(settings: Settings) -> list[str]:
    """All queues of these settings."""
    topology = topology_of(settings)
    waits = [topology.retry_queue(delay_s) for delay_s in settings.retry_delays_s]
    return [*topology.work_queues, topology.workers, topology.dead, *waits, topology.seal]


def exchange_names(settings: Settings) -> list[str]:
    """All exchanges of these settings: the public one, and one for each delay."""
    topology = topology_of(settings)
    waits = [topology.retry_queue(delay_s) for delay_s in settings.retry_delays_s]
    return [topology.exchange, *waits]


@asynccontextmanager
async def bound_queue(settings: Settings, key: str = "#", **arguments: Any) -> AsyncIterator[str]:
    """A queue that is bound to the public exchange until the block ends; yields its name."""
    async with await aio_pika.connect(settings.required("amqp_url")) as connection:
        channel = await connection.channel()
        exchange = await channel.declare_exchange(
            topology_of(settings).exchange, aio_pika.ExchangeType.TOPIC, durable=True
        )
        queue = await channel.declare_queue(auto_delete=False, arguments=arguments or None)
        await queue.bind(exchange, key)
        yield queue.name
        await queue.delete(if_unused=False, if_empty=False)


async def message_count(settings: Settings, queue: str) -> int:
    """The number of ready messages in a queue."""
    connection = await aio_pika.connect(settings.required("amqp_url"))
    async with connection:
        channel = await connection.channel()
        found = await channel.declare_queue(queue, passive=True)
        return found.declaration_result.message_count or 0


async def take(settings: Settings, queue: str, count: int) -> list[AbstractIncomingMessage]:
    """Consume and acknowledge this many messages of a queue, in the order of their arrival."""
    connection = await aio_pika.connect(settings.required("amqp_url"))
    async with connection, asyncio.timeout(patient_s(10.0)):
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=count)
        found = await channel.declare_queue(queue, passive=True)
        taken: list[AbstractIncomingMessage] = []
        async with found.iterator() as messages:
            async for message in messages:
                taken.append(message)
                await message.ack()
                if len(taken) == count:
                    break
    return taken


async def publish(settings: Settings, queue: str, body: bytes, **headers: str | int) -> None:
    """Put a persistent message into a queue."""
    connection = await aio_pika.connect(settings.required("amqp_url"))
    async with connection:
        channel = await connection.channel()
        message = aio_pika.Message(
            body, headers=dict(headers), delivery_mode=aio_pika.DeliveryMode.PERSISTENT
        )
        await channel.default_exchange.publish(message, queue)


async def remove_queues(url: str, several: Sequence[Settings]) -> None:
    """Delete the queues and exchanges of these settings; missing ones are ignored."""
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        for name in {name for settings in several for name in queue_names(settings)}:
            await channel.queue_delete(name)
        for exchange in {name for settings in several for name in exchange_names(settings)}:
            await channel.exchange_delete(exchange)
