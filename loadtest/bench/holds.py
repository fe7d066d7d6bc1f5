"""One round of the rows about holds."""

import asyncio
import random
import time
from pathlib import Path
from uuid import uuid4

import asyncpg

from loadtest.bench import load
from loadtest.bench.measures import WALLETS, Options, uniform_pairs
from loadtest.bench.setup import SERVICE, Setup, Side, connect_without_timeouts

_DUE_HOLDS_EACH = 100
# Far enough ahead for the insertion of the holds, and near enough for the patience of a user.
_DUE_IN_S = 15.0
_LOOK_S = 0.5
_LOOKS_MAX = 300
_ACTIVE = "SELECT id::text FROM ledger_00.holds WHERE status = 0"
_CAPTURED = "SELECT count(*) FROM ledger_00.holds WHERE status = 1"
_FIRST_EXPIRY = (
    "SELECT extract(epoch FROM min(expires_at) - clock_timestamp())::float8 FROM ledger_00.holds"
)
_LEFT = "SELECT count(*) FROM ledger_00.holds WHERE status = 0"
_CREATED = "SELECT count(*) FROM ledger_00.holds"

# Holds of the newest wallets that expire within one second, with their history.
_INSERT_DUE = """
WITH payers AS (
    SELECT id, version, balance FROM ledger_00.wallets WHERE NOT funding ORDER BY id DESC LIMIT $1
), made AS (
    INSERT INTO ledger_00.holds (id, source_wallet_id, amount, captured, released, created_at,
        updated_at, expires_at, status, currency, metadata)
    SELECT gen_random_uuid(), id, 1, 0, 0, now(), now(),
           now() + ($3 + random()) * interval '1 second', 0, 'USD', '{}'
    FROM payers, generate_series(1, $2)
    RETURNING id, source_wallet_id, expires_at
), numbered AS (
    SELECT made.*, row_number() OVER (PARTITION BY source_wallet_id) AS n FROM made
), recorded AS (
    INSERT INTO ledger_00.wallet_changes (wallet_id, version, created_at, balance_after,
        overdraft_limit, kind, status, held_after, hold_id, hold_amount, hold_captured,
        hold_released, hold_expires_at, hold_status)
    SELECT source_wallet_id, version + n, now(), balance, 0, 5, 0, n, numbered.id, 1, 0, 0,
           expires_at, 0
    FROM numbered JOIN payers ON payers.id = source_wallet_id
)
UPDATE ledger_00.wallets w
SET held = $2, open_holds = $2, version = payers.version + $2, updated_at = now(),
    hold_expires_at = now() + $3 * interval '1 second'
FROM payers
WHERE payers.id = w.id"""


async def holds(setup: Setup, options: Options) -> dict[str, float]:
    """Holds and captures between any two wallets, beside transfers of the same round."""
    side = setup["transferd"]
    pairs = uniform_pairs(setup)
    connection = await connect_without_timeouts(side)

    async def rate_of(script: str, file: Path, count: str) -> float:
        before, started = await connection.fetchval(count), time.monotonic()
        await load.requests_per_s(
            side,
            script,
            file,
            seconds=options.seconds,
            connections=options.connections,
        )
        done: int = await connection.fetchval(count) - before
        return done / (time.monotonic() - started)

    transfers = await load.transfers_per_s(
        side,
        "transfers.lua",
        pairs,
        seconds=options.seconds,
        connections=options.connections,
    )
    authorised = await rate_of("holds.lua", pairs, _CREATED)
    ids = [row["id"] for row in await connection.fetch(_ACTIVE)]
    random.shuffle(ids)
    file = setup.directory / f"holds-{uuid4().hex}"
    file.write_text("\n".join(ids))
    captured = await rate_of("captures.lua", file, _CAPTURED)
    await connection.close()
    return {"authorise": authorised, "capture": captured, "transfers": transfers}


async def expiry(setup: Setup, options: Options) -> dict[str, float]:
    """100,000 holds that expire within a second, beside transfers of other wallets."""
    side = await setup.add(Side("expiry", SERVICE), wallets=2 * WALLETS)
    pairs = uniform_pairs(setup)
    rate = options.rate * 0.2
    quiet = await load.at_rate(side, pairs, rate, options.seconds)
    connection = await connect_without_timeouts(side)
    await connection.execute(_INSERT_DUE, WALLETS, _DUE_HOLDS_EACH, _DUE_IN_S, timeout=60.0)
    left_s = await connection.fetchval(_FIRST_EXPIRY)
    await asyncio.sleep(left_s)
    started = time.monotonic()
    beside = asyncio.create_task(load.at_rate(side, pairs, rate, 2 * options.seconds))
    await _until_written(connection)
    written_s = time.monotonic() - started
    found = await beside
    await connection.close()
    await setup.stop(side)
    return {"quiet p99": quiet["p99_ms"], "beside p99": found["p99_ms"], "written s": written_s}


async def _until_written(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Return when no hold is active, or after some minutes."""
    for _ in range(_LOOKS_MAX):
        if not await connection.fetchval(_LEFT):
            return
        # Counting more often would slow the service down.
        await asyncio.sleep(_LOOK_S)
