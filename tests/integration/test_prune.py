"""How long rows of deliveries are kept: the window in which a repeated event is recognized."""

import time
from dataclasses import replace

from tests.conftest import Database
from tests.support.deliveries import logged_delivery
from tests.support.endpoints import deliveries, letters
from tests.support.notifying import QUICK, Scene
from tests.support.outbox import transfer_event
from tests.support.truth import row_count
from tests.support.waiting import until
from transferd.config import Limits
from transferd.domain.ledger import MAIN
from transferd.domain.webhook import DeliveryStatus
from transferd.ledger.ids import id_at, new_id
from transferd.ledger.store.database import LedgerDatabase
from transferd.ledger.store.deliveries import LOG
from transferd.notifications.prune import prune_once

DAY_S = 24 * 3600.0
WEBHOOK = "019a0000-0000-7000-8000-00000000000a"
DELETED = "019a0000-0000-7000-8000-00000000000b"


async def aged(database: Database, days: float, endpoint: str = WEBHOOK, **changes: object) -> str:
    """The event of a delivery that began this many days ago."""
    event_id = new_id(MAIN)
    values = {"event_id": event_id, "status": "delivered"} | changes
    await logged_delivery(database, endpoint, days=days, **values)
    return event_id


async def left(database: Database, endpoint: str = WEBHOOK) -> set[str]:
    return set(await deliveries(database, endpoint))


async def test_finished_deliveries_older_than_the_window_are_removed(
    database: Database, store: LedgerDatabase
) -> None:
    for days in (7.1, 400):
        for endpoint in (WEBHOOK, DELETED, LOG):
            await aged(database, days, endpoint)
        # A dead row without a reason is a row of the version before whose letter was purged.
        for status in ("skipped", "dead"):
            await aged(database, days, status=status)
    letter = await aged(database, 400, status="dead", dead_reason="attempts exhausted")
    kept = {letter} | {await aged(database, days) for days in (6.9, 0)}
    kept |= {await aged(database, 30, status=status) for status in ("retrying", "pending")}
    assert await prune_once(store, Limits(), older_than_s=7 * DAY_S) == 10
    assert await left(database) == kept
    assert [each.event for each in await letters(database)] == [letter]
    assert await row_count(database, "ledger_00.deliveries") == len(kept)
    assert await prune_once(store, Limits(), older_than_s=7 * DAY_S) == 0


async def test_rows_are_removed_in_small_steps(database: Database, store: LedgerDatabase) -> None:
    for _ in range(25):
        await aged(database, 30)
    # Ten rows are exactly one step, so another step has to follow.
    for _ in range(10):
        await aged(database, 30, DELETED)
    await aged(database, 1)
    limits = replace(Limits(), prune_rows=10)
    assert await prune_once(store, limits, older_than_s=7 * DAY_S) == 35
    assert await row_count(database, "ledger_00.deliveries") == 1


async def test_an_event_is_delivered_again_after_its_row_was_removed(
    database: Database, store: LedgerDatabase, local_scene: Scene
) -> None:
    """A repeated event is recognized by the row of its delivery, for as long as the row exists."""
    receiver, webhook = await local_scene.receiver()
    await local_scene.start()
    event, other = transfer_event(), transfer_event()
    for _ in range(2):
        await local_scene.put(event, other)
        await local_scene.ends(webhook, event, DeliveryStatus.DELIVERED)
        await local_scene.relayed()
    assert len(receiver.received) == 2
    # As if the delivery had begun eight days ago.
    await database.fetch(
        "UPDATE ledger_00.deliveries SET id = $1 WHERE event_id = $2",
        id_at(time.time() - 8 * DAY_S),
        event["id"],
    )
    assert await prune_once(store, QUICK, older_than_s=7 * DAY_S) == 1
    await local_scene.put(event, other)
    await local_scene.ends(webhook, event, DeliveryStatus.DELIVERED)
    await local_scene.relayed()
    assert receiver.event_ids() == [event["id"], other["id"], event["id"]]


async def test_a_worker_prunes_continuously(database: Database, local_scene: Scene) -> None:
    young = await aged(database, 2.9)
    await local_scene.start(replace(QUICK, prune_interval_s=0.05), delivery_log_days=3)

    async def only_the_young_is_left() -> bool:
        return await left(database) == {young}

    for _ in range(2):
        await aged(database, 3.1)
        await until(only_the_young_is_left)
