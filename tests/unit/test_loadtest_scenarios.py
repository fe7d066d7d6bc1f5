"""Scenarios of the load test: their payers and payees, and tags that name a scenario."""

from argparse import Namespace
from dataclasses import replace

import pytest

from loadtest.options import take_scenario_from_tags
from loadtest.world import RING_WALLETS, World

# Payments

WORLD = World(
    run="r",
    currency="USD",
    shoppers=[f"s{number}" for number in range(40)],
    merchants=[f"m{number}" for number in range(10)],
    employers=["e0", "e1"],
    treasuries=["t0", "t1", "t2"],
    purses=["p0", "p1", "p2", "p3"],
)


def payments(payees: str) -> list[tuple[str, str]]:
    world = replace(WORLD, payees=payees)
    return [world.payment() for _ in range(20_000)]


@pytest.mark.parametrize("payees", ["any", "hot", "ring"])
def test_no_wallet_pays_itself(payees: str) -> None:
    assert [each for each in payments(payees) if each[0] == each[1]] == []


def test_a_ring_pays_its_neighbours_in_both_directions() -> None:
    ring = WORLD.shoppers[:RING_WALLETS]
    neighbours = {
        (ring[place], ring[(place + step) % RING_WALLETS])
        for place in range(RING_WALLETS)
        for step in (1, -1)
    }
    assert set(payments("ring")) == neighbours


# Tags


@pytest.mark.parametrize(
    ("tags", "scenario", "left"),
    [
        (None, "uniform", None),
        ([], "uniform", None),
        (["hot-wallet"], "hot-wallet", None),
        (["pay"], "uniform", ["pay"]),
        (["pay", "mixed", "read"], "mixed", ["pay", "read"]),
        (["soak", "mixed"], "mixed", None),
    ],
)
def test_a_tag_may_name_a_scenario(
    tags: list[str] | None, scenario: str, left: list[str] | None
) -> None:
    parsed = Namespace(tags=tags, scenario="uniform")
    take_scenario_from_tags(parsed)
    assert parsed == Namespace(tags=left, scenario=scenario)
