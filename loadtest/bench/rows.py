"""The figures: what is measured for each, and what must come out."""

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from loadtest.bench import measures
from loadtest.bench.measures import Options
from loadtest.bench.scene import Scene

Medians = Mapping[str, Mapping[str, float]]
Measure = Callable[[Scene, Options], Awaitable[dict[str, float]]]


class Figure(NamedTuple):
    """A number made of medians, `unit` behind it, and its bound."""

    what: str
    of: Callable[[Medians], float]
    at_least: float | None = None
    at_most: float | None = None
    unit: str = "x"

    def is_reached(self, value: float) -> bool:
        """Whether it keeps its bound."""
        return (self.at_least is None or value >= self.at_least) and (
            self.at_most is None or value <= self.at_most
        )


@dataclass(frozen=True)
class Row:
    """One line of the table. `measure` is one round: a value for each column."""

    name: str
    what: str
    unit: str
    measure: Measure
    figures: tuple[Figure, ...]
    # Rows whose medians the figures need as well.
    needs: tuple[str, ...] = ()
    # Measured once, since it takes long or has no noise.
    once: bool = False


def ratio(row: str, column: str, other_row: str, other_column: str) -> Callable[[Medians], float]:
    """One median divided by another; not a number where nothing came out."""

    def divided(medians: Medians) -> float:
        divisor = medians[other_row][other_column]
        return medians[row][column] / divisor if divisor else math.nan

    return divided


def value(row: str, column: str) -> Callable[[Medians], float]:
    """A median itself."""
    return lambda medians: medians[row][column]


def _hot(name: str, what: str, measure: Measure) -> Row:
    """A row in which one wallet is on one side of every transfer."""
    return Row(
        name,
        what,
        "transfers/s",
        measure,
        (
            Figure("of the baseline", ratio(name, "transferd", name, "baseline"), 12.0),
            Figure("of own uniform", ratio(name, "transferd", "uniform", "transferd"), 0.95),
        ),
        needs=("uniform",),
    )


ROWS = (
    Row(
        "uniform",
        "1,000 wallets, any to any",
        "transfers/s",
        measures.uniform,
        (
            Figure("of the baseline", ratio("uniform", "transferd", "uniform", "baseline"), 5.0),
            Figure("of pgbench", ratio("uniform", "transferd", "uniform", "pgbench"), 1.5),
            Figure("of the ceiling", ratio("uniform", "transferd", "uniform", "aiohttp"), 0.25),
        ),
    ),
    _hot("to-one", "all to one wallet", measures.to_one),
    _hot("from-one", "all from one wallet", measures.from_one),
    Row(
        "zipf",
        "Zipf 1.0 over 100,000 wallets",
        "transfers/s",
        measures.zipf,
        (Figure("of own uniform", ratio("zipf", "transferd", "zipf", "uniform"), 0.9),),
    ),
    Row(
        "single",
        "one connection: latency",
        "ms",
        measures.single,
        (
            Figure(
                "of the baseline",
                ratio("single", "transferd", "single", "baseline"),
                at_most=1.3,
            ),
        ),
    ),
    Row(
        "half-of-peak",
        "half of the peak rate, open loop: latency",
        "ms",
        measures.half_of_peak,
        (Figure("p99 of p50", ratio("half-of-peak", "p99", "half-of-peak", "p50"), at_most=4.0),),
        needs=("uniform",),
    ),
    Row(
        "storm",
        "one wallet stormed past its mailbox: the others",
        "ms",
        measures.storm,
        (
            Figure(
                "stormed p99 of quiet",
                ratio("storm", "stormed p99", "storm", "quiet p99"),
                at_most=1.5,
            ),
        ),
        needs=("uniform",),
    ),
    Row(
        "batch",
        "batches of 1,000",
        "transfers/s",
        measures.batches,
        (Figure("of own singles", ratio("batch", "transferd", "uniform", "transferd"), 5.0),),
        needs=("uniform",),
    ),
    Row(
        "reads",
        "GET /wallets/{id}, cached",
        "reads/s",
        measures.reads,
        (Figure("of the ceiling", ratio("reads", "transferd", "reads", "aiohttp"), 0.6),),
    ),
    Row(
        "past-reads",
        "all from one wallet, beside 200 readers of it and of others, a question each in 5 s",
        "transfers/s",
        measures.past_reads,
        (
            Figure(
                "at=now of a settled at",
                ratio("past-reads", "now", "past-reads", "settled"),
                0.9,
            ),
            Figure("at=now of plain reads", ratio("past-reads", "now", "past-reads", "plain"), 0.9),
        ),
    ),
    Row(
        "behind-nginx",
        "two replicas behind Nginx",
        "transfers/s",
        measures.behind_nginx,
        (
            Figure(
                "of one, directly",
                ratio("behind-nginx", "two behind nginx", "behind-nginx", "direct"),
                0.8,
            ),
            Figure(
                "of plain proxying",
                ratio("behind-nginx", "two behind nginx", "behind-nginx", "plain proxying"),
                0.8,
            ),
        ),
        once=True,
    ),
    Row(
        "resources",
        "a replica alone",
        "",
        measures.resources,
        (
            Figure("start to first answer", value("resources", "start s"), None, 1.0, " s"),
            Figure("memory, idle", value("resources", "idle MiB"), None, 120.0, " MiB"),
            Figure(
                "disk for a transfer",
                value("resources", "bytes per transfer"),
                None,
                600.0,
                " bytes",
            ),
        ),
        once=True,
    ),
    Row(
        "growth",
        "a large ledger beside a small one",
        "transfers/s",
        measures.growth,
        (Figure("large of small", ratio("growth", "large", "growth", "small"), 0.9),),
        once=True,
    ),
)
