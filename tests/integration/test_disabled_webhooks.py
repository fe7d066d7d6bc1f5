"""What happens while a webhook is disabled is in its log and can be sent again."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest

from tests.conftest import Database, Replicas, Workers
from tests.support.deliveries import logged_delivery
from tests.support.endpoints import deliveries, delivery, letters, update_webhook
from tests.support.notifying import QUICK, Scene, has_received
from tests.support.outbox import again, transfer_event
from tests.support.receivers import after, status
from tests.support.waiting import until
from transferd.commit.events import cloud_event
from transferd.config import Limits, Settings
from transferd.domain.webhook import DeliveryStatus, WebhookStatus
from transferd.ledger.ids import new_id
from transferd.ledger.store.database import Database as Store
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
from transferd.notifications.prune import prune_once

DAY_S = 24 * 3600.0
WEBHOOK = "019a0000-0000-7000-8000-00000000000a"


SettingsWith = Callable[..., Settings]


@pytest.fixture(params=["rabbitmq", "local"])
def settings_with(request: pytest.FixtureRequest, database: Database) -> SettingsWith:
    """Makes the settings of a worker for each transport."""
    if request.param == "rabbitmq":
        workers: Workers = request.getfixturevalue("workers")
        return workers.settings

    def local(**changes: object) -> Settings:
        return database.settings(
            worker_port=0,
            webhook_allow_http=True,
            webhook_allow_networks="127.0.0.0/8",
            **changes,
        )

    return local


@pytest.fixture
async def scene(settings_with: SettingsWith, database: Database) -> AsyncIterator[Scene]:
    """A scene of each transport."""
    async with AsyncExitStack() as exits:
        yield Scene(database, settings_with, exits)


@pytest.fixture
async def store(database: Database) -> AsyncIterator[Store]:
    async with Store(database.settings(), Limits(), 1) as opened:
        yield opened


async def disable(scene: Scene, webhook: str) -> None:
    """As a client does it."""
    await update_webhook(scene.database, webhook, status=WebhookStatus.DISABLED, reason="asked to")


async def enable(scene: Scene, webhook: str) -> None:
    """As a client does it."""
    await update_webhook(scene.database, webhook, status=WebhookStatus.ACTIVE)


async def asked_again(scene: Scene, store: Store, event: dict[str, Any], webhook: str) -> None:
    """Let a delivery wait once more and wake the worker up, as a request for it does."""
    log = await list_deliveries(store, webhook, status=None, before_id=None, limit=100)
    [id] = [row.id for row in log if row.event_id == event["id"]]
    async with store.transaction() as transaction:
        assert await ask_again(transaction, webhook, id)
    await scene.put(again(event, webhook))


async def relayed(store: Store, event: dict[str, Any], status: DeliveryStatus) -> None:
    """Write a delivery to the webhook, as a relay does."""
    text = EventText(event["id"], event["type"], cloud_event(event).decode())
    async with store.transaction() as transaction:
        await insert_deliveries(transaction, [text], [NewDelivery(1, WEBHOOK, status, "why")])


async def skipped_by_a_notifier(store: Store, event: dict[str, Any]) -> None:
    """Write that the webhook was disabled, as a notifier does."""
    record = DeliveryRecord(
        event_id=event["id"],
        endpoint_id=WEBHOOK,
        status=DeliveryStatus.SKIPPED,
        error="the endpoint is disabled",
    )
    async with store.transaction() as transaction:
        await record_deliveries(transaction, [record])


# In the log, and sent again


async def test_what_happened_meanwhile_is_in_the_log_and_is_sent_again_when_asked_for(
    scene: Scene, replicas: Replicas
) -> None:
    api = await replicas.start()
    receiver, webhook = await scene.receiver("transfer.*")
    path = f"/webhooks/{webhook}"
    await api.patch(path, {"status": "disabled"})
    await scene.start()
    event, other = transfer_event(), transfer_event(type="wallet.created", data={"id": new_id()})
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
    assert [request.body for request in receiver.received] == [cloud_event(event)]
    [row] = (await api.get(f"{path}/deliveries")).json["data"]
    assert (row["status"], row["attempts"], row["error"]) == ("delivered", 1, None)
    # The relay has skipped it: nothing was tried.
    assert scene.results(webhook) == {"delivered": 1}
    assert await letters(scene.database) == []


async def test_what_happens_after_a_410_is_in_the_log(scene: Scene) -> None:
    receiver, webhook = await scene.receiver()
    receiver.answer = status(410)
    first, second = transfer_event(), transfer_event()
    await scene.start()
    await scene.put(first)
    await scene.ends(webhook, first, DeliveryStatus.DEAD)
    await scene.put(second)
    await scene.ends(webhook, second, DeliveryStatus.SKIPPED)
    found = await delivery(scene.database, webhook, second["id"])
    assert found is not None
    assert (found.attempts, found.event) == (0, cloud_event(second).decode())
    assert receiver.event_ids() == [first["id"]]
    assert [letter.event for letter in await letters(scene.database)] == [first["id"]]


async def test_what_happens_once_it_is_active_again_is_delivered(scene: Scene) -> None:
    receiver, webhook = await scene.receiver()
    await disable(scene, webhook)
    await scene.start()
    before, later = transfer_event(), transfer_event()
    await scene.put(before)
    await scene.ends(webhook, before, DeliveryStatus.SKIPPED)
    await enable(scene, webhook)
    await scene.put(later)
    await scene.ends(webhook, later, DeliveryStatus.DELIVERED)
    assert receiver.event_ids() == [later["id"]]


async def test_a_repeated_event_is_one_row_also_when_the_webhook_is_active_again(
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
    # Nor is one that comes for this webhook alone, and was not asked for.
    await scene.put(again(event, webhook))
    await scene.put(last)
    await scene.ends(webhook, last, DeliveryStatus.DELIVERED)
    assert receiver.event_ids() == [last["id"]]
    assert await delivery(scene.database, webhook, event["id"]) == before
    assert scene.results(webhook) == {"delivered": 1}


async def test_what_waits_when_its_webhook_is_disabled_is_in_the_log(
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
    # The second waits in the table now; the third makes the worker read the webhooks again.
    await disable(scene, webhook)
    await scene.put(transfer_event(type="wallet.frozen", data={"id": new_id()}))
    await until(has_received(marker, 1))
    released.set()
    await scene.ends(webhook, first, DeliveryStatus.DELIVERED)
    await scene.ends(webhook, second, DeliveryStatus.SKIPPED)
    await scene.relayed()
    assert receiver.event_ids() == [first["id"]]
    assert await letters(scene.database) == []


async def test_a_disabled_webhook_costs_the_others_nothing_but_their_order(scene: Scene) -> None:
    receiver, _ = await scene.receiver()
    _, webhook = await scene.receiver()
    await disable(scene, webhook)
    ada = new_id()
    events = [transfer_event(ada) for _ in range(50)]
    await scene.start()
    await scene.put(*events)
    await until(has_received(receiver, 50))
    await scene.relayed()
    assert receiver.event_ids() == [event["id"] for event in events]
    log = await deliveries(scene.database, webhook)
    assert set(log) == {event["id"] for event in events}
    assert {row.status for row in log.values()} == {DeliveryStatus.SKIPPED}


# What was asked for, or had failed


async def test_what_was_sent_before_and_meets_a_disabled_webhook_is_a_dead_letter(
    scene: Scene, store: Store
) -> None:
    receiver, webhook = await scene.receiver()
    event = transfer_event()
    await scene.start()
    await scene.put(event)
    await scene.ends(webhook, event, DeliveryStatus.DELIVERED)
    await disable(scene, webhook)
    await asked_again(scene, store, event, webhook)
    await scene.ends(webhook, event, DeliveryStatus.DEAD)
    # Sent once more by an operator, too early: it is not lost.
    assert (await redrive(store, Filter(), lambda _, __: None)).sent == 1
    await scene.has_letters(1)
    await scene.ends(webhook, event, DeliveryStatus.DEAD)
    await enable(scene, webhook)
    assert (await redrive(store, Filter(), lambda _, __: None)).sent == 1
    await scene.ends(webhook, event, DeliveryStatus.DELIVERED)
    assert receiver.event_ids() == [event["id"]] * 2


async def test_what_was_never_sent_and_meets_a_disabled_webhook_is_skipped_again(
    scene: Scene, store: Store
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
    # It can be asked for once the webhook is active again.
    await enable(scene, webhook)
    await asked_again(scene, store, event, webhook)
    await scene.ends(webhook, event, DeliveryStatus.DELIVERED)
    assert receiver.event_ids() == [event["id"]]


async def test_what_had_failed_before_is_a_dead_letter(scene: Scene) -> None:
    receiver, webhook = await scene.receiver()
    receiver.answer = status(500)
    event = transfer_event()
    # The local transport forgets its messages when the process ends, and a sweep finds the row.
    limits = replace(QUICK, delivery_sweep_interval_s=0.1)
    async with scene.working(notify_retry_delays_s="0.5"):
        await scene.put(event)
        await scene.ends(webhook, event, DeliveryStatus.RETRYING)
        await disable(scene, webhook)
    async with scene.working(limits, notify_retry_delays_s="0.5"):
        await scene.ends(webhook, event, DeliveryStatus.DEAD)
        await scene.relayed()
    [letter] = await letters(scene.database)
    assert (letter.event, letter.reason) == (event["id"], "endpoint gone")
    assert receiver.event_ids() == [event["id"]]


# The rows


@pytest.mark.parametrize("known", list(DeliveryStatus))
async def test_a_relay_that_skips_an_event_replaces_no_row(
    database: Database, store: Store, known: DeliveryStatus
) -> None:
    event = transfer_event()
    await relayed(store, event, known)
    before = await delivery(database, WEBHOOK, event["id"])
    await relayed(store, event, DeliveryStatus.SKIPPED)
    assert before is not None
    assert before.status is known
    assert await delivery(database, WEBHOOK, event["id"]) == before


@pytest.mark.parametrize("known", list(DeliveryStatus))
async def test_a_notifier_skips_only_what_waits(
    database: Database, store: Store, known: DeliveryStatus
) -> None:
    event = transfer_event()
    await relayed(store, event, known)
    before = await delivery(database, WEBHOOK, event["id"])
    await skipped_by_a_notifier(store, event)
    found = await delivery(database, WEBHOOK, event["id"])
    assert found is not None
    if known in (DeliveryStatus.PENDING, DeliveryStatus.RETRYING):
        assert (found.status, found.attempts) == (DeliveryStatus.SKIPPED, 0)
    else:
        assert found == before


async def test_what_was_skipped_is_forgotten_with_the_log(database: Database, store: Store) -> None:
    await logged_delivery(database, WEBHOOK, status="skipped", days=7.1)
    young = await logged_delivery(database, WEBHOOK, status="skipped", days=6.9)
    assert await prune_once(store, Limits(), older_than_s=7 * DAY_S) == 1
    [left] = await list_deliveries(store, WEBHOOK, status=None, before_id=None, limit=10)
    assert left.id == young


async def test_the_version_before_takes_what_was_skipped_for_dead(
    database: Database, store: Store
) -> None:
    """It finds a status by its place in this list, as one of the last version does."""
    of_the_version_before = ("pending", "delivered", "retrying", "dead")
    event = transfer_event()
    await relayed(store, event, DeliveryStatus.SKIPPED)
    [row] = await database.fetch("SELECT status FROM transferd.deliveries")
    assert of_the_version_before[row["status"]] == "dead"
    [found] = await list_deliveries(store, WEBHOOK, status=None, before_id=None, limit=10)
    assert found.status is DeliveryStatus.SKIPPED
