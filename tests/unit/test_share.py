"""Permits that ledgers share."""

import asyncio

import pytest

from tests.unit.samples import settled
from transferd.share import Share


async def test_a_ledger_gets_its_part_and_leaves_the_rest() -> None:
    all = asyncio.Semaphore(3)
    greedy, modest = Share(2, all), Share(2, all)
    await greedy.acquire()
    await greedy.acquire()
    third = asyncio.create_task(greedy.acquire())
    await settled()
    assert not third.done()
    assert repr(greedy) == "<Share, none of its permits free>"
    async with modest:
        assert all.locked()
    greedy.release()
    await third


async def test_a_caller_that_gives_up_keeps_no_permit() -> None:
    all = asyncio.Semaphore(1)
    first, second = Share(1, all), Share(1, all)
    await first.acquire()
    waiting = asyncio.create_task(second.acquire())
    await settled()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    first.release()
    async with second:
        assert all.locked()
    assert not all.locked()
