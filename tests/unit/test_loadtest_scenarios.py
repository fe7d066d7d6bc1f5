"""Scenarios of the load test: their users, their payers and payees, their names."""

import json
import subprocess
import sys
from argparse import Namespace
from collections import Counter
from dataclasses import replace

import pytest

from loadtest.options import take_scenario_from_tags
from loadtest.scenarios import SCENARIOS
from loadtest.world import HOT_SHARE, RING_WALLETS, World
from tests.support.project import ROOT

# In an interpreter of its own, as Locust's import replaces the sockets of a process.
_TWENTY_USERS = """
import json
from locust.dispatch import UsersDispatcher
from locust.runners import WorkerNode
from loadtest import personas
from loadtest.scenarios import SCENARIOS

def users_of(weights):
    chosen = [getattr(personas, name) for name in weights]
    for persona in chosen:
        assert not persona.abstract and persona.tasks, persona
        persona.weight = weights[persona.__name__]
    dispatcher = UsersDispatcher([WorkerNode("1")], chosen)
    dispatcher.new_dispatch(20, 20)
    return list(dispatcher)[-1]["1"]

print(json.dumps({name: users_of(scenario.weights) for name, scenario in SCENARIOS.items()}))
"""


@pytest.fixture(scope="module")
def users_by_scenario() -> dict[str, dict[str, int]]:
    """The first 20 users of each scenario, by persona, as Locust chooses them."""
    result = subprocess.run(
        [sys.executable, "-c", _TWENTY_USERS], cwd=ROOT, capture_output=True, text=True, check=True
    )
    found: dict[str, dict[str, int]] = json.loads(result.stdout)
    return found


@pytest.mark.parametrize("name", SCENARIOS)
def test_twenty_users_are_at_least_one_of_each_persona(
    name: str, users_by_scenario: dict[str, dict[str, int]]
) -> None:
    users = users_by_scenario[name]
    assert users.keys() == SCENARIOS[name].weights.keys()
    assert sum(users.values()) == 20
    assert min(users.values()) >= 1


@pytest.mark.parametrize("name", ["mixed", "soak"])
def test_every_persona_takes_part_in_a_mix(
    name: str, users_by_scenario: dict[str, dict[str, int]]
) -> None:
    assert users_by_scenario[name].keys() == {
        "Attacker",
        "Merchant",
        "Payroll",
        "Reader",
        "Shopper",
        "Treasurer",
    }


def test_each_scenario_has_its_own_question() -> None:
    assert {name: (each.payees, each.copies) for name, each in SCENARIOS.items()} == {
        "uniform": ("anybody", 1),
        "hot-wallet": ("hot", 1),
        "contention-ring": ("ring", 1),
        "idempotency-storm": ("anybody", 5),
        "read-mostly": ("anybody", 1),
        "mixed": ("anybody", 1),
        "soak": ("anybody", 1),
    }
    assert len({each.question for each in SCENARIOS.values()}) == len(SCENARIOS)


# Payments

PAYMENTS = 20_000
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
    return [world.payment() for _ in range(PAYMENTS)]


def test_a_wallets_number_is_its_place() -> None:
    assert WORLD.wallets[:2] == ["s0", "s1"]
    assert WORLD.wallets[40:] == [
        *WORLD.merchants,
        *("e0", "e1", "t0", "t1", "t2", "p0", "p1", "p2", "p3"),
    ]


@pytest.mark.parametrize("payees", ["anybody", "hot", "ring"])
def test_no_wallet_pays_itself(payees: str) -> None:
    assert [each for each in payments(payees) if each[0] == each[1]] == []


@pytest.mark.parametrize("payees", ["anybody", "hot"])
def test_every_shopper_pays_and_every_wallet_is_paid(payees: str) -> None:
    found = payments(payees)
    assert {source for source, _ in found} == set(WORLD.shoppers)
    assert {destination for _, destination in found} == {*WORLD.shoppers, *WORLD.merchants}


def test_two_shoppers_pay_each_other() -> None:
    world = replace(WORLD, shoppers=["s0", "s1"], merchants=["m0"])
    found = {world.payment() for _ in range(200)}
    assert found == {("s0", "s1"), ("s1", "s0"), ("s0", "m0"), ("s1", "m0")}


def test_half_of_the_payments_go_to_merchants() -> None:
    merchants = set(WORLD.merchants)
    share = sum(each[1] in merchants for each in payments("anybody")) / PAYMENTS
    assert 0.47 < share < 0.53


def test_the_hot_wallet_gets_most_payments() -> None:
    paid = Counter(destination for _, destination in payments("hot"))
    # And its share of the rest, as every merchant.
    expected = HOT_SHARE + (1 - HOT_SHARE) / 2 / len(WORLD.merchants)
    assert HOT_SHARE == 0.8
    assert abs(paid["m0"] / PAYMENTS - expected) < 0.02
    assert max(count for wallet, count in paid.items() if wallet != "m0") < PAYMENTS / 50


def test_a_ring_pays_its_neighbours_in_both_directions() -> None:
    ring = WORLD.shoppers[:RING_WALLETS]
    neighbours = {
        (ring[place], ring[(place + step) % RING_WALLETS])
        for place in range(RING_WALLETS)
        for step in (1, -1)
    }
    assert set(payments("ring")) == neighbours


def test_a_merchant_is_the_hot_one_if_there_is_one() -> None:
    assert {WORLD.merchant() for _ in range(1_000)} == set(WORLD.merchants)
    hot = replace(WORLD, payees="hot")
    assert {hot.merchant() for _ in range(100)} == {"m0"}


def test_two_treasuries_are_two() -> None:
    pairs = {WORLD.two_treasuries() for _ in range(1_000)}
    assert pairs == {(one, two) for one in WORLD.treasuries for two in WORLD.treasuries} - {
        (one, one) for one in WORLD.treasuries
    }


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
