"""How long deliveries are remembered: the window in which a repeated event is recognized."""

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from tests.conftest import Database
from tests.support.deliveries import logged_delivery
from tests.support.endpoints import deliveries, letters, status_of
from tests.support.notifying import QUICK, Scene
from tests.support.outbox import transfer_event
from tests.support.truth import row_count
from tests.support.waiting import until
from transferd.config import Limits, Settings
from transferd.domain.webhook import DeliveryStatus
from transferd.ledger.ids import id_at, new_id
from transferd.ledger.store.database import Database as Store
from transferd.ledger.store.deliveries import LOG
from transferd.notifications.prune import prune_once

DAY_S = 24 * 3600.0
WEBHOOK = "019a0000-0000-7000-8000-00000000000a"
DELETED = "019a0000-0000-7000-8000-00000000000b"


@pytest.fixture
async def store(database: Database) -> AsyncIterator[Store]:
    async with Store(database.settings(), Limits(), 1) as opened:
        yield opened


async def aged(database: Database, days: float, endpoint: str = WEBHOOK, **changes: object) -> str:
    """The event of a delivery that began so many days ago."""
    event_id = new_id()
    values = {"event_id": event_id, "status": "delivered"} | changes
    await logged_delivery(database, endpoint, days=days, **values)
    return event_id


async def left(database: Database, endpoint: str = WEBHOOK) -> set[str]:
    return set(await deliveries(database, endpoint))


async def test_what_is_older_than_the_window_goes(database: Database, store: Store) -> None:
    for days in (7.1, 400):
        await aged(database, days)
    kept = {await aged(database, days) for days in (6.9, 0)}
    assert await prune_once(store, Limits(), older_than_s=7 * DAY_S) == 2
    assert await left(database) == kept
    assert await prune_once(store, Limits(), older_than_s=7 * DAY_S) == 0


async def test_what_is_still_being_tried_stays_however_old(
    database: Database, store: Store
) -> None:
    kept = {await aged(database, 30, status=status) for status in ("retrying", "pending")}
    # A dead row without a reason is one of the version before whose letter was purged.
    for status in ("delivered", "skipped", "dead"):
        await aged(database, 30, status=status)
    assert await prune_once(store, Limits(), older_than_s=7 * DAY_S) == 3
    assert await left(database) == kept


async def test_a_dead_letter_stays_however_old(database: Database, store: Store) -> None:
    event = await aged(database, 400, status="dead", dead_reason="attempts exhausted")
    assert await prune_once(store, Limits(), older_than_s=7 * DAY_S) == 0
    assert [letter.event for letter in await letters(database)] == [event]


async def test_every_log_is_pruned_also_those_of_the_log_sink_and_of_deleted_webhooks(
    database: Database, store: Store
) -> None:
    for endpoint in (WEBHOOK, DELETED, LOG):
        await aged(database, 30, endpoint)
        await aged(database, 1, endpoint)
    assert await prune_once(store, Limits(), older_than_s=7 * DAY_S) == 3
    for endpoint in (WEBHOOK, DELETED, LOG):
        assert len(await left(database, endpoint)) == 1


async def test_it_goes_in_small_steps(database: Database, store: Store) -> None:
    for _ in range(25):
        await aged(database, 30)
    # Ten are exactly one step, so there has to be another look.
    for _ in range(10):
        await aged(database, 30, DELETED)
    await aged(database, 1)
    limits = replace(Limits(), prune_rows=10)
    assert await prune_once(store, limits, older_than_s=7 * DAY_S) == 35
    assert await row_count(database, "transferd.deliveries") == 1


async def test_behind_the_window_a_repeated_event_is_delivered_again(
    database: Database, store: Store
) -> None:
    """The row of a delivery is what a repetition is recognized by: it ends with the window."""

    def settings_with(**changes: object) -> Settings:
        return database.settings(
            worker_port=0,
            webhook_allow_http=True,
            webhook_allow_networks="127.0.0.0/8",
            **changes,
        )

    async with AsyncExitStack() as exits:
        scene = Scene(database, settings_with, exits)
        receiver, webhook = await scene.receiver()
        await scene.start()
        event, other = transfer_event(), transfer_event()
        for _ in range(2):
            await scene.put(event, other)
            await scene.ends(webhook, event, DeliveryStatus.DELIVERED)
            await scene.relayed()
        assert len(receiver.received) == 2

        # As if it had been eight days ago.
        await database.fetch(
            "UPDATE transferd.deliveries SET id = $1 WHERE event_id = $2",
            id_at(time.time() - 8 * DAY_S),
            event["id"],
        )
        assert await prune_once(store, QUICK, older_than_s=7 * DAY_S) == 1
        await scene.put(event, other)
        await scene.ends(webhook, event, DeliveryStatus.DELIVERED)
        await scene.relayed()
    assert receiver.event_ids() == [event["id"], other["id"], event["id"]]
    assert await letters(database) == []


async def test_a_worker_prunes_by_itself(database: Database) -> None:
    old, young = await aged(database, 3.1), await aged(database, 2.9)
    async with AsyncExitStack() as exits:
        scene = Scene(database, lambda **more: database.settings(worker_port=0, **more), exits)
        await scene.start(replace(QUICK, prune_interval_s=0.05), delivery_log_days=3)

        async def old_is_gone() -> bool:
            return await status_of(database, WEBHOOK, old) is None

        await until(old_is_gone)
        assert await left(database) == {young}
        # And again, and again.
        late = await aged(database, 4)

        async def late_is_gone() -> bool:
            return await status_of(database, WEBHOOK, late) is None

        await until(late_is_gone)
