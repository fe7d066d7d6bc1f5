"""Without a broker: the outbox itself is the queue, and keeps what is not delivered yet."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from tests.conftest import Database
from tests.support.endpoints import deliveries, delivery, letters
from tests.support.notifying import QUICK, Scene, has_received
from tests.support.outbox import again, left, transfer_event, wallet_event
from tests.support.receivers import after, in_turn, status
from tests.support.waiting import until
from transferd.commit.events import cloud_event
from transferd.config import Limits, Settings
from transferd.domain.webhook import DeliveryStatus
from transferd.ledger.ids import new_id
from transferd.ledger.store.database import Database as Store
from transferd.ledger.store.deliveries import ask_again_for


@pytest.fixture
async def scene(database: Database) -> AsyncIterator[Scene]:
    def settings_with(**changes: object) -> Settings:
        return database.settings(
            worker_port=0,
            webhook_allow_http=True,
            webhook_allow_networks="127.0.0.0/8",
            **changes,
        )

    async with AsyncExitStack() as exits:
        yield Scene(database, settings_with, exits)


async def test_an_event_is_delivered_and_its_row_removed(scene: Scene) -> None:
    receiver, webhook = await scene.receiver()
    worker = await scene.start()
    assert set(worker.tasks) == {"relay", "recorder", "notifier", "pruning"}
    assert worker.complaints() == {}
    event = transfer_event()
    await scene.put(event)
    await scene.ends(webhook, event, DeliveryStatus.DELIVERED)
    assert [request.body for request in receiver.received] == [cloud_event(event)]
    await scene.relayed()


async def test_a_signal_delivers_at_once(scene: Scene) -> None:
    receiver, _ = await scene.receiver()
    await scene.start(replace(QUICK, relay_poll_s=60.0))
    for count in (1, 2, 3):
        await scene.put(transfer_event())
        scene.wakeup.set()
        await until(has_received(receiver, count))
        # Nobody has to tell that a row is over.
        await scene.relayed()


async def test_a_wallets_events_come_in_order(scene: Scene) -> None:
    receiver, webhook = await scene.receiver()
    ada = new_id()
    events = [transfer_event(ada) for _ in range(30)]
    for event in events[:20]:
        await scene.put(event)
    await scene.put(*events[20:])
    await scene.start()
    await scene.ends(webhook, events[-1], DeliveryStatus.DELIVERED)
    assert receiver.event_ids() == [event["id"] for event in events]
    await scene.relayed()


async def test_a_row_stays_until_each_of_its_events_is_delivered(scene: Scene) -> None:
    quick, quick_webhook = await scene.receiver()
    slow, slow_webhook = await scene.receiver("wallet.frozen")
    released = asyncio.Event()
    slow.answer = after(released)
    transfer, frozen, alone = transfer_event(), wallet_event(), transfer_event()
    await scene.start()
    await scene.put(transfer, frozen)
    await scene.put(alone)
    await until(has_received(slow, 1))
    await scene.ends(quick_webhook, frozen, DeliveryStatus.DELIVERED)
    await scene.ends(quick_webhook, alone, DeliveryStatus.DELIVERED)

    async def one_row_is_left() -> bool:
        return await left(scene.database) == [[transfer["id"], frozen["id"]]]

    await until(one_row_is_left)
    released.set()
    await scene.relayed()
    await scene.ends(slow_webhook, frozen, DeliveryStatus.DELIVERED)
    assert len(quick.received) == 3


async def test_a_row_stays_while_a_retry_waits(scene: Scene) -> None:
    receiver, webhook = await scene.receiver()
    receiver.answer = in_turn(status(500), status(500), status(204))
    event = transfer_event()
    await scene.start(notify_retry_delays_s="0.1,0.2")
    await scene.put(event)
    await scene.ends(webhook, event, DeliveryStatus.RETRYING)
    assert await left(scene.database) == [[event["id"]]]
    await scene.ends(webhook, event, DeliveryStatus.DELIVERED)
    await scene.relayed()
    found = await delivery(scene.database, webhook, event["id"])
    assert found is not None
    assert found.attempts == 3
    assert receiver.event_ids() == [event["id"]] * 3


async def test_a_dead_letter_ends_a_row_as_well(scene: Scene) -> None:
    receiver, webhook = await scene.receiver()
    receiver.answer = status(500)
    event = transfer_event()
    await scene.start(notify_retry_delays_s="0.05")
    await scene.put(event)
    await scene.ends(webhook, event, DeliveryStatus.DEAD)
    await scene.relayed()
    [letter] = await letters(scene.database)
    assert (letter.event, letter.attempts) == (event["id"], 2)


async def test_what_was_not_delivered_is_delivered_after_a_restart(scene: Scene) -> None:
    good, good_webhook = await scene.receiver()
    bad, bad_webhook = await scene.receiver()
    bad.answer = status(500)
    first, second = transfer_event(), transfer_event()
    async with scene.working(notify_retry_delays_s="600"):
        await scene.put(first, second)
        for event in (first, second):
            await scene.ends(good_webhook, event, DeliveryStatus.DELIVERED)
            await scene.ends(bad_webhook, event, DeliveryStatus.RETRYING)
    assert await left(scene.database) == [[first["id"], second["id"]]]

    bad.answer = None
    async with scene.working(notify_retry_delays_s="600"):
        for event in (first, second):
            await scene.ends(bad_webhook, event, DeliveryStatus.DELIVERED)
        await scene.relayed()
    # Whoever had them already did not get them again.
    assert len(good.received) == 2
    assert scene.results(good_webhook) == {"delivered": 2, "repeated": 2}
    assert [
        found.attempts for found in (await deliveries(scene.database, bad_webhook)).values()
    ] == [
        2,
        2,
    ]


async def test_a_stop_waits_for_what_is_on_its_way(scene: Scene) -> None:
    receiver, webhook = await scene.receiver()
    released = asyncio.Event()
    receiver.answer = after(released)
    event = transfer_event()
    async with scene.working():
        await scene.put(event)
        await until(has_received(receiver, 1))
        asyncio.get_running_loop().call_later(0.1, released.set)
    found = await delivery(scene.database, webhook, event["id"])
    assert found is not None
    assert found.status is DeliveryStatus.DELIVERED
    async with scene.working():
        await scene.relayed()
    assert len(receiver.received) == 1


async def test_what_is_asked_for_again_comes_again_to_that_endpoint(scene: Scene) -> None:
    receiver, webhook = await scene.receiver()
    other, _ = await scene.receiver()
    event = transfer_event()
    await scene.start()
    await scene.put(event)
    await scene.ends(webhook, event, DeliveryStatus.DELIVERED)
    async with (
        Store(scene.database.settings(), Limits(), 1) as store,
        store.transaction() as transaction,
    ):
        await ask_again_for(transaction, [(event["id"], webhook)])
    await scene.put(again(event, webhook))
    await until(has_received(receiver, 2))
    await scene.relayed()
    assert other.event_ids() == [event["id"]]


async def test_no_more_is_taken_than_a_notifier_may_hold(scene: Scene) -> None:
    receiver, webhook = await scene.receiver()
    released = asyncio.Event()
    receiver.answer = after(released)
    events = [transfer_event() for _ in range(10)]
    for event in events:
        await scene.put(event)
    await scene.start(replace(QUICK, notify_prefetch=3))
    await until(has_received(receiver, 3))
    assert receiver.in_progress == 3
    released.set()
    await scene.relayed()
    assert receiver.event_ids() == [event["id"] for event in events]
    assert receiver.most_in_progress == 3
    assert scene.results(webhook) == {"delivered": 10}


async def test_a_slow_endpoints_surplus_waits_without_being_tried(scene: Scene) -> None:
    slow, webhook = await scene.receiver()
    quick, _ = await scene.receiver()
    released = asyncio.Event()
    slow.answer = after(released)
    limits = replace(QUICK, endpoint_in_flight_max=1, endpoint_held_max=2, endpoint_trouble_s=0.05)
    events = [transfer_event() for _ in range(10)]
    await scene.start(limits)
    await scene.put(*events)
    await until(has_received(quick, 10))
    assert len(slow.received) == 1
    await until(lambda: scene.results(webhook)["parked"] >= 8)
    released.set()
    await scene.relayed()
    assert sorted(slow.event_ids()) == sorted(event["id"] for event in events)
    recorded = await deliveries(scene.database, webhook)
    assert {found.attempts for found in recorded.values()} == {1}
