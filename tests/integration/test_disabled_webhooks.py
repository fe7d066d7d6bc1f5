"""What happens while a webhook is disabled is in its log and can be sent again."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest

from tests.conftest import Database, Replicas, Workers
from tests.support.endpoints import deliveries, delivery, letters, update_webhook
from tests.support.notifying import QUICK, Scene, has_received
from tests.support.outbox import again, transfer_event
from tests.support.receivers import after, status
from tests.support.waiting import until
from transferd.commit.events import cloud_event
from transferd.config import Limits, Settings
from transferd.domain.webhook import DeliveryStatus, WebhookStatus
from transferd.ledger.ids import id_at, new_id
from transferd.ledger.store.database import Database as Store
from transferd.ledger.store.dead_letters import Filter
from transferd.ledger.store.deliveries import (
    DeliveryRecord,
    ask_again_for,
    read_known,
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


async def asked_again(store: Store, event: dict[str, Any], webhook: str) -> None:
    """Mark a delivery as wanted, as a request for it does."""
    async with store.transaction() as transaction:
        await ask_again_for(transaction, [(event["id"], webhook)])


def recorded(
    event: dict[str, Any], status: DeliveryStatus, *, attempts: int = 1, days: float = 0.0
) -> DeliveryRecord:
    """A result for the webhook, some days old."""
    return DeliveryRecord(
        id=id_at(time.time() - days * DAY_S)[:19] + new_id()[19:],
        event_id=event["id"],
        endpoint_id=WEBHOOK,
        event_type=event["type"],
        status=status,
        attempts=attempts,
        response_status=None,
        error=None,
        response_excerpt=None,
        event=cloud_event(event).decode(),
        wait_s=None,
    )


async def record(store: Store, *records: DeliveryRecord) -> None:
    for each in records:
        async with store.transaction() as transaction:
            await record_deliveries(transaction, [each])


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
    assert scene.results(webhook) == {"skipped": 1, "delivered": 1}
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
    await scene.put(last)
    await scene.ends(webhook, last, DeliveryStatus.DELIVERED)
    assert receiver.event_ids() == [last["id"]]
    assert await delivery(scene.database, webhook, event["id"]) == before
    assert scene.results(webhook)["skipped"] == 1


async def test_what_is_disabled_between_the_decision_and_the_request_is_in_the_log(
    scene: Scene,
) -> None:
    receiver, webhook = await scene.receiver("transfer.posted")
    marker, _ = await scene.receiver("wallet.frozen")
    released = asyncio.Event()
    receiver.answer = after(released)
    first, second = transfer_event(), transfer_event()
    await scene.start(replace(QUICK, endpoint_in_flight_max=1, endpoint_trouble_s=60.0))
    await scene.put(first, second)
    await until(has_received(receiver, 1))
    # The second waits behind the first now; the third makes the worker read the webhooks again.
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


# What was on its way is kept as a dead letter


async def test_what_was_asked_for_and_meets_a_disabled_webhook_is_a_dead_letter(
    scene: Scene, store: Store
) -> None:
    receiver, webhook = await scene.receiver()
    await disable(scene, webhook)
    event = transfer_event()
    await scene.start()
    await scene.put(event)
    await scene.ends(webhook, event, DeliveryStatus.SKIPPED)
    await asked_again(store, event, webhook)
    await scene.put(again(event, webhook))
    await scene.ends(webhook, event, DeliveryStatus.DEAD)
    # Sent once more by an operator, too early: it is not lost.
    assert (await redrive(store, Filter(), lambda _, __: None)).sent == 1
    await scene.has_letters(1)
    await scene.ends(webhook, event, DeliveryStatus.DEAD)
    await enable(scene, webhook)
    assert (await redrive(store, Filter(), lambda _, __: None)).sent == 1
    await scene.ends(webhook, event, DeliveryStatus.DELIVERED)
    assert receiver.event_ids() == [event["id"]]


async def test_a_letter_whose_log_was_forgotten_stays_a_letter(scene: Scene, store: Store) -> None:
    _, webhook = await scene.receiver()
    await disable(scene, webhook)
    event = transfer_event()
    await scene.start()
    await scene.put(again(event, webhook))
    await scene.ends(webhook, event, DeliveryStatus.DEAD)
    await scene.has_letters(1)


async def test_a_message_for_a_webhook_that_is_active_again_counts_more_than_a_skip(
    scene: Scene,
) -> None:
    receiver, webhook = await scene.receiver()
    await disable(scene, webhook)
    event = transfer_event()
    await scene.start()
    await scene.put(event)
    await scene.ends(webhook, event, DeliveryStatus.SKIPPED)
    await enable(scene, webhook)
    # As one that had been put off before the webhook was disabled.
    await scene.put(again(event, webhook))
    await scene.ends(webhook, event, DeliveryStatus.DELIVERED)
    assert receiver.event_ids() == [event["id"]]


async def test_what_had_failed_before_is_a_dead_letter(scene: Scene) -> None:
    receiver, webhook = await scene.receiver()
    receiver.answer = status(500)
    event = transfer_event()
    # The wait of a local transport ends with the process, and the event begins anew.
    async with scene.working(notify_retry_delays_s="0.5"):
        await scene.put(event)
        await scene.ends(webhook, event, DeliveryStatus.RETRYING)
        await disable(scene, webhook)
    async with scene.working(notify_retry_delays_s="0.5"):
        await scene.ends(webhook, event, DeliveryStatus.DEAD)
        await scene.relayed()
    [letter] = await letters(scene.database)
    assert (letter.event, letter.reason) == (event["id"], "endpoint gone")
    assert receiver.event_ids() == [event["id"]]


# The rows


async def test_of_two_notifiers_that_skip_an_event_one_leaves_a_row(
    database: Database, store: Store
) -> None:
    event = transfer_event()
    await record(store, recorded(event, DeliveryStatus.SKIPPED, attempts=0))
    before = await delivery(database, WEBHOOK, event["id"])
    await record(store, recorded(event, DeliveryStatus.SKIPPED, attempts=0))
    assert before is not None
    assert await delivery(database, WEBHOOK, event["id"]) == before


@pytest.mark.parametrize(
    "known", [status for status in DeliveryStatus if status is not DeliveryStatus.SKIPPED]
)
async def test_a_skip_replaces_no_other_row(
    database: Database, store: Store, known: DeliveryStatus
) -> None:
    event = transfer_event()
    await record(store, recorded(event, known))
    before = await delivery(database, WEBHOOK, event["id"])
    await record(store, recorded(event, DeliveryStatus.SKIPPED, attempts=0))
    assert before is not None
    assert await delivery(database, WEBHOOK, event["id"]) == before
    # But the result of another notifier's attempt replaces a skip.
    other = transfer_event()
    skipped = recorded(other, DeliveryStatus.SKIPPED, attempts=0)
    await record(store, skipped, recorded(other, known))
    after_it = await delivery(database, WEBHOOK, other["id"])
    assert after_it is not None
    assert (after_it.status, after_it.attempts) == (known, 1)


async def test_what_was_skipped_is_forgotten_with_the_log(database: Database, store: Store) -> None:
    old, young = transfer_event(), transfer_event()
    await record(store, recorded(old, DeliveryStatus.SKIPPED, days=7.1))
    await record(store, recorded(young, DeliveryStatus.SKIPPED, days=6.9))
    assert await prune_once(store, Limits(), older_than_s=7 * DAY_S) == 1
    assert set(await deliveries(database, WEBHOOK)) == {young["id"]}


async def test_the_version_before_takes_what_was_skipped_for_dead(
    database: Database, store: Store
) -> None:
    """It finds a status by its place in this list, as one of the last version does."""
    of_the_version_before = ("pending", "delivered", "retrying", "dead")
    event = transfer_event()
    await record(store, recorded(event, DeliveryStatus.SKIPPED, attempts=0))
    [row] = await database.fetch("SELECT status FROM transferd.deliveries")
    assert of_the_version_before[row["status"]] == "dead"
    known = await read_known(store, [event["id"]])
    assert known.statuses == {(event["id"], WEBHOOK): DeliveryStatus.SKIPPED}
