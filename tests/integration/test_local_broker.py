"""Without RabbitMQ relay and notifier use a broker in memory; deliveries are kept in the table."""

import asyncio
from dataclasses import replace

import pytest

from tests.support.endpoints import deliveries
from tests.support.notifying import QUICK, Scene, has_received
from tests.support.outbox import left, transfer_event
from tests.support.receivers import after, in_turn, status
from tests.support.waiting import until
from transferd.commit.events import cloud_event
from transferd.domain.ledger import MAIN
from transferd.domain.webhook import DeliveryStatus
from transferd.ledger.ids import new_id


@pytest.fixture
def scene(local_scene: Scene) -> Scene:
    """Without RabbitMQ."""
    return local_scene


async def test_an_event_is_delivered_and_its_row_removed(scene: Scene) -> None:
    receiver, webhook = await scene.receiver()
    worker = await scene.start()
    assert set(worker.tasks) >= {"relay", "consumer", "notifier", "writing"}
    await until(lambda: worker.complaints() == {})
    event = transfer_event()
    await scene.put(event)
    await scene.ends(webhook, event, DeliveryStatus.DELIVERED)
    assert [request.body for request in receiver.received] == [cloud_event(event, MAIN.name)]
    await scene.relayed()


async def test_a_signal_delivers_at_once(scene: Scene) -> None:
    receiver, _ = await scene.receiver()
    # Without the signal the relay would poll after an hour.
    await scene.start(replace(QUICK, relay_poll_s=3600.0))
    for count in (1, 2, 3):
        await scene.put(transfer_event())
        scene.wakeup.set()
        await until(has_received(receiver, count))
        await scene.relayed()


async def test_events_of_one_wallet_arrive_in_order(scene: Scene) -> None:
    receiver, webhook = await scene.receiver()
    ada = new_id(MAIN)
    events = [transfer_event(ada) for _ in range(30)]
    for event in events[:20]:
        await scene.put(event)
    await scene.put(*events[20:])
    await scene.start()
    await scene.ends(webhook, events[-1], DeliveryStatus.DELIVERED)
    assert receiver.event_ids() == [event["id"] for event in events]
    await scene.relayed()


async def test_a_retry_waits_in_the_table(scene: Scene) -> None:
    receiver, webhook = await scene.receiver()
    receiver.answer = in_turn(status(500), status(500), status(204))
    event = transfer_event()
    await scene.start(notify_retry_delays_s="0.1,0.2")
    await scene.put(event)
    await scene.ends(webhook, event, DeliveryStatus.RETRYING)
    assert await left(scene.database) == []
    await scene.ends(webhook, event, DeliveryStatus.DELIVERED)
    found = (await deliveries(scene.database, webhook))[event["id"]]
    assert found.attempts == 3
    assert receiver.event_ids() == [event["id"]] * 3


async def test_waiting_deliveries_are_made_after_a_restart(scene: Scene) -> None:
    good, good_webhook = await scene.receiver()
    bad, bad_webhook = await scene.receiver()
    bad.answer = status(500)
    first, second = transfer_event(), transfer_event()
    async with scene.working(notify_retry_delays_s="1"):
        await scene.put(first, second)
        for event in (first, second):
            await scene.ends(good_webhook, event, DeliveryStatus.DELIVERED)
            await scene.ends(bad_webhook, event, DeliveryStatus.RETRYING)
    bad.answer = None
    # The timers of the retries ended with the process; the sweep finds the rows.
    async with scene.working(
        replace(QUICK, delivery_sweep_interval_s=0.1), notify_retry_delays_s="1"
    ):
        for event in (first, second):
            await scene.ends(bad_webhook, event, DeliveryStatus.DELIVERED)
    assert len(good.received) == 2
    log = await deliveries(scene.database, bad_webhook)
    assert {found.attempts for found in log.values()} == {2}


async def test_a_stop_waits_for_a_delivery_in_flight(scene: Scene) -> None:
    receiver, webhook = await scene.receiver()
    released = asyncio.Event()
    receiver.answer = after(released)
    event = transfer_event()
    async with scene.working():
        await scene.put(event)
        await until(has_received(receiver, 1))
        asyncio.get_running_loop().call_later(0.1, released.set)
    found = (await deliveries(scene.database, webhook))[event["id"]]
    assert found.status is DeliveryStatus.DELIVERED
    async with scene.working():
        await scene.relayed()
    assert len(receiver.received) == 1
