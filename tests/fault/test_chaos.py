"""Some rounds of chaos with a fixed seed; `make chaos` runs all faults."""

import pytest

from tests.fault.chaos.races import RACES
from tests.fault.chaos.rounds import ChaosRunner, RoundOptions
from tests.support.waiting import patient_s

# One fault of most kinds, in a minute: kills, a hang, cuts around COMMIT, an empty Redis, a full
# disk and a clock that jumps.
_FAULTS = (
    "kill-replica",
    "kill-postgres",
    "kill-redis",
    "kill-worker",
    "hang-redis",
    "cut-in-commit",
    "cut-after-commit",
    "cut-nginx-replica",
    "cut-worker-postgres",
    "flush-redis",
    "disk-full",
    "clock-jump",
)
_SEED = 20
# Of the races: 100 keys with 50 clients each, 100 reversals of one transfer, 1,000 each way.
_TENTH = 0.1
# Hundreds of operations in each round, with CPU time left for other tests.
_OPTIONS = RoundOptions(
    quiet_s=1.0,
    hold_s_max=1.5,
    pause_s=0.08,
    serving_s=patient_s(5.0),
    recovery_s=patient_s(10.0),
    settle_s=patient_s(15.0),
    events_s=patient_s(15.0),
)

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]


async def test_no_fault_loses_doubles_or_invents_a_transfer(runner: ChaosRunner) -> None:
    results = [await runner.run_fault(fault, _SEED, options=_OPTIONS) for fault in _FAULTS]
    assert [(each.fault, each.violations) for each in results if each.violations] == []
    # Each round had transfers to lose, and reads of the past.
    assert all(each.acknowledged >= 50 and each.past >= 5 for each in results), results
    assert all(each.events >= each.acknowledged for each in results)


async def test_concurrent_requests_for_the_same_thing_are_executed_once(
    runner: ChaosRunner,
) -> None:
    results = [await runner.run_race(name, _SEED, size=_TENTH) for name in RACES]
    assert [(each.fault, each.violations) for each in results if each.violations] == []
    acknowledged = {each.fault: each.acknowledged for each in results}
    assert acknowledged["race-keys"] == 100
    assert acknowledged["race-opposite"] == 2_000
    # The original, and the reversals of all of it.
    assert acknowledged["race-reversals"] >= 2
    assert all(each.events >= each.acknowledged for each in results)
