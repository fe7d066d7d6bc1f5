"""Events of a disabled webhook are in its delivery log and can be redelivered."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from tests.conftest import Database, Replicas
from tests.support.endpoints import deliveries, delivery, letters, update_webhook
from tests.support.notifying import QUICK, Scene, has_received
from tests.support.outbox import again, transfer_event
from tests.support.receivers import after
from tests.support.waiting import until
from transferd.commit.events import cloud_event
from transferd.domain.ledger import MAIN
from transferd.domain.webhook import DeliveryStatus, WebhookStatus
from transferd.ledger.ids import new_id
from transferd.ledger.store.database import LedgerDatabase
from transferd.ledger.store.dead_letters import Filter
from transferd.ledger.store.deliveries import (
    DeliveryRecord,
    EventText,
    NewDelivery,
    ask_again,
    insert_deliveries,
    list_deliveries,
    record_deliveries,
)
from transferd.notifications.dead_letters import redrive

WEBHOOK = "019a0000-0000-7000-8000-00000000000a"


@pytest.fixture
def scene(local_scene: Scene) -> Scene:
    """Without RabbitMQ, because the code of disabled webhooks does not depend on the broker."""
    return local_scene


async def disable(scene: Scene, webhook: str) -> None:
    """Disable a webhook, as a client does."""
    await update_webhook(scene.database, webhook, status=WebhookStatus.DISABLED, reason="asked to")


async def enable(scene: Scene, webhook: str) -> None:
    """Enable a webhook, as a client does."""
    await update_webhook(scene.database, webhook, status=WebhookStatus.ACTIVE)


async def asked_again(
    scene: Scene, store: LedgerDatabase, event: dict[str, Any], webhook: str
) -> None:
    """Redeliver an event, as a request does."""
    log = await list_deliveries(store, webhook, status=None, before_id=None, limit=100)
    [id] = [row.id for row in log if row.event_id == event["id"]]
    async with store.transaction() as transaction:
        assert await ask_again(transaction, webhook, id)
    await scene.put(again(event, webhook))


async def relayed(store: LedgerDatabase, event: dict[str, Any], status: DeliveryStatus) -> None:
    """Write a delivery to the webhook, as a relay does."""
    text = EventText(event["id"], event["type"], cloud_event(event, MAIN.name).decode())
    async with store.transaction() as transaction:
        await insert_deliveries(transaction, [text], [NewDelivery(1, WEBHOOK, status, "why")])


async def attempted(store: LedgerDatabase, event: dict[str, Any], result: DeliveryStatus) -> None:
    """Write the result of a delivery, as a notifier does."""
    record = DeliveryRecord(
        event_id=event["id"],
        endpoint_id=WEBHOOK,
        status=result,
        error="the endpoint is disabled",
    )
    async with store.transaction() as transaction:
        await record_deliveries(transaction, [record])


# Events that were never sent


async def test_events_of_a_disabled_webhook_are_in_its_log_and_can_be_redelivered(
    scene: Scene, replicas: Replicas
) -> None:
    api = await replicas.start()
    receiver, webhook = await scene.receiver("transfer.*")
    path = f"/webhooks/{webhook}"
    await api.patch(path, {"status": "disabled"})
    await scene.start()
    event, other = (
        transfer_event(),
        transfer_event(type="wallet.created", data={"id": new_id(MAIN)}),
    )
    await scene.put(event, other)
    await scene.ends(webhook, event, DeliveryStatus.SKIPPED)
    await scene.relayed()
    [row] = (await api.get(f"{path}/deliveries?status=skipped")).json["data"]
    assert (row["event_id"], row["status"], row["attempts"]) == (event["id"], "skipped", 0)
    assert (row["error"], row["response_status"]) == ("the endpoint is disabled", None)
    assert row["next_attempt_at"] is None
    assert (await api.get(f"{path}/deliveries")).json["data"] == [row]
    again_path = f"{path}/deliveries/{row['id']}/redeliver"
    assert (await api.post(again_path, key="again")).code == "webhook-disabled"
    await api.patch(path, {"status": "active"})
    assert receiver.received == []
    assert (await api.post(again_path, key="again")).status == 202
    await scene.ends(webhook, event, DeliveryStatus.DELIVERED)
    assert [request.body for request in receiver.received] == [cloud_event(event, MAIN.name)]
    [row] = (await api.get(f"{path}/deliveries")).json["data"]
    assert (row["status"], row["attempts"], row["error"]) == ("delivered", 1, None)
    # The relay has skipped the event, so there was one attempt.
    assert scene.results(webhook) == {"delivered": 1}
    assert await letters(scene.database) == []


async def test_a_repeated_event_is_one_row_after_the_webhook_is_active_again(
    scene: Scene,
) -> None:
    receiver, webhook = await scene.receiver()
    await disable(scene, webhook)
    await scene.start()
    event, last = transfer_event(), transfer_event()
    await scene.put(event, event)
    await scene.put(event)
    await scene.ends(webhook, event, DeliveryStatus.SKIPPED)
    await scene.relayed()
    before = await delivery(scene.database, webhook, event["id"])
    await enable(scene, webhook)
    await scene.put(event)
    # Without a request the webhook does not get the event again.
    await scene.put(again(event, webhook))
    await scene.put(last)
    await scene.ends(webhook, last, DeliveryStatus.DELIVERED)
    assert receiver.event_ids() == [last["id"]]
    assert await delivery(scene.database, webhook, event["id"]) == before
    assert scene.results(webhook) == {"delivered": 1}


async def test_a_waiting_delivery_of_a_disabled_webhook_is_skipped(
    scene: Scene,
) -> None:
    receiver, webhook = await scene.receiver("transfer.posted")
    marker, _ = await scene.receiver("wallet.frozen")
    released = asyncio.Event()
    receiver.answer = after(released)
    first, second = transfer_event(), transfer_event()
    await scene.start(replace(QUICK, endpoint_in_flight_max=1, endpoint_held_max=1))
    await scene.put(first, second)
    await until(has_received(receiver, 1))
    # The second event waits in the table; the third makes the worker read the webhooks again.
    await disable(scene, webhook)
    await scene.put(transfer_event(type="wallet.frozen", data={"id": new_id(MAIN)}))
    await until(has_received(marker, 1))
    released.set()
    await scene.ends(webhook, first, DeliveryStatus.DELIVERED)
    await scene.ends(webhook, second, DeliveryStatus.SKIPPED)
    await scene.relayed()
    assert receiver.event_ids() == [first["id"]]
    assert await letters(scene.database) == []


# Redelivery


async def test_a_redelivery_of_a_sent_event_to_a_disabled_webhook_is_a_dead_letter(
    scene: Scene, store: LedgerDatabase
) -> None:
    receiver, webhook = await scene.receiver()
    event = transfer_event()
    await scene.start()
    await scene.put(event)
    await scene.ends(webhook, event, DeliveryStatus.DELIVERED)
    await disable(scene, webhook)
    await asked_again(scene, store, event, webhook)
    await scene.ends(webhook, event, DeliveryStatus.DEAD)
    # A redrive while the webhook is disabled loses nothing.
    assert (await redrive(store, Filter(), lambda _, __: None)).sent == 1
    await scene.has_letters(1)
    await scene.ends(webhook, event, DeliveryStatus.DEAD)
    await enable(scene, webhook)
    assert (await redrive(store, Filter(), lambda _, __: None)).sent == 1
    await scene.ends(webhook, event, DeliveryStatus.DELIVERED)
    assert receiver.event_ids() == [event["id"]] * 2


async def test_a_redelivery_of_a_skipped_event_to_a_disabled_webhook_is_skipped(
    scene: Scene, store: LedgerDatabase
) -> None:
    receiver, webhook = await scene.receiver()
    await disable(scene, webhook)
    event = transfer_event()
    await scene.start()
    await scene.put(event)
    await scene.ends(webhook, event, DeliveryStatus.SKIPPED)
    await asked_again(scene, store, event, webhook)
    await until(lambda: scene.results(webhook) == {"skipped": 1})
    await scene.ends(webhook, event, DeliveryStatus.SKIPPED)
    assert await letters(scene.database) == []
    # After the webhook is enabled a redelivery sends the event.
    await enable(scene, webhook)
    await asked_again(scene, store, event, webhook)
    await scene.ends(webhook, event, DeliveryStatus.DELIVERED)
    assert receiver.event_ids() == [event["id"]]


# The rows


@pytest.mark.parametrize("known", list(DeliveryStatus))
async def test_relays_replace_no_row_and_notifiers_write_only_waiting_ones(
    database: Database, store: LedgerDatabase, known: DeliveryStatus
) -> None:
    for writes, later in (
        (relayed, DeliveryStatus.PENDING),
        (relayed, DeliveryStatus.SKIPPED),
        (attempted, DeliveryStatus.RETRYING),
        (attempted, DeliveryStatus.SKIPPED),
    ):
        event = transfer_event()
        await relayed(store, event, known)
        before = (await deliveries(database, WEBHOOK))[event["id"]]
        assert before.status is known
        await writes(store, event, later)
        found = (await deliveries(database, WEBHOOK))[event["id"]]
        if writes is attempted and known in (DeliveryStatus.PENDING, DeliveryStatus.RETRYING):
            attempts = 0 if later is DeliveryStatus.SKIPPED else 1
            assert (found.status, found.attempts) == (later, attempts)
        else:
            assert found == before
