"""A worker takes over the messages and dead letters of the version before."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import aio_pika
import orjson
import pytest

from tests.conftest import Database
from tests.support.deliveries import logged_delivery
from tests.support.endpoints import deliveries, letters
from tests.support.notifying import QUICK, Scene
from tests.support.outbox import put, transfer_event
from tests.support.queues import message_count, publish, topology_of
from tests.support.waiting import until
from transferd.commit.events import cloud_event
from transferd.config import Settings
from transferd.domain.ledger import MAIN
from transferd.domain.webhook import DeliveryStatus
from transferd.ledger.ids import new_id
from transferd.notifications.carryover import ATTEMPTS, ENDPOINT

_WAIT_S = 0.3


class Previous:
    """The queues of the version before, as it declares them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topology = topology_of(settings)
        self.work = self._topology.previous_work
        self.dead = self._topology.dead
        self.wait = f"{settings.amqp_prefix}notify.wait.{round(_WAIT_S * 1000)}ms"

    async def declare(self) -> None:
        safe = {
            "x-queue-type": "quorum",
            "x-dead-letter-exchange": "",
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        }
        queues: dict[str, dict[str, Any]] = {
            self.dead: {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000_000},
            self.work: {
                **safe,
                "x-dead-letter-routing-key": self.dead,
                "x-delivery-limit": 20,
                "x-max-length": 1_000_000,
                "x-single-active-consumer": True,
            },
            self.wait: {
                **safe,
                "x-dead-letter-routing-key": self.work,
                "x-message-ttl": round(_WAIT_S * 1000),
            },
        }
        async with await self._connect() as connection:
            channel = await connection.channel()
            exchange = await channel.declare_exchange(
                self._topology.exchange, aio_pika.ExchangeType.TOPIC, durable=True
            )
            for name, arguments in queues.items():
                queue = await channel.declare_queue(name, durable=True, arguments=arguments)
                if name == self.work:
                    await queue.bind(exchange, "#")

    async def publish(self, queue: str, event: dict[str, Any], **headers: str | int) -> None:
        """A message of an event, as its relay or its notifier published it."""
        named = {
            {"endpoint": ENDPOINT, "attempts": ATTEMPTS}[name]: value
            for name, value in headers.items()
        }
        await publish(self._settings, queue, cloud_event(event, MAIN.name), **named)

    async def remove(self) -> None:
        async with await self._connect() as connection:
            channel = await connection.channel()
            for name in (self.work, self.wait):
                await channel.queue_delete(name)

    async def _connect(self) -> Any:
        return await aio_pika.connect(self._settings.required("amqp_url"))


@pytest.fixture
async def previous(scene: Scene) -> AsyncIterator[Previous]:
    found = Previous(scene.settings_with())
    await found.declare()
    yield found
    await found.remove()


async def kept_letter(
    database: Database, event: dict[str, Any], endpoint: str | None, reason: str
) -> None:
    """A dead letter as the version before keeps it."""
    await database.fetch(
        "INSERT INTO ledger_00.dead_letters (id, endpoint_id, event_id, event_type, reason, detail,"
        " attempts, body, died_at) VALUES ($1, $2, $3, $4, $5, 'answered 500', 4, $6, now())",
        new_id(MAIN),
        endpoint,
        event["id"],
        event["type"],
        reason,
        cloud_event(event, MAIN.name),
    )


async def test_the_content_of_each_queue_and_table_is_carried_over(
    scene: Scene, previous: Previous
) -> None:
    receiver, webhook = await scene.receiver()
    database = scene.database
    first, retry, parked, given_up, waiting, delivered = (transfer_event() for _ in range(6))
    dead, for_all = transfer_event(), transfer_event()

    async def row(event: dict[str, Any], status: str, attempts: int) -> None:
        await logged_delivery(
            database,
            webhook,
            event_id=event["id"],
            event=orjson.loads(cloud_event(event, MAIN.name)),
            status=status,
            attempts=attempts,
        )

    await previous.publish(previous.work, first)
    await row(retry, "retrying", 2)
    await previous.publish(previous.wait, retry, endpoint=webhook, attempts=2)
    # Its endpoint had no room: there was no attempt, and there is no row.
    await previous.publish(previous.wait, parked, endpoint=webhook, attempts=0)
    await previous.publish(previous.dead, given_up)
    await put(database, [waiting])
    # Published twice, and delivered before.
    await row(delivered, "delivered", 1)
    await previous.publish(previous.work, delivered)
    await row(dead, "dead", 4)
    await kept_letter(database, dead, webhook, "attempts exhausted")
    await kept_letter(database, for_all, None, "undeliverable")
    await publish(scene.settings_with(), previous.work, b"no event")

    await scene.start()
    for event, attempts in ((first, 1), (parked, 1), (given_up, 1), (waiting, 1)):
        await scene.ends(webhook, event, DeliveryStatus.DELIVERED)
        found = (await deliveries(database, webhook))[event["id"]]
        assert found.attempts == attempts
    await scene.ends(webhook, retry, DeliveryStatus.DELIVERED)
    await scene.has_letters(3)
    found_letters = {letter.event: letter for letter in await letters(database)}
    assert found_letters[dead["id"]].reason == "attempts exhausted"
    assert found_letters[dead["id"]].body == cloud_event(dead, MAIN.name)
    assert (found_letters[for_all["id"]].reason, found_letters[for_all["id"]].endpoint) == (
        "undeliverable",
        webhook,
    )
    assert found_letters[None].body == b"no event"
    sent = Counter(receiver.event_ids())
    assert set(sent) == {event["id"] for event in (first, retry, parked, given_up, waiting)}
    assert set(sent.values()) == {1}


async def test_an_upgrade_under_load_loses_and_repeats_nothing(
    scene: Scene, previous: Previous
) -> None:
    receiver, webhook = await scene.receiver()
    events = [transfer_event() for _ in range(150)]
    # Events that the relay of the version before has published; the others are in the outbox.
    for event in events[:50]:
        await previous.publish(previous.work, event)

    async def goes_on() -> None:
        for event in events[50:]:
            await put(scene.database, [event])
            await asyncio.sleep(0)

    load = asyncio.create_task(goes_on())
    async with scene.working(QUICK):
        await load
        await until(lambda: scene.results(webhook)["delivered"] == 150)
    assert Counter(receiver.event_ids()) == Counter(event["id"] for event in events)
    # The queue of the version before gets no events any more.
    assert await message_count(scene.settings_with(), previous.work) == 0


async def test_a_queue_of_the_version_before_that_is_bound_again_does_no_harm(
    scene: Scene, previous: Previous
) -> None:
    receiver, webhook = await scene.receiver()
    await scene.start()
    event, later = transfer_event(), transfer_event()
    await scene.put(event)
    await scene.ends(webhook, event, DeliveryStatus.DELIVERED)
    # As a relay of the version before does when it starts beside this one.
    await previous.declare()
    await scene.put(later)
    await scene.ends(webhook, later, DeliveryStatus.DELIVERED)

    async def is_empty() -> bool:
        return await message_count(scene.settings_with(), previous.work) == 0

    await until(is_empty)
    assert receiver.event_ids() == [event["id"], later["id"]]
