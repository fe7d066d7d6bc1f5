"""One round of each row of the benchmark."""

import asyncio
import statistics
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import asyncpg

from loadtest.bench import load
from loadtest.bench.setup import (
    BASELINE,
    CEILING,
    SERVICE,
    Setup,
    Side,
    by_zipf,
    connect_without_timeouts,
    evenly,
)
from loadtest.front import running_nginx

WALLETS = 1_000
_ZIPF_WALLETS = 100_000
_PAIRS = 100_000
_BATCH = 1_000
# The most that a batch may hold.
_LARGE_BATCH = 5_000
_BATCHES_AT_ONCE = 4
_PGBENCH_CONNECTIONS = 32
# More connections than a mailbox has places.
STORM_CONNECTIONS = 1_024
QUIET_SHARE = 0.2
_READERS = 200
# 40 reads per second in total: a few percent of two cores, because the writers need the rest.
_READER_PAUSE_S = 5.0
# A row that is measured once repeats its measurements this often.
_REPETITIONS = 3


class Options(NamedTuple):
    """The options of the command line. `rate`: the measured uniform rate of one replica."""

    seconds: float
    connections: int
    wallets: int
    transfers: int
    rate: float


async def prepare(setup: Setup, *, for_zipf: bool) -> None:
    """Start the sides that most rows share, each with its own wallets. Only zipf needs many."""
    await setup.add(Side("transferd", SERVICE), wallets=_ZIPF_WALLETS if for_zipf else WALLETS)
    await setup.add(Side("baseline", BASELINE), wallets=WALLETS)
    await setup.add(Side("pgbench", ()), wallets=WALLETS)
    await setup.add(Side("aiohttp", CEILING))


def uniform_pairs(setup: Setup, wallets: int = WALLETS) -> Path:
    """Transfers between any two of these wallets."""
    pairs = evenly(wallets, _PAIRS), evenly(wallets, _PAIRS)
    return setup.pairs(f"uniform-{wallets}", *pairs)


def _others() -> list[int]:
    """Random wallets, never the first one."""
    return [n + 1 for n in evenly(WALLETS - 1, _PAIRS)]


def _pairs_from_one(setup: Setup) -> Path:
    return setup.pairs("from-one", [1] * _PAIRS, _others())


async def _posts(side: Side, pairs: Path, options: Options) -> float:
    return await load.transfers_per_s(
        side, "transfers.lua", pairs, seconds=options.seconds, connections=options.connections
    )


async def _requests(side: Side, script: str, pairs: Path, options: Options) -> float:
    return await load.requests_per_s(
        side, script, pairs, seconds=options.seconds, connections=options.connections
    )


async def uniform(setup: Setup, options: Options) -> dict[str, float]:
    """Transfers between any two wallets, on all sides."""
    pairs = uniform_pairs(setup)
    return {
        "transferd": await _posts(setup["transferd"], pairs, options),
        "baseline": await _posts(setup["baseline"], pairs, options),
        "pgbench": await load.pgbench_per_s(
            setup["pgbench"], seconds=options.seconds, connections=_PGBENCH_CONNECTIONS
        ),
        "aiohttp": await _requests(setup["aiohttp"], "transfers.lua", pairs, options),
    }


async def cpu(setup: Setup, options: Options) -> dict[str, float]:
    """Microseconds of CPU of the service for a transfer, and of the bare server for an answer."""
    pairs = uniform_pairs(setup)
    service, bare = setup["transferd"], setup["aiohttp"]
    before_s, committed = service.running.cpu_s, await service.committed()
    await _posts(service, pairs, options)
    transfers = await service.committed() - committed
    used_s = service.running.cpu_s - before_s
    before_s = bare.running.cpu_s
    answers = await _requests(bare, "transfers.lua", pairs, options) * options.seconds
    bare_s = bare.running.cpu_s - before_s
    return {
        "transferd": used_s / max(1, transfers) * 1e6,
        "aiohttp": bare_s / max(1.0, answers) * 1e6,
    }


async def to_one(setup: Setup, options: Options) -> dict[str, float]:
    """All transfers go to one wallet."""
    pairs = setup.pairs("to-one", _others(), [1] * _PAIRS)
    return {name: await _posts(setup[name], pairs, options) for name in ("transferd", "baseline")}


async def from_one(setup: Setup, options: Options) -> dict[str, float]:
    """All transfers come from one wallet."""
    pairs = _pairs_from_one(setup)
    return {name: await _posts(setup[name], pairs, options) for name in ("transferd", "baseline")}


async def zipf(setup: Setup, options: Options) -> dict[str, float]:
    """A few wallets are in most transfers; compared with the uniform rate of the same round."""
    pairs = setup.pairs("zipf", by_zipf(_ZIPF_WALLETS, _PAIRS), by_zipf(_ZIPF_WALLETS, _PAIRS))
    return {
        "transferd": await _posts(setup["transferd"], pairs, options),
        "uniform": await _posts(setup["transferd"], uniform_pairs(setup), options),
    }


async def single(setup: Setup, options: Options) -> dict[str, float]:
    """Milliseconds per transfer on one connection, without other load."""
    pairs = uniform_pairs(setup)
    alone = options._replace(connections=1)
    return {
        name: 1000 / await _posts(setup[name], pairs, alone) for name in ("transferd", "baseline")
    }


async def half_of_peak(setup: Setup, options: Options) -> dict[str, float]:
    """Latencies at half of the measured rate of one replica."""
    found = await load.at_rate(
        setup["transferd"], uniform_pairs(setup), options.rate / 2, options.seconds
    )
    return {"p50": found["p50_ms"], "p99": found["p99_ms"]}


async def storm(setup: Setup, options: Options) -> dict[str, float]:
    """Latencies of other wallets while one wallet gets more requests than its mailbox holds."""
    side, rate = setup["transferd"], options.rate * QUIET_SHARE
    others = _others()
    pairs = setup.pairs("others", others, others[::-1])
    quiet = await load.at_rate(side, pairs, rate, options.seconds)
    longer = options._replace(seconds=options.seconds + 1, connections=STORM_CONNECTIONS)
    task = asyncio.create_task(_requests(side, "transfers.lua", _pairs_from_one(setup), longer))
    await asyncio.sleep(0.5)
    beside = await load.at_rate(side, pairs, rate, options.seconds)
    await task
    return {"quiet p99": quiet["p99_ms"], "stormed p99": beside["p99_ms"]}


async def beside_batches(setup: Setup, options: Options) -> dict[str, float]:
    """Latencies of transfers while one client sends batches, each after the answer to the last.

    The batches move money between other wallets, except for the last figure: there they lock most
    of the wallets that the transfers need.
    """
    side, rate = setup["transferd"], options.rate * QUIET_SHARE
    if side.wallets < 2 * WALLETS:
        await setup.grow(side, 2 * WALLETS)
    pairs = uniform_pairs(setup)
    numbers = [[WALLETS + n for n in evenly(WALLETS, _PAIRS)] for _ in range(2)]
    others = setup.pairs("batches", *numbers)
    found = {"quiet p99": (await load.at_rate(side, pairs, rate, options.seconds))["p99_ms"]}
    for name, size, used in (
        (f"{_BATCH:,}", _BATCH, others),
        (f"{_LARGE_BATCH:,}", _LARGE_BATCH, others),
        (f"{_BATCH:,} of its wallets", _BATCH, pairs),
    ):
        sending = asyncio.create_task(_batches(side, used, size, options.seconds + 1, 1))
        await asyncio.sleep(0.5)
        beside = await load.at_rate(side, pairs, rate, options.seconds)
        await sending
        found[f"p99 beside {name}"] = beside["p99_ms"]
    return found


async def _batches(side: Side, pairs: Path, size: int, seconds: float, at_once: int) -> float:
    return await load.transfers_per_s(
        side, "batches.lua", pairs, str(size), seconds=seconds, connections=at_once
    )


async def batches(setup: Setup, options: Options) -> dict[str, float]:
    """Atomic batches, a few at a time."""
    pairs = uniform_pairs(setup)
    rate = await _batches(setup["transferd"], pairs, _BATCH, options.seconds, _BATCHES_AT_ONCE)
    return {"transferd": rate}


async def reads(setup: Setup, options: Options) -> dict[str, float]:
    """GET of wallets that are in the cache."""
    pairs = uniform_pairs(setup)
    return {
        name: await _requests(setup[name], "reads.lua", pairs, options)
        for name in ("transferd", "aiohttp")
    }


# Setup.grow inserts wallets without the row of their creation, which reads of the past need.
_CREATIONS = """
INSERT INTO ledger_00.wallet_changes (
    wallet_id, version, created_at, balance_after, overdraft_limit, kind, status)
SELECT id, version, created_at, balance, 0, 0, 0 FROM ledger_00.wallets WHERE NOT funding"""


async def past_reads(setup: Setup, options: Options) -> dict[str, float]:
    """Transfers from a hot wallet beside readers. Half of the reads are of that wallet."""
    side = setup.sides.get("past") or await setup.add(Side("past", SERVICE))
    if not side.wallets:
        await setup.grow(side, WALLETS)
        connection = await connect_without_timeouts(side)
        await connection.execute(_CREATIONS)
        await connection.close()
    pairs = _pairs_from_one(setup)
    rates = {"no readers": await _posts(side, pairs, options)}
    for kind in ("plain", "settled", "now"):
        reading = load.at_rate(
            side,
            pairs,
            _READERS / _READER_PAUSE_S,
            options.seconds + 1,
            kind=kind,
            connections=_READERS,
        )
        task = asyncio.create_task(reading)
        await asyncio.sleep(0.5)
        rates[kind] = await _posts(side, pairs, options)
        found = await task
        if kind == "now":
            rates |= {"now p50 ms": found["p50_ms"], "now p99 ms": found["p99_ms"]}
    return rates


# Removed from the configuration to measure the cost of routing by wallet.
_PLAIN_HASH = ("hash $shard consistent;", "")


async def behind_nginx(setup: Setup, options: Options) -> dict[str, float]:
    """Two replicas behind Nginx, and one of them without Nginx, on the same cores."""
    first = await setup.add(Side("replica 1", SERVICE), wallets=WALLETS)
    second = replace(first, name="replica 2")
    await setup.start(second)
    addresses = [side.running.address for side in (first, second)]
    async with (
        running_nginx(addresses) as front,
        running_nginx(addresses, changed=_PLAIN_HASH) as plain,
    ):
        ports = {"direct": first.port, "two behind nginx": front.port, "plain proxying": plain.port}
        sides = {name: replace(first, port=port) for name, port in ports.items()}
        rates = await _medians(setup, sides, options)
    for side in (first, second):
        await setup.stop(side)
    return rates


async def _medians(setup: Setup, sides: dict[str, Side], options: Options) -> dict[str, float]:
    """The uniform rates of these sides, measured in turn."""
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(_REPETITIONS):
        for name, side in sides.items():
            rates[name].append(await _posts(side, uniform_pairs(setup, side.wallets), options))
    return {name: statistics.median(found) for name, found in rates.items()}


# Ids increase with time, and no two transfers have the same version, as in a real ledger.
_FILL = """
INSERT INTO ledger_00.transfers (
    id, kind, source_wallet_id, destination_wallet_id, amount, currency, source_version,
    source_balance_after, destination_version, destination_balance_after, created_at)
SELECT (lpad(to_hex(1700000000000 + n), 12, '0') || '70008000' || lpad(to_hex(n), 12, '0'))::uuid,
       0,
       format('00000000-0000-7000-8000-%s', lpad(to_hex(1 + n % $3), 12, '0'))::uuid,
       format('00000000-0000-7000-8000-%s', lpad(to_hex(1 + (n * 7 + 1) % $3), 12, '0'))::uuid,
       1, 'USD', 1000000000 + n, 0, 1000000000 + n, 0, now()
FROM generate_series($1::bigint, $2::bigint) AS n"""
_FILL_AT_ONCE = 500_000


async def growth(setup: Setup, options: Options) -> dict[str, float]:
    """A large ledger and a small one, measured in turn under the same conditions."""
    small = await setup.add(Side("small ledger", SERVICE), wallets=WALLETS)
    large = await setup.add(Side("large ledger", SERVICE), wallets=options.wallets)
    connection = await connect_without_timeouts(large)
    for first in range(1, options.transfers + 1, _FILL_AT_ONCE):
        last = min(first + _FILL_AT_ONCE - 1, options.transfers)
        await connection.execute(_FILL, first, last, options.wallets, timeout=600.0)
    await connection.execute("VACUUM ANALYZE ledger_00.transfers", timeout=600.0)
    await connection.close()
    # Not counted: PostgreSQL writes each page in full at its first change after a checkpoint. With
    # checkpoints every 15 minutes that is rare, but in the first seconds it is every page.
    await _posts(large, uniform_pairs(setup, large.wallets), options)
    rates = await _medians(setup, {"small": small, "large": large}, options)
    for side in (small, large):
        await setup.stop(side)
    return rates


async def resources(setup: Setup, options: Options) -> dict[str, float]:
    """Start time, memory and disk space of one replica."""
    side = await setup.add(Side("fresh", SERVICE), wallets=WALLETS)
    await setup.stop(side)
    start_s = await setup.start(side)
    idle_mib = side.running.resident_mib
    await _posts(side, uniform_pairs(setup), options)
    connection = await asyncpg.connect(side.database_url)
    [row] = await connection.fetch(
        "SELECT count(*) AS transfers, pg_total_relation_size('ledger_00.outcomes')"
        " + pg_total_relation_size('ledger_00.transfers') AS bytes FROM ledger_00.transfers"
    )
    await connection.close()
    used_mib = side.running.resident_mib
    await setup.stop(side)
    return {
        "start s": start_s,
        "idle MiB": idle_mib,
        "used MiB": used_mib,
        "bytes per transfer": row["bytes"] / max(1, row["transfers"]),
    }
