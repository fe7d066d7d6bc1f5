"""`python -m loadtest.bench`: the service and the baseline, interleaved, on private servers.

Prints a table of medians of committed transfers per second and their ratios; `--json FILE` writes
every round. Needs wrk (apt install wrk).
"""

import asyncio
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import aiohttp
import asyncpg
import click
import uvloop

from transferd.config import Limits, load_settings
from transferd.devstack import PostgresServer, RedisServer
from transferd.ledger.migrate import migrate

_MODES = ("uniform", "from-one", "to-one")
_WALLETS = 1_000
_BALANCE_MINOR = 1_000_000_000
_LUA = Path(__file__).with_name("transfers.lua")


@dataclass
class Side:
    """One of the two services: its database, its port, its process."""

    name: str
    port: int
    database_url: str = ""
    process: asyncio.subprocess.Process | None = None
    wallets_file: Path = Path()
    rounds: dict[str, list[float]] = field(default_factory=dict)


@click.command()
@click.option("--rounds", default=3, show_default=True)
@click.option("--seconds", default=5, show_default=True)
@click.option("--connections", default=128, show_default=True)
@click.option("--json", "json_file", type=click.Path(dir_okay=False), help="Write all rounds here.")
def main(rounds: int, seconds: int, connections: int, json_file: str | None) -> None:
    """Compare the service with one row-locking transaction per request."""
    if shutil.which("wrk") is None:
        raise click.ClickException("wrk is not installed: apt install wrk (or brew install wrk)")
    sides = uvloop.run(_compare(rounds, seconds, connections))
    _print_table(sides)
    if json_file is not None:
        Path(json_file).write_text(json.dumps({side.name: side.rounds for side in sides}, indent=2))


async def _compare(rounds: int, seconds: int, connections: int) -> list[Side]:
    sides = [Side("transferd", 28080), Side("baseline", 28081)]
    with tempfile.TemporaryDirectory(prefix="transferd-bench-") as name:
        directory = Path(name)
        os.chmod(directory, 0o711)  # PostgreSQL runs as another user when we are root
        async with AsyncExitStack() as exits:
            postgres = PostgresServer(directory / "postgresql")
            redis = RedisServer(directory / "redis")
            for server in (postgres, redis):
                exits.push_async_callback(server.stop)
                await server.start()
            for number, side in enumerate(sides):
                await _prepare(side, postgres, f"{redis.url.rsplit('/', 1)[0]}/{number}", directory)
                exits.push_async_callback(_stop, side)
            for round_number in range(rounds):
                for mode in _MODES:
                    for side in sides:
                        await _measure(side, mode, seconds, connections, round_number)
    return sides


async def _prepare(side: Side, postgres: PostgresServer, redis_url: str, directory: Path) -> None:
    """A database of its own, the wallets, and the process."""
    superuser = await asyncpg.connect(postgres.superuser_url)
    await superuser.execute(f"CREATE DATABASE {side.name}_bench OWNER transferd")
    await superuser.close()
    side.database_url = f"{postgres.url.rsplit('/', 1)[0]}/{side.name}_bench"
    await migrate(load_settings(database_url=side.database_url), Limits())
    await _start(side, redis_url)
    if side.name == "transferd":
        side.wallets_file = directory / "wallets-transferd"
        side.wallets_file.write_text("\n".join(await _create_wallets(side.port)) + "\n")
    else:
        side.wallets_file = directory / "wallets-baseline"
        side.wallets_file.write_text("\n".join(await _insert_wallets(side.database_url)) + "\n")


async def _start(side: Side, redis_url: str) -> None:
    environment = os.environ | {
        "TRANSFERD_DATABASE_URL": side.database_url,
        "TRANSFERD_REDIS_URL": redis_url,
        "TRANSFERD_PORT": str(side.port),
        "TRANSFERD_AUTH": "off",
    }
    command = ["-c", "from transferd.cli import main; main(['serve'])"]
    if side.name == "baseline":
        command = ["-m", "loadtest.bench.baseline", str(side.port), side.database_url, redis_url]
    side.process = await asyncio.create_subprocess_exec(
        sys.executable, *command, env=environment, stderr=asyncio.subprocess.DEVNULL
    )
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", side.port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return
    raise click.ClickException(f"{side.name} did not start on port {side.port}")


async def _create_wallets(port: int) -> list[str]:
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:

        async def post(path: str, body: object) -> str:
            headers = {"Idempotency-Key": str(uuid4())}
            async with session.post(path, json=body, headers=headers) as response:
                response.raise_for_status()
                return str((await response.json())["id"])

        user = await post("/users", {"name": "bench"})
        body = {"user_id": user, "currency": "USD", "initial_balance": _BALANCE_MINOR}
        return list(await asyncio.gather(*(post("/wallets", body) for _ in range(_WALLETS))))


async def _insert_wallets(database_url: str) -> list[str]:
    connection = await asyncpg.connect(database_url)
    rows = await connection.fetch(
        "INSERT INTO ledger_00.wallets (id, user_id, balance, held, overdraft_limit, version,"
        " created_at, updated_at, status, funding, currency, metadata)"
        " SELECT gen_random_uuid(), gen_random_uuid(), $1, 0, 0, 1, now(), now(), 0, false, 'USD',"
        " '{}' FROM generate_series(1, $2::integer) RETURNING id::text",
        _BALANCE_MINOR,
        _WALLETS,
    )
    await connection.close()
    return [row["id"] for row in rows]


async def _measure(
    side: Side, mode: str, seconds: int, connections: int, round_number: int
) -> None:
    connection = await asyncpg.connect(side.database_url)
    count = "SELECT count(*) FROM ledger_00.transfers"
    before = await connection.fetchval(count)
    started = time.monotonic()
    wrk = await asyncio.create_subprocess_exec(
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{seconds}s",
        "-s",
        str(_LUA),
        f"http://127.0.0.1:{side.port}",
        "--",
        str(side.wallets_file),
        mode,
        uuid4().hex[:12],
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await wrk.communicate()
    elapsed_s = time.monotonic() - started
    committed = await connection.fetchval(count) - before
    await connection.close()
    rate = committed / elapsed_s
    side.rounds.setdefault(mode, []).append(rate)
    errors = [line.strip() for line in output.decode().splitlines() if "Non-2xx" in line]
    click.echo(
        f"round {round_number + 1} {mode:9} {side.name:10} {rate:8.0f}/s {' '.join(errors)}",
        err=True,
    )


async def _stop(side: Side) -> None:
    if side.process is not None and side.process.returncode is None:
        side.process.terminate()
        await side.process.wait()


def _print_table(sides: list[Side]) -> None:
    service, baseline = sides
    click.echo(f"{'committed transfers/s':22}{'transferd':>12}{'baseline':>12}{'ratio':>8}")
    for mode in _MODES:
        ours = statistics.median(service.rounds[mode])
        theirs = statistics.median(baseline.rounds[mode])
        click.echo(f"{mode:22}{ours:12.0f}{theirs:12.0f}{ours / theirs:8.1f}")


if __name__ == "__main__":
    main()
