import asyncio
from dataclasses import replace
from contextlib import AsyncExitStack
import pytest
from tests.support.deliveries import logged_delivery
from tests.support.endpoints import letters, deliveries, new_webhook
from tests.support.notifying import QUICK, Scene
from tests.support.waiting import until
from tests.support.outbox import transfer_event
from tests.support.receivers import status
from transferd.notifications.directory import LOG
from transferd.notifications.dead_letters import redrive
from transferd.ledger.store.dead_letters import Filter
from transferd.ledger.store.database import Database as Store
from transferd.config import Limits
from transferd.ledger.ids import new_id

@pytest.fixture
async def scene(database, workers):
    async with AsyncExitStack() as exits:
        yield Scene(database, workers.settings, exits)

async def test_log_row_of_version_before(scene):
    await logged_delivery(scene.database, LOG, event=None)
    await scene.database.fetch("UPDATE transferd.deliveries SET next_attempt_at = now()")
    await scene.start(notify_log=True)
    await asyncio.sleep(2)
    print(await deliveries(scene.database, LOG))
    print(await letters(scene.database))
    async with Store(scene.database.settings(), Limits(), 1) as store:
        print(await redrive(store, Filter(), lambda *_: None))

async def test_zombie(scene):
    gone = new_id()
    await logged_delivery(scene.database, gone, status="pending")
    await scene.start(replace(QUICK, delivery_sweep_interval_s=0.1))
    await asyncio.sleep(3)
    print(await deliveries(scene.database, gone))
    assert await scene.unfinished() == 0

async def test_failing_with_few_in_flight(scene):
    """A lane whose held are all running when pause begins."""
