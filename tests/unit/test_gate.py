"""The gate before the backlog: enter, wait, or be refused."""

import asyncio
from collections.abc import Iterable
from dataclasses import replace

import pytest

from tests.unit.samples import settled
from transferd.actors.gate import Gate
from transferd.actors.intake import Intake
from transferd.config import Limits
from transferd.domain.errors import Overloaded

# The gate closes at 4 inside and opens at 2; 7 inside and waiting are too many.
LIMITS = Limits(backlog_low=2, backlog_high=4, backlog_max=7)
LONG_S = 60.0
SHORT_S = 0.01


class Visitors:
    """Callers at a gate, in the order in which they come."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.let_in: list[str] = []

    async def come(
        self, names: Iterable[str], timeout_s: float = LONG_S
    ) -> list[asyncio.Task[None]]:
        """Callers arrive one by one; each is inside or waits when this returns."""
        tasks = [asyncio.create_task(self._enter(name, timeout_s)) for name in names]
        await settled()
        return tasks

    async def _enter(self, name: str, timeout_s: float) -> None:
        if not self.gate.try_enter():
            await self.gate.wait(timeout_s)
        self.let_in.append(name)

    async def leave(self, count: int = 1) -> None:
        for _ in range(count):
            self.gate.leave()
        await settled()


@pytest.fixture
def visitors() -> Visitors:
    return Visitors(Gate(Intake(LIMITS), LIMITS))


async def test_at_the_high_mark_callers_wait_until_the_low_one(visitors: Visitors) -> None:
    waiting = await visitors.come("abcdef")
    assert visitors.let_in == list("abcd")
    await visitors.leave()
    assert visitors.let_in == list("abcd"), "3 inside is below the high mark, not at the low one"
    await visitors.leave()
    assert visitors.let_in == list("abcdef")
    assert (visitors.gate.inside, visitors.gate.waiting) == (4, 0)
    await asyncio.gather(*waiting)


async def test_waiting_callers_enter_in_the_order_of_arrival(visitors: Visitors) -> None:
    waiting = await visitors.come("abcdefg")
    await visitors.leave(2)
    assert visitors.let_in == list("abcdef"), "g finds it full again"
    [newcomer] = await visitors.come("h")
    await visitors.leave()
    assert visitors.let_in == list("abcdef")
    await visitors.leave()
    assert visitors.let_in == list("abcdefgh")
    await asyncio.gather(*waiting, newcomer)


async def test_a_new_caller_does_not_overtake_waiting_ones(visitors: Visitors) -> None:
    waiting = await visitors.come("abcde")
    await visitors.leave()
    late = await visitors.come("f")
    assert visitors.let_in == list("abcd"), "there is room, but e was first"
    await visitors.leave()
    assert visitors.let_in == list("abcdef")
    await asyncio.gather(*waiting, *late)


async def test_callers_above_the_limit_of_waiting_ones_are_refused(visitors: Visitors) -> None:
    waiting = await visitors.come("abcdefg")
    assert (visitors.gate.inside, visitors.gate.waiting) == (4, 3)
    assert not visitors.gate.try_enter()
    with pytest.raises(Overloaded):
        await visitors.gate.wait(LONG_S)
    assert (visitors.gate.inside, visitors.gate.waiting) == (4, 3)
    await visitors.leave()
    [late] = await visitors.come("h")
    assert (visitors.gate.inside, visitors.gate.waiting) == (3, 4)
    await visitors.leave()
    await visitors.leave(2)
    await asyncio.gather(*waiting, late)
    assert visitors.let_in == list("abcdefgh")


async def test_a_wait_that_takes_too_long_ends(visitors: Visitors) -> None:
    await visitors.come("abcd")
    [impatient] = await visitors.come("e", SHORT_S)
    [patient] = await visitors.come("f")
    with pytest.raises(Overloaded):
        await impatient
    assert (visitors.gate.inside, visitors.gate.waiting) == (4, 1)
    await visitors.leave(2)
    await patient
    assert visitors.let_in == list("abcdf")


async def test_the_gate_opens_when_all_waiting_callers_have_left(visitors: Visitors) -> None:
    await visitors.come("abcd")
    impatient = await visitors.come("ef", SHORT_S)
    results = await asyncio.gather(*impatient, return_exceptions=True)
    assert [type(result) for result in results] == [Overloaded, Overloaded]
    await visitors.leave(2)
    await visitors.come("g")
    assert visitors.let_in == list("abcdg")
    assert (visitors.gate.inside, visitors.gate.waiting) == (3, 0)


async def test_a_caller_that_leaves_while_waiting_leaves_no_trace(visitors: Visitors) -> None:
    await visitors.come("abcd")
    gone, there = await visitors.come("ef")
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert visitors.gate.waiting == 1
    await visitors.leave(2)
    await there
    assert visitors.let_in == list("abcdf")
    assert (visitors.gate.inside, visitors.gate.waiting) == (3, 0)


async def test_a_caller_that_leaves_when_admitted_returns_its_place(visitors: Visitors) -> None:
    await visitors.come("abcd")
    [gone] = await visitors.come("e")
    for _ in range(2):
        visitors.gate.leave()
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert (visitors.gate.inside, visitors.gate.waiting) == (2, 0)
    assert "e" not in visitors.let_in


async def test_a_flooded_ledger_leaves_room_to_another() -> None:
    limits = replace(LIMITS, backlog_all_max=10)
    intake = Intake(limits)
    flooded, calm, late = (Visitors(Gate(intake, limits)) for _ in range(3))
    waiting = await flooded.come("abcdefg")
    with pytest.raises(Overloaded):
        await flooded.gate.wait(LONG_S)
    await calm.come("xyz")
    assert calm.let_in == list("xyz")
    # All together are too many by now. A ledger without a command gets one in.
    assert not calm.gate.try_enter()
    with pytest.raises(Overloaded):
        await calm.gate.wait(LONG_S)
    await late.come("m")
    assert (late.let_in, intake.commands) == (["m"], 11)
    await flooded.leave(4)
    await flooded.leave(3)
    await calm.leave(3)
    await late.leave()
    await asyncio.gather(*waiting)
    assert intake.commands == 0
    assert await intake.drain()


async def test_a_caller_that_gives_up_at_the_gate_is_not_counted_any_more() -> None:
    intake = Intake(LIMITS)
    visitors = Visitors(Gate(intake, LIMITS))
    await visitors.come("abcd")
    cancelled, *late = await visitors.come("ef", SHORT_S)
    cancelled.cancel()
    ends = await asyncio.gather(cancelled, *late, return_exceptions=True)
    assert [type(end) for end in ends] == [asyncio.CancelledError, Overloaded]
    assert intake.commands == 4
