"""Lanes: one group of each ledger in flight, several ledgers at once, in turn."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.support.waiting import until
from tests.unit.samples import settled
from transferd.commit.lanes import Lanes


class HandLedger:
    """A committer whose groups the test ends."""

    def __init__(self, name: str, node: str, groups: int) -> None:
        self.name = name
        self.node = node
        self.groups = groups
        self.waiting = groups
        self.fills_its_share = False
        self.in_flight = 0
        self.in_flight_max = 0
        self.gate = asyncio.Event()
        self.committed: list[str] = []

    def __repr__(self) -> str:
        return f"<HandLedger {self.name}>"

    @property
    def has_ready(self) -> bool:
        """Whether groups are left."""
        return self.groups > 0

    async def commit_once(self) -> int:
        """A group that ends when the test says so."""
        self.groups -= 1
        self.committed.append(self.name)
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight_max, self.in_flight)
        await self.gate.wait()
        self.in_flight -= 1
        return 1


@pytest.fixture
async def lanes() -> AsyncIterator[Lanes]:
    """Two lanes on each server."""
    two = Lanes(lanes_max=2, pause_max_s=60.0)
    running = asyncio.create_task(two.run())
    yield two
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def ledgers(order: list[str], **groups: int) -> list[HandLedger]:
    made = [HandLedger(name, "node", count) for name, count in groups.items()]
    for each in made:
        each.committed = order
    return made


async def test_as_many_ledgers_commit_at_once_as_there_are_lanes(lanes: Lanes) -> None:
    order: list[str] = []
    for each in ledgers(order, a=1, b=1, c=1):
        lanes.announce(each)
    await settled()
    assert order == ["a", "b"]


async def test_a_ledger_has_one_group_in_flight(lanes: Lanes) -> None:
    [busy] = ledgers([], busy=3)
    for _ in range(3):
        lanes.announce(busy)
    await settled()
    assert (busy.in_flight, busy.groups) == (1, 2)
    busy.gate.set()
    await settled()
    assert (busy.groups, busy.in_flight_max) == (0, 1)


async def test_ledgers_take_turns(lanes: Lanes) -> None:
    order: list[str] = []
    made = ledgers(order, flooded=5, calm=1, quiet=1)
    for each in made:
        each.gate.set()
        lanes.announce(each)
    await until(lambda: order.count("flooded") == 5)
    assert order[:3] == ["flooded", "calm", "quiet"]


async def test_a_ledger_that_fills_its_share_pauses_for_as_long_as_its_group_took(
    lanes: Lanes,
) -> None:
    flooded, other = ledgers([], flooded=2, other=1)
    flooded.fills_its_share = True
    clock = asyncio.get_running_loop().time
    for each in (flooded, other):
        lanes.announce(each)
    began = clock()
    await asyncio.sleep(0.05)
    flooded.gate.set()
    took_s = clock() - began
    ended = clock()
    await until(lambda: flooded.groups == 0)
    assert clock() - ended >= 0.9 * took_s
    assert other.in_flight == 1


async def test_a_server_that_hangs_stops_only_its_own_ledgers(lanes: Lanes) -> None:
    order: list[str] = []
    hung = [HandLedger(name, "hung", 1) for name in "abc"]
    well = HandLedger("well", "other", 2)
    for each in (*hung, well):
        each.committed = order
        lanes.announce(each)
    well.gate.set()
    await until(lambda: order.count("well") == 2)
    assert repr(lanes) == "<Lanes of 3 busy ledgers>"
    assert list(lanes.others(hung[0])) == hung[1:]


async def test_work_that_fails_ends_the_lanes() -> None:
    lanes = Lanes(lanes_max=1, pause_max_s=60.0)
    running = asyncio.create_task(lanes.run())
    await settled()

    async def fail() -> None:
        raise ValueError("a fault")

    lanes.start(fail())
    with pytest.raises(ExceptionGroup, match="unhandled") as error:
        await running
    assert [str(each) for each in error.value.exceptions] == ["a fault"]
