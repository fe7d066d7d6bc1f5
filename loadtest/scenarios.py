"""The personas of each scenario, their weights and their payees."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Scenario:
    """`weights` by the name of the persona. 20 users of `mixed` include each."""

    question: str
    weights: dict[str, int]
    payees: Literal["any", "hot", "ring"] = "any"
    copies: int = 1
    # Wallets with holds. Few, so that several users change the holds of one wallet at once.
    cards: int = 0


_ALL_PERSONAS = {
    "Shopper": 9,
    "Reader": 4,
    "Merchant": 2,
    "Attacker": 2,
    "Payroll": 1,
    "Treasurer": 1,
    "Cardholder": 1,
}

SCENARIOS = {
    "uniform": Scenario("what is the throughput without contention?", {"Shopper": 1}),
    "hot-wallet": Scenario(
        "what does one wallet that receives most payments cost the others?",
        {"Shopper": 9, "Merchant": 1},
        payees="hot",
    ),
    "contention-ring": Scenario(
        "do wallets that pay each other at the same time deadlock or starve?",
        {"Shopper": 1},
        payees="ring",
    ),
    "idempotency-storm": Scenario(
        "is a request that is sent five times at once executed once?", {"Shopper": 1}, copies=5
    ),
    "read-mostly": Scenario(
        "are reads fast, and never older than before?", {"Reader": 17, "Shopper": 3}
    ),
    "card-payments": Scenario(
        "does each hold end once, and is each capture paid once?", {"Cardholder": 1}, cards=40
    ),
    "mixed": Scenario("does everything work at the same time?", _ALL_PERSONAS, cards=10),
    "soak": Scenario("does anything grow or become slower over hours?", _ALL_PERSONAS, cards=10),
}


def has_tasks(
    tasks: Iterable[Any], tags: Iterable[str] | None, exclude_tags: Iterable[str] | None
) -> bool:
    """Whether a persona has a task that the tags allow. Locust cannot start one without a task."""
    wanted, unwanted = set(tags or ()), set(exclude_tags or ())
    found: list[set[str]] = [getattr(task, "locust_tag_set", set()) for task in tasks]
    return any((not wanted or wanted & each) and not unwanted & each for each in found)
