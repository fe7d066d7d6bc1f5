"""Each protection is needed: without it a fault does damage, and the checker finds the damage.

With all protections the same faults do no damage: see `test_chaos`.
"""

from dataclasses import replace

import pytest

from tests.fault.chaos.protections import ALONE, PROTECTIONS
from tests.fault.chaos.rounds import ChaosRunner, Result, RoundOptions
from tests.support.waiting import SLOWNESS, patient_s

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

# Usually the first round does the damage: with the first seed all data on the link, or in the
# COMMIT, are lost.
_SEEDS = range(6, 11)
_OPTIONS = RoundOptions(
    quiet_s=0.7,
    hold_s_max=1.0,
    serving_s=patient_s(5.0),
    recovery_s=5.0 * SLOWNESS,
    settle_s=SLOWNESS,
    events_s=1.5 * SLOWNESS,
)
# Without damage no wait reaches its limit.
_PATIENT = {name: patient_s(10.0) for name in ("recovery_s", "settle_s", "events_s")}


async def run_fault(runner: ChaosRunner, fault: str, seed: int, **load: float) -> Result:
    return await runner.run_fault(fault, seed, options=replace(_OPTIONS, **load))


@pytest.mark.parametrize("name", PROTECTIONS)
async def test_without_a_protection_the_checker_finds_the_damage(
    runner: ChaosRunner, name: str
) -> None:
    protection = PROTECTIONS[name]
    await runner.recreate(protection.layers)
    found: set[str] = set()
    for seed in _SEEDS:
        result = await run_fault(runner, protection.fault, seed, **protection.load)
        found |= {violation.kind for violation in result.violations}
        if found & protection.kinds:
            break
    assert found & protection.kinds, f"found only {found}"


@pytest.mark.parametrize("name", ALONE)
async def test_one_layer_alone_is_enough(runner: ChaosRunner, name: str) -> None:
    alone = ALONE[name]
    await runner.recreate(alone.without)
    result = await run_fault(runner, "flush-redis", _SEEDS[0], **_PATIENT)
    assert [each for each in result.violations if each.kind not in alone.tolerated] == []
    assert result.acknowledged >= 50
    if "version-check" in alone.layers:
        assert await runner.deployment.counted("transferd_group_retries_total") > 0
    if "funds-in-table" in alone.layers:
        wallets = (await runner.ledger_reader.wallets()).values()
        assert sum(wallet.balance for wallet in wallets) == 0
        assert min(wallet.balance for wallet in wallets if not wallet.funding) >= 0
