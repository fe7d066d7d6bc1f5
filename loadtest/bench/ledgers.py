"""One round of each row about ledgers."""

import asyncio
import hashlib
import random
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import click

from loadtest.bench import load
from loadtest.bench.measures import QUIET_SHARE, STORM_CONNECTIONS, WALLETS, Options
from loadtest.bench.setup import SERVICE, Setup, Side, insert_wallets, wallet_id
from loadtest.ledgers import KeyedLedger, make_ledgers
from transferd.config import Limits, load_settings
from transferd.ledger.migrate import create_ledger, migrate
from transferd.ledger.steps import Migration, ledger_migrations

_PAIRS = 100_000
_AT_ONCE = 8
# With main.
_MANY = 1_000
_FEW = 10
# The rates of two sides are measured in turn so often, because they may differ by 3 % only.
_TURNS = 5
_MIGRATIONS = 3


async def at_once(setup: Setup, options: Options) -> dict[str, float]:
    """Transfers in one ledger, and in eight ledgers in turn, all with API keys."""
    side = await _side_with_ledgers(setup)
    return {
        "one": await _posts(side, _uniform(setup, "one", side.ledgers[1:2]), options),
        "eight": await _posts(side, _uniform(setup, "eight", side.ledgers), options),
    }


async def storm(setup: Setup, options: Options) -> dict[str, float]:
    """Latencies in one ledger while a wallet of another ledger gets more than its mailbox holds."""
    side, rate = await _side_with_ledgers(setup), options.rate * QUIET_SHARE
    calm, stormed = side.ledgers[1:3]
    pairs = _uniform(setup, "one", [calm])
    from_one = _pairs(setup, "from-one", [(stormed, 1, 1 + n) for n in _evenly(WALLETS - 1)])
    quiet = await load.at_rate(side, pairs, rate, options.seconds)
    storming = load.requests_per_s(
        side,
        "transfers.lua",
        from_one,
        seconds=options.seconds + 1,
        connections=STORM_CONNECTIONS,
    )
    task = asyncio.create_task(storming)
    await asyncio.sleep(0.5)
    beside = await load.at_rate(side, pairs, rate, options.seconds)
    await task
    return {"quiet p99": quiet["p99_ms"], "stormed p99": beside["p99_ms"]}


async def many(setup: Setup, options: Options) -> dict[str, float]:
    """One busy ledger in a database with one other ledger, and in one with 998 others."""
    sides = {"two exist": await setup.add(Side("two ledgers", SERVICE))}
    await _add_ledgers(sides["two exist"], 2)
    sides["1,000 exist"] = await _side_with_many(setup)
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(_TURNS):
        for name, side in sides.items():
            pairs = _uniform(setup, name.replace(" ", "-"), side.ledgers[1:2])
            rates[name].append(await _posts(side, pairs, options))
    for side in sides.values():
        await setup.stop(side)
    return {name: statistics.median(found) for name, found in rates.items()}


async def on_citus(setup: Setup, options: Options) -> dict[str, float]:
    """Transfers in one, two and eight ledgers of one server, and of two nodes of Citus."""
    sides = {"plain": await _side_with_ledgers(setup)}
    sides["Citus"] = setup.sides.get("on Citus") or await _added_with_ledgers(
        setup, "on Citus", on_citus=True
    )
    rates = {}
    for count in (1, 2, _AT_ONCE):
        for name, side in sides.items():
            ledgers = side.ledgers[-count:]
            pairs = _uniform(setup, f"{name}-{count}", ledgers)
            rates[f"{name} {count}"] = await _posts(side, pairs, options)
    return rates


async def migrating(setup: Setup, _: Options) -> dict[str, float]:
    """Seconds of a migration that adds a column to a table of each ledger."""
    few = await setup.add(Side("ten ledgers", ()))
    await _create(few, _FEW - 1)
    large = await _side_with_many(setup)
    await setup.stop(large)
    seconds: dict[str, list[float]] = {"10 ledgers": [], "1,000 ledgers": []}
    steps = ledger_migrations()
    for number in range(_MIGRATIONS):
        # Migrations of ledgers add columns without a default: docs/architecture.md has the reason.
        sql = f"ALTER TABLE wallets ADD COLUMN bench_{number} bigint"
        digest = hashlib.sha256(sql.encode()).hexdigest()
        steps = [*steps, Migration(f"9{number:03}_bench.sql", sql, digest)]
        for side, found in zip((few, large), seconds.values(), strict=True):
            settings, started = load_settings(database_url=side.database_url), time.monotonic()
            await migrate(settings, Limits(), for_ledgers=steps)
            found.append(time.monotonic() - started)
    return {name: statistics.median(found) for name, found in seconds.items()}


async def _posts(side: Side, pairs: Path, options: Options) -> float:
    return await load.transfers_per_s(
        side, "transfers.lua", pairs, seconds=options.seconds, connections=options.connections
    )


async def _side_with_ledgers(setup: Setup) -> Side:
    """A side with wallets and keys in eight ledgers."""
    name = "eight ledgers"
    return setup.sides.get(name) or await _added_with_ledgers(setup, name)


async def _added_with_ledgers(setup: Setup, name: str, *, on_citus: bool = False) -> Side:
    side = await setup.add(Side(name, SERVICE), on_citus=on_citus)
    await _add_ledgers(side, _AT_ONCE)
    return side


async def _side_with_many(setup: Setup) -> Side:
    """A side with 1,000 ledgers, of which two have wallets and keys."""
    side = setup.sides.get("many ledgers")
    if side is None:
        side = await setup.add(Side("many ledgers", SERVICE))
        await _add_ledgers(side, 2)
        await _create(side, _MANY - 2)
    return side


async def _add_ledgers(side: Side, count: int) -> None:
    """Main and new ledgers, `count` in all, with keys and wallets."""
    side.ledgers = await make_ledgers(side.database_url, "", count)
    for keyed in side.ledgers:
        await insert_wallets(side, keyed.ledger, 1, WALLETS)


async def _create(side: Side, count: int) -> None:
    """Create ledgers without wallets and keys; it takes a part of a second for each."""
    settings, started = load_settings(database_url=side.database_url), time.monotonic()
    for number in range(count):
        await create_ledger(settings, Limits(), f"empty-{number}")
    click.echo(f"{side.name}: {count} ledgers created in {time.monotonic() - started:.0f} s")


def _evenly(count: int) -> list[int]:
    return [random.randint(1, count) for _ in range(_PAIRS)]


def _uniform(setup: Setup, name: str, ledgers: Sequence[KeyedLedger]) -> Path:
    """Transfers between any two wallets of the same ledger, for each ledger in turn."""
    wallets = zip(_evenly(WALLETS), _evenly(WALLETS), strict=True)
    return _pairs(
        setup,
        name,
        [(ledgers[n % len(ledgers)], a, b) for n, (a, b) in enumerate(wallets)],
    )


def _pairs(setup: Setup, name: str, rows: Sequence[tuple[KeyedLedger, int, int]]) -> Path:
    """A file with a line "source destination token" for each row: a ledger, and two wallets."""
    path = setup.directory / f"pairs-of-ledgers-{name}"
    if not path.exists():
        lines = (
            f"{wallet_id(a, keyed.ledger)}"
            f" {wallet_id(b if a != b else b % WALLETS + 1, keyed.ledger)} {keyed.token}\n"
            for keyed, a, b in rows
        )
        path.write_text("".join(lines))
    return path
