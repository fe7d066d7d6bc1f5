"""One round of each row of the benchmark."""

import asyncio
import statistics
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import asyncpg

from loadtest.bench import load
from loadtest.bench.scene import BASELINE, CEILING, SERVICE, Scene, Side, by_zipf, evenly, patient
from loadtest.front import running_nginx

WALLETS = 1_000
_ZIPF_WALLETS = 100_000
_PAIRS = 100_000
_BATCH = 1_000
_BATCHES_AT_ONCE = 4
_PGBENCH_CONNECTIONS = 32
# More callers than a mailbox holds.
_STORM = 1_024
_QUIET_SHARE = 0.2
_READERS = 200
# Forty questions a second in all: a few per cent of two cores, since the writers need all of them.
_READER_PAUSE_S = 5.0


class Options(NamedTuple):
    """What the command line says; `rate` is what one replica was seen to do, uniformly."""

    seconds: float
    connections: int
    wallets: int
    transfers: int
    rate: float


async def prepare(scene: Scene) -> None:
    """All sides, each with its own wallets."""
    await scene.add(Side("transferd", SERVICE), wallets=_ZIPF_WALLETS)
    await scene.add(Side("baseline", BASELINE), wallets=WALLETS)
    await scene.add(Side("pgbench", ()), wallets=WALLETS)
    await scene.add(Side("aiohttp", CEILING))


def uniform_pairs(scene: Scene, wallets: int = WALLETS) -> Path:
    """Transfers between any two of so many wallets."""
    pairs = evenly(wallets, _PAIRS), evenly(wallets, _PAIRS)
    return scene.pairs(f"uniform-{wallets}", *pairs)


async def _posts(side: Side, pairs: Path, options: Options) -> float:
    return await load.transfers_per_s(
        side,
        "transfers.lua",
        pairs,
        seconds=options.seconds,
        connections=options.connections,
    )


async def uniform(scene: Scene, options: Options) -> dict[str, float]:
    """Any wallet to any other, beside all others."""
    pairs = uniform_pairs(scene)
    return {
        "transferd": await _posts(scene["transferd"], pairs, options),
        "baseline": await _posts(scene["baseline"], pairs, options),
        "pgbench": await load.pgbench_per_s(
            scene["pgbench"], seconds=options.seconds, connections=_PGBENCH_CONNECTIONS
        ),
        "aiohttp": await load.requests_per_s(
            scene["aiohttp"],
            "transfers.lua",
            pairs,
            "x",
            seconds=options.seconds,
            connections=options.connections,
        ),
    }


async def to_one(scene: Scene, options: Options) -> dict[str, float]:
    """All to one wallet."""
    others = [n + 1 for n in evenly(WALLETS - 1, _PAIRS)]
    pairs = scene.pairs("to-one", others, [1] * _PAIRS)
    return {name: await _posts(scene[name], pairs, options) for name in ("transferd", "baseline")}


async def from_one(scene: Scene, options: Options) -> dict[str, float]:
    """All from one wallet."""
    others = [n + 1 for n in evenly(WALLETS - 1, _PAIRS)]
    pairs = scene.pairs("from-one", [1] * _PAIRS, others)
    return {name: await _posts(scene[name], pairs, options) for name in ("transferd", "baseline")}


async def zipf(scene: Scene, options: Options) -> dict[str, float]:
    """Few wallets in most transfers, beside the own even rate in the same round."""
    pairs = scene.pairs("zipf", by_zipf(_ZIPF_WALLETS, _PAIRS), by_zipf(_ZIPF_WALLETS, _PAIRS))
    # Beside its own uniform rate over as many wallets, in the same round.
    return {
        "transferd": await _posts(scene["transferd"], pairs, options),
        "uniform": await _posts(scene["transferd"], uniform_pairs(scene), options),
    }


async def single(scene: Scene, options: Options) -> dict[str, float]:
    """Milliseconds of a transfer when nobody else is there."""
    pairs = uniform_pairs(scene)
    alone = options._replace(connections=1)
    return {
        name: 1000 / await _posts(scene[name], pairs, alone) for name in ("transferd", "baseline")
    }


async def half_of_peak(scene: Scene, options: Options) -> dict[str, float]:
    """Latencies at half of what one replica was seen to do."""
    found = await load.at_rate(
        scene["transferd"], uniform_pairs(scene), options.rate / 2, options.seconds
    )
    return {"p50": found["p50_ms"], "p99": found["p99_ms"]}


async def storm(scene: Scene, options: Options) -> dict[str, float]:
    """What the others notice of a wallet that is asked for more than its mailbox holds."""
    side, rate = scene["transferd"], options.rate * _QUIET_SHARE
    # The first wallet is the one that is stormed, so the others do without it.
    others = [n + 1 for n in evenly(WALLETS - 1, _PAIRS)]
    pairs = scene.pairs("others", others, others[::-1])
    stormed = scene.pairs("from-one", [1] * _PAIRS, others)
    quiet = await load.at_rate(side, pairs, rate, options.seconds)
    task = asyncio.create_task(
        load.requests_per_s(
            side,
            "transfers.lua",
            stormed,
            uuid4().hex[:12],
            seconds=options.seconds + 1,
            connections=_STORM,
        )
    )
    await asyncio.sleep(0.5)
    beside = await load.at_rate(side, pairs, rate, options.seconds)
    await task
    return {"quiet p99": quiet["p99_ms"], "stormed p99": beside["p99_ms"]}


async def batches(scene: Scene, options: Options) -> dict[str, float]:
    """Atomic batches, a few at a time."""
    rate = await load.transfers_per_s(
        scene["transferd"],
        "batches.lua",
        uniform_pairs(scene),
        str(_BATCH),
        seconds=options.seconds,
        connections=_BATCHES_AT_ONCE,
    )
    return {"transferd": rate}


async def reads(scene: Scene, options: Options) -> dict[str, float]:
    """GET of wallets that are in the cache."""
    return {
        name: await load.requests_per_s(
            scene[name],
            "reads.lua",
            uniform_pairs(scene),
            seconds=options.seconds,
            connections=options.connections,
        )
        for name in ("transferd", "aiohttp")
    }


# A wallet of the bench begins at version 1 without a row that says so.
_BEGINNINGS = """
INSERT INTO ledger_00.wallet_changes (
    wallet_id, version, created_at, balance_after, overdraft_limit, kind, status)
SELECT id, version, created_at, balance, 0, 0, 0 FROM ledger_00.wallets WHERE NOT funding"""


async def past_reads(scene: Scene, options: Options) -> dict[str, float]:
    """What one hot wallet pays beside readers, half of them its own and half of other wallets."""
    side = scene.sides.get("past") or await scene.add(Side("past", SERVICE))
    if not side.wallets:
        await scene.grow(side, WALLETS)
        connection = await patient(side)
        await connection.execute(_BEGINNINGS)
        await connection.close()
    others = [n + 1 for n in evenly(WALLETS - 1, _PAIRS)]
    pairs = scene.pairs("from-one", [1] * _PAIRS, others)
    rates = {"no readers": await _posts(side, pairs, options)}
    for kind in ("plain", "settled", "now"):
        task = asyncio.create_task(
            load.readers(
                side,
                kind,
                count=_READERS,
                pause_s=_READER_PAUSE_S,
                seconds=options.seconds + 1,
            )
        )
        await asyncio.sleep(0.5)
        rates[kind] = await _posts(side, pairs, options)
        found = await task
        if kind == "now":
            rates |= {"now p50 ms": found["p50_ms"], "now p99 ms": found["p99_ms"]}
    return rates


# Nginx as anybody would write it, to see what the routing by wallet costs.
_PLAIN_HASH = ("hash $shard consistent;", "")


async def behind_nginx(scene: Scene, options: Options) -> dict[str, float]:
    """Two replicas behind Nginx, beside one that is reached directly; all on the same cores."""
    replicas = [
        await scene.add(Side(f"replica {n}", SERVICE), wallets=WALLETS if n == 1 else 0)
        for n in (1, 2)
    ]
    # One database for both: the second one's own stays empty.
    await scene.stop(replicas[1])
    replicas[1].database_url, replicas[1].redis_url = (
        replicas[0].database_url,
        replicas[0].redis_url,
    )
    await scene.start(replicas[1])
    pairs = uniform_pairs(scene)
    addresses = [f"127.0.0.1:{side.port}" for side in replicas]
    rates: dict[str, list[float]] = {"direct": [], "two behind nginx": [], "plain proxying": []}
    async with (
        running_nginx(addresses) as front,
        running_nginx(addresses, changed=_PLAIN_HASH) as plain,
    ):
        ports = {"direct": replicas[0].port, "two behind nginx": front.port}
        ports["plain proxying"] = plain.port
        for _ in range(3):
            for name, port in ports.items():
                rates[name].append(await _posts(replace(replicas[0], port=port), pairs, options))
    for side in replicas:
        await scene.stop(side)
    return {name: statistics.median(found) for name, found in rates.items()}


# Ids that grow with time and versions of their own, as the service would have left them.
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


async def growth(scene: Scene, options: Options) -> dict[str, float]:
    """Beside the small ledger, in the same rounds, so that the machine's moods are the same."""
    small = await scene.add(Side("small ledger", SERVICE), wallets=WALLETS)
    large = await scene.add(Side("large ledger", SERVICE), wallets=options.wallets)
    connection = await patient(large)
    for first in range(1, options.transfers + 1, _FILL_AT_ONCE):
        last = min(first + _FILL_AT_ONCE - 1, options.transfers)
        await connection.execute(_FILL, first, last, options.wallets, timeout=600.0)
    await connection.execute("VACUUM ANALYZE ledger_00.transfers", timeout=600.0)
    await connection.close()
    rates: dict[str, list[float]] = {"small": [], "large": []}
    for _ in range(3):
        for name, side in (("small", small), ("large", large)):
            pairs = uniform_pairs(scene, side.wallets)
            rates[name].append(await _posts(side, pairs, options))
    for side in (small, large):
        await scene.stop(side)
    return {name: statistics.median(found) for name, found in rates.items()}


async def resources(scene: Scene, options: Options) -> dict[str, float]:
    """Start, memory and disk of one replica."""
    side = await scene.add(Side("fresh", SERVICE), wallets=WALLETS)
    await scene.stop(side)
    start_s = await scene.start(side)
    idle_mib = side.running.resident_mib
    await _posts(side, uniform_pairs(scene), options)
    connection = await asyncpg.connect(side.database_url)
    [row] = await connection.fetch(
        "SELECT count(*) AS transfers, pg_total_relation_size('transferd.outcomes')"
        " + pg_total_relation_size('ledger_00.transfers') AS bytes FROM ledger_00.transfers"
    )
    await connection.close()
    used_mib = side.running.resident_mib
    await scene.stop(side)
    return {
        "start s": start_s,
        "idle MiB": idle_mib,
        "used MiB": used_mib,
        "bytes per transfer": row["bytes"] / max(1, row["transfers"]),
    }
