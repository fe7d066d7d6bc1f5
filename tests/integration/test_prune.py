"""How long deliveries are remembered: the window in which a repeated event is recognized."""

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from tests.conftest import Database
from tests.support.endpoints import deliveries, letters, status_of
from tests.support.notifying import QUICK, Scene
from tests.support.outbox import transfer_event
from tests.support.truth import row_count
from tests.support.waiting import until
from transferd.config import Limits, Settings
from transferd.domain.webhook import DeliveryStatus
from transferd.ledger.ids import id_at, new_id
from transferd.ledger.store.database import Database as Store
from transferd.ledger.store.deliveries import DeliveryRecord, record_deliveries
from transferd.notifications.directory import LOG
from transferd.notifications.prune import prune_once

DAY_S = 24 * 3600.0
WEBHOOK = "019a0000-0000-7000-8000-00000000000a"
DELETED = "019a0000-0000-7000-8000-00000000000b"


@pytest.fixture
async def store(database: Database) -> AsyncIterator[Store]:
    async with Store(database.settings(), Limits(), 1) as opened:
        yield opened


def aged(
    days: float, status: DeliveryStatus = DeliveryStatus.DELIVERED, endpoint: str = WEBHOOK
) -> DeliveryRecord:
    """A delivery whose first attempt ended so many days ago."""
    return DeliveryRecord(
        # Every id is another one; what matters is the time in its first digits.
        id=id_at(time.time() - days * DAY_S)[:19] + new_id()[19:],
        event_id=new_id(),
        endpoint_id=endpoint,
        event_type="transfer.posted",
        status=status,
        attempts=1,
        response_status=204,
        error=None,
        response_excerpt=None,
        event=None,
        wait_s=None,
    )


async def record(store: Store, *records: DeliveryRecord) -> None:
    async with store.transaction() as transaction:
        await record_deliveries(transaction, records)


async def left(database: Database, endpoint: str = WEBHOOK) -> set[str]:
    return set(await deliveries(database, endpoint))


async def test_what_is_older_than_the_window_goes(database: Database, store: Store) -> None:
    old, older, young, today = aged(7.1), aged(400), aged(6.9), aged(0)
    await record(store, old, older, young, today)
    assert await prune_once(store, Limits(), older_than_s=7 * DAY_S) == 2
    assert await left(database) == {young.event_id, today.event_id}
    assert await prune_once(store, Limits(), older_than_s=7 * DAY_S) == 0


async def test_what_is_still_being_tried_stays_however_old(
    database: Database, store: Store
) -> None:
    kept = [aged(30, DeliveryStatus.RETRYING), aged(30, DeliveryStatus.PENDING)]
    over = [aged(30, DeliveryStatus.DELIVERED), aged(30, DeliveryStatus.DEAD)]
    await record(store, *kept, *over)
    assert await prune_once(store, Limits(), older_than_s=7 * DAY_S) == 2
    assert await left(database) == {each.event_id for each in kept}


async def test_every_log_is_pruned_also_those_of_the_log_sink_and_of_nobody(
    database: Database, store: Store
) -> None:
    for endpoint in (WEBHOOK, DELETED, LOG):
        await record(store, aged(30, endpoint=endpoint), aged(1, endpoint=endpoint))
    assert await prune_once(store, Limits(), older_than_s=7 * DAY_S) == 3
    for endpoint in (WEBHOOK, DELETED, LOG):
        assert len(await left(database, endpoint)) == 1


async def test_it_goes_in_small_steps(database: Database, store: Store) -> None:
    await record(store, *[aged(30) for _ in range(25)])
    await record(store, *[aged(30, endpoint=DELETED) for _ in range(10)])
    await record(store, aged(1))
    # Ten are exactly one step, so there has to be another look.
    limits = replace(Limits(), prune_rows=10)
    assert await prune_once(store, limits, older_than_s=7 * DAY_S) == 35
    assert await row_count(database, "transferd.deliveries") == 1


async def test_behind_the_window_a_repeated_event_is_delivered_again(
    database: Database, store: Store
) -> None:
    """The record of a delivery is what a repetition is recognized by: it ends with the window."""

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


async def test_a_worker_prunes_by_itself(database: Database, store: Store) -> None:
    old, young = aged(3.1), aged(2.9)
    await record(store, old, young)
    async with AsyncExitStack() as exits:
        scene = Scene(database, lambda **more: database.settings(worker_port=0, **more), exits)
        await scene.start(replace(QUICK, prune_interval_s=0.05), delivery_log_days=3)

        async def old_is_gone() -> bool:
            return await status_of(database, WEBHOOK, old.event_id) is None

        await until(old_is_gone)
        assert await left(database) == {young.event_id}
        # And again, and again.
        late = aged(4)
        await record(store, late)

        async def late_is_gone() -> bool:
            return await status_of(database, WEBHOOK, late.event_id) is None

        await until(late_is_gone)
