"""Some rounds of chaos with a fixed seed; `make chaos` runs all faults.

With all protections no fault does damage. Without any one of them a fault does damage, and the
checker finds it.
"""

from dataclasses import replace

import pytest

from tests.fault.chaos.protections import ALONE, PROTECTIONS
from tests.fault.chaos.races import RACES
from tests.fault.chaos.rounds import ChaosRunner, Result, RoundOptions
from tests.support.waiting import SLOWNESS, patient_s

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
# Of the races, in each ledger: 50 keys with 50 clients each, 100 reversals of one transfer, 500
# each way, 50 holds.
_PART = 0.05
# Hundreds of operations in each round, with CPU time left for other tests.
_OPTIONS = RoundOptions(
    quiet_s=0.4,
    hold_s_max=0.8,
    pause_s=0.08,
    serving_s=patient_s(5.0),
    recovery_s=patient_s(10.0),
    settle_s=patient_s(15.0),
    events_s=patient_s(15.0),
    expires_in_s_max=1.0,
)

# Usually the first round does the damage: with the first seed all data on the link, or in the
# COMMIT, are lost. Each further round is longer.
_SEEDS = range(6, 14)
_UNPROTECTED = RoundOptions(
    quiet_s=0.3,
    hold_s_max=0.5,
    pause_s=0.01,
    serving_s=patient_s(5.0),
    recovery_s=5.0 * SLOWNESS,
    settle_s=SLOWNESS,
    events_s=1.5 * SLOWNESS,
    expires_in_s_max=1.0,
)

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]


async def test_no_fault_loses_doubles_or_invents_a_transfer(runner: ChaosRunner) -> None:
    results = [await runner.run_fault(fault, _SEED, options=_OPTIONS) for fault in _FAULTS]
    assert [(each.fault, each.violations) for each in results if each.violations] == []
    # Each round had transfers to lose, and reads of the past.
    least = {"acknowledged": 50 * len(runner.ledgers), "past": 5 * len(runner.ledgers)}
    assert all(getattr(each, name) >= least[name] for each in results for name in least), results
    assert all(each.events >= each.acknowledged for each in results)


async def test_concurrent_requests_for_the_same_thing_are_executed_once(
    runner: ChaosRunner,
) -> None:
    results = [await runner.run_race(name, _SEED, size=_PART) for name in RACES]
    ledgers = len(runner.ledgers)
    assert [(each.fault, each.violations) for each in results if each.violations] == []
    acknowledged = {each.fault: each.acknowledged for each in results}
    assert acknowledged["race-keys"] == 50 * ledgers
    assert acknowledged["race-opposite"] == 1_000 * ledgers
    # The original, and the reversals of all of it.
    assert acknowledged["race-reversals"] >= 2 * ledgers
    # Captures. The others are released or expire.
    assert acknowledged["race-holds"] >= 2 * ledgers
    assert all(each.events >= each.acknowledged for each in results)


async def unprotected(runner: ChaosRunner, fault: str, seed: int, **load: float) -> Result:
    """A round without the layers that `recreate` has removed."""
    options = replace(_UNPROTECTED, **load)
    if fault in RACES:
        return await runner.run_race(fault, seed, size=_PART, options=options)
    return await runner.run_fault(fault, seed, options=options)


@pytest.mark.parametrize("name", PROTECTIONS)
async def test_without_a_protection_the_checker_finds_the_damage(
    runner: ChaosRunner, name: str
) -> None:
    protection = PROTECTIONS[name]
    await runner.recreate(protection.layers)
    found: set[str] = set()
    for number, seed in enumerate(_SEEDS, start=1):
        load = dict(protection.load)
        load["hold_s_max"] = min(load.get("hold_s_max", _UNPROTECTED.hold_s_max), 1.2) * number
        load["quiet_s"] = load.get("quiet_s", _UNPROTECTED.quiet_s) * number
        result = await unprotected(runner, protection.fault, seed, **load)
        found |= {violation.kind for violation in result.violations}
        if found & protection.kinds:
            break
    assert found & protection.kinds, f"found only {found}"


@pytest.mark.parametrize("name", ALONE)
async def test_one_layer_alone_is_enough(runner: ChaosRunner, name: str) -> None:
    alone = ALONE[name]
    await runner.recreate(alone.without)
    # Without damage no wait reaches its limit, except that for outcomes that stay unknown.
    patient = {each: patient_s(10.0) for each in ("recovery_s", "events_s")}
    patient["settle_s"] = SLOWNESS if "unsettled" in alone.tolerated else patient_s(10.0)
    result = await unprotected(runner, "flush-redis", _SEEDS[0], **patient)
    assert [each for each in result.violations if each.kind not in alone.tolerated] == []
    assert result.acknowledged >= 50
    if "version-check" in alone.layers:
        assert await runner.deployment.counted("transferd_group_retries_total") > 0
    if "funds-in-table" in alone.layers:
        for ledger in runner.ledgers:
            wallets = (await ledger.reader.wallets()).values()
            assert sum(wallet.balance for wallet in wallets) == 0
            assert min(wallet.balance for wallet in wallets if not wallet.funding) >= 0
