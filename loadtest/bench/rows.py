"""The rows of the table: what each measures, its figures and their bounds."""

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from loadtest.bench import holds, ledgers, measures
from loadtest.bench.measures import Options
from loadtest.bench.setup import Setup

Medians = Mapping[str, Mapping[str, float]]
Measure = Callable[[Setup, Options], Awaitable[dict[str, float]]]


class Figure(NamedTuple):
    """A number computed from medians, its bound and its unit."""

    what: str
    of: Callable[[Medians], float]
    at_least: float | None = None
    at_most: float | None = None
    unit: str = "x"

    def is_reached(self, value: float) -> bool:
        """Whether the value is within the bound."""
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
    # Other rows whose medians the figures need.
    needs: tuple[str, ...] = ()
    # Measured in the first round only, because it takes long or varies little.
    once: bool = False
    # Not measured unless --only names it, because its preparation takes minutes.
    long: bool = False


def ratio(row: str, column: str, other_row: str, other_column: str) -> Callable[[Medians], float]:
    """One median divided by another; NaN if the divisor is 0."""

    def divided(medians: Medians) -> float:
        divisor = medians[other_row][other_column]
        return medians[row][column] / divisor if divisor else math.nan

    return divided


def within(row: str, column: str, other: str) -> Callable[[Medians], float]:
    """One median of a row divided by another median of the row."""
    return ratio(row, column, row, other)


def value(row: str, column: str) -> Callable[[Medians], float]:
    return lambda medians: medians[row][column]


def _transfers(
    name: str, what: str, measure: Measure, *figures: Figure, needs: tuple[str, ...] = ()
) -> Row:
    return Row(name, what, "transfers/s", measure, figures, needs)


def _latency(
    name: str, what: str, measure: Measure, *figures: Figure, needs: tuple[str, ...] = ()
) -> Row:
    return Row(name, what, "ms", measure, figures, needs)


def _once(
    name: str,
    what: str,
    unit: str,
    measure: Measure,
    *figures: Figure,
    needs: tuple[str, ...] = (),
) -> Row:
    return Row(name, what, unit, measure, figures, needs, once=True)


_BEHIND, _BYTES = "two behind nginx", "bytes per transfer"


def _hot(name: str, what: str, measure: Measure) -> Row:
    """A row in which one wallet is the source or the destination of every transfer."""
    return _transfers(
        name,
        what,
        measure,
        Figure("of the baseline", within(name, "transferd", "baseline"), 12.0),
        Figure("of own uniform", ratio(name, "transferd", "uniform", "transferd"), 0.95),
        needs=("uniform",),
    )


ROWS = (
    _transfers(
        "uniform",
        "1,000 wallets, any to any",
        measures.uniform,
        Figure("of the baseline", within("uniform", "transferd", "baseline"), 8.0),
        Figure("of pgbench", within("uniform", "transferd", "pgbench"), 2.2),
        Figure("of the ceiling", within("uniform", "transferd", "aiohttp"), 0.55),
    ),
    Row(
        "cpu",
        "CPU of the service for a transfer, of aiohttp for {}",
        "us",
        measures.cpu,
        (Figure("of a bare answer", within("cpu", "transferd", "aiohttp"), None, 1.8),),
    ),
    _hot("to-one", "all to one wallet", measures.to_one),
    _hot("from-one", "all from one wallet", measures.from_one),
    _transfers(
        "zipf",
        "Zipf 1.0 over 100,000 wallets",
        measures.zipf,
        Figure("of own uniform", within("zipf", "transferd", "uniform"), 0.9),
    ),
    _latency(
        "single",
        "one connection: latency",
        measures.single,
        Figure("of the baseline", within("single", "transferd", "baseline"), None, 1.2),
    ),
    _latency(
        "half-of-peak",
        "half of the peak rate, open loop: latency",
        measures.half_of_peak,
        Figure("p99 of p50", within("half-of-peak", "p99", "p50"), None, 4.0),
        needs=("uniform",),
    ),
    _latency(
        "storm",
        "one wallet stormed past its mailbox: the others",
        measures.storm,
        Figure("stormed p99 of quiet", within("storm", "stormed p99", "quiet p99"), None, 1.5),
        needs=("uniform",),
    ),
    _transfers(
        "batch",
        "batches of 1,000",
        measures.batches,
        Figure("of the ceiling", ratio("batch", "transferd", "uniform", "aiohttp"), 3.3),
        Figure("of own singles", ratio("batch", "transferd", "uniform", "transferd")),
        needs=("uniform",),
    ),
    _latency(
        "beside-batches",
        "transfers beside one client that sends batches between other wallets",
        measures.beside_batches,
        Figure(
            "1,000: p99 of quiet",
            within("beside-batches", "p99 beside 1,000", "quiet p99"),
            None,
            3.0,
        ),
        Figure("5,000: p99 of quiet", within("beside-batches", "p99 beside 5,000", "quiet p99")),
        Figure(
            "1,000 of its wallets: p99 of quiet",
            within("beside-batches", "p99 beside 1,000 of its wallets", "quiet p99"),
        ),
        needs=("uniform",),
    ),
    _transfers(
        "holds",
        "holds: authorise, and capture",
        holds.holds,
        Figure("authorise of transfers", within("holds", "authorise", "transfers"), 0.85),
        Figure("capture of transfers", within("holds", "capture", "transfers"), 0.85),
    ),
    _once(
        "expiry",
        "100,000 holds that expire in one second, beside transfers of other wallets",
        "",
        holds.expiry,
        Figure("until all are written", value("expiry", "written s"), None, 60.0, " s"),
        Figure("p99 of quiet", within("expiry", "beside p99", "quiet p99"), None, 2.0),
        needs=("uniform",),
    ),
    Row(
        "reads",
        "GET /wallets/{id}, cached",
        "reads/s",
        measures.reads,
        (Figure("of the ceiling", within("reads", "transferd", "aiohttp"), 0.9),),
    ),
    _transfers(
        "past-reads",
        "all from one wallet, beside 200 readers of it and of others, a question each in 5 s",
        measures.past_reads,
        Figure("at=now of a settled at", within("past-reads", "now", "settled"), 0.9),
        Figure("at=now of plain reads", within("past-reads", "now", "plain"), 0.9),
    ),
    _once(
        "behind-nginx",
        "two replicas behind Nginx",
        "transfers/s",
        measures.behind_nginx,
        Figure("of one, directly", within("behind-nginx", _BEHIND, "direct"), 0.8),
        Figure("of plain proxying", within("behind-nginx", _BEHIND, "plain proxying"), 0.8),
    ),
    _once(
        "resources",
        "a replica alone",
        "",
        measures.resources,
        Figure("start to first answer", value("resources", "start s"), None, 1.0, " s"),
        Figure("memory, idle", value("resources", "idle MiB"), None, 120.0, " MiB"),
        Figure("disk for a transfer", value("resources", _BYTES), None, 500.0, " bytes"),
    ),
    _once(
        "growth",
        "a large ledger beside a small one",
        "transfers/s",
        measures.growth,
        Figure("large of small", within("growth", "large", "small"), 0.9),
    ),
    _transfers(
        "ledgers",
        "eight ledgers at once, beside one of them",
        ledgers.at_once,
        Figure("eight of one", within("ledgers", "eight", "one"), 0.9),
    ),
    _latency(
        "ledger-storm",
        "one wallet stormed past its mailbox: another ledger",
        ledgers.storm,
        Figure(
            "stormed p99 of quiet", within("ledger-storm", "stormed p99", "quiet p99"), None, 1.5
        ),
        needs=("uniform",),
    ),
    Row(
        "many-ledgers",
        "one busy ledger, and 998 others that exist",
        "transfers/s",
        ledgers.many,
        (Figure("of two", within("many-ledgers", "1,000 exist", "two exist"), 0.97),),
        once=True,
        long=True,
    ),
    Row(
        "citus",
        "one, two and eight ledgers: one PostgreSQL, and a coordinator and two workers of Citus",
        "transfers/s",
        ledgers.on_citus,
        tuple(
            Figure(f"{count}: Citus of plain", within("citus", f"Citus {count}", f"plain {count}"))
            for count in (1, 2, 8)
        ),
        long=True,
    ),
    Row(
        "migrate-ledgers",
        "a migration that adds a column in each ledger",
        "s",
        ledgers.migrating,
        (
            Figure(
                "1,000 of 10",
                within("migrate-ledgers", "1,000 ledgers", "10 ledgers"),
                None,
                60.0,
            ),
        ),
        once=True,
        long=True,
    ),
)
