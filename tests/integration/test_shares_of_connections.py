"""One ledger cannot use all connections to PostgreSQL, nor all places to wait for one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from tests.conftest import Database
from tests.support.waiting import patient_s, until
from transferd.config import Limits
from transferd.domain.ledger import MAIN
from transferd.ledger.migrate import create_ledger
from transferd.ledger.store.currencies import read_currencies
from transferd.ledger.store.database import Database as Store
from transferd.ledger.store.database import LedgerDatabase
from transferd.ledger.store.errors import ConnectionFailure, NoConnectionFree

SHARE, ALL = 2, 3


@pytest.fixture
async def ledgers(database: Database) -> AsyncIterator[tuple[LedgerDatabase, LedgerDatabase]]:
    """A flooded ledger, which may use two connections of three, and another one."""
    shop = await create_ledger(database.settings(), Limits(), "shop")
    limits = Limits(pool_acquire_timeout_s=patient_s(0.2), waiting_reads_max=4)
    async with Store(database.settings(), limits, ALL, of_one_ledger=SHARE) as store:
        yield store.of(shop), store.of(MAIN)


async def in_use(database: LedgerDatabase, count: int, stack: AsyncExitStack) -> None:
    """Use connections until the stack is closed."""
    for _ in range(count):
        await stack.enter_async_context(database.transaction())


async def test_a_flooded_ledger_leaves_a_connection_to_the_others(
    ledgers: tuple[LedgerDatabase, LedgerDatabase],
) -> None:
    flooded, other = ledgers
    async with AsyncExitStack() as stack:
        await in_use(flooded, SHARE, stack)
        waiting = [asyncio.create_task(read_currencies(flooded)) for _ in range(4)]
        assert await read_currencies(other)
        with pytest.raises(NoConnectionFree, match="too many reads wait"):
            await read_currencies(flooded)
        assert await read_currencies(other)
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(each) for each in answers} == {NoConnectionFree}
        # A transaction is not a read: for its caller the database is out of reach.
        with pytest.raises(ConnectionFailure, match="no connection became free"):
            await in_use(flooded, 1, stack)
    assert await read_currencies(flooded)


async def test_a_read_that_stops_waiting_gives_its_turn_to_the_next_one(
    ledgers: tuple[LedgerDatabase, LedgerDatabase],
) -> None:
    flooded, _ = ledgers
    async with AsyncExitStack() as stack:
        await in_use(flooded, SHARE, stack)
        first, second = (asyncio.create_task(read_currencies(flooded)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await until(first.done)
    assert await second
    # The whole share is free again.
    async with AsyncExitStack() as stack:
        await in_use(flooded, SHARE, stack)
