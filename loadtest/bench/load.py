"""Load on a side, and its rate. Transfers are counted in the ledger, not in the answers."""

import asyncio
import json
import re
import sys
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import click

from loadtest.bench.setup import Side

_HERE = Path(__file__).parent


async def output_of(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, complaint = await process.communicate()
    if process.returncode != 0:
        raise click.ClickException(f"{command[0]} failed: {complaint.decode().strip()[:500]}")
    return output.decode()


async def requests_per_s(
    side: Side, script: str, pairs: Path, *more: str, seconds: float, connections: int
) -> float:
    """The rate that wrk reaches with a script. Prints a warning if an answer is not a success."""
    output = await output_of(
        *("wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s"),
        *("-s", str(_HERE / script), side.url, "--", str(pairs), uuid4().hex[:12], *more),
    )
    if "Non-2xx" in output:
        click.echo(f"{side.name}: {re.findall('Non-2xx.*', output)[0]}", err=True)
    return _number_in(output, r"Requests/sec:\s+([\d.]+)")


async def transfers_per_s(
    side: Side, script: str, pairs: Path, *more: str, seconds: float, connections: int
) -> float:
    """Committed transfers per second while wrk runs the script."""
    before, started = await side.committed(), time.monotonic()
    await requests_per_s(side, script, pairs, *more, seconds=seconds, connections=connections)
    elapsed_s = time.monotonic() - started
    return (await side.committed() - before) / elapsed_s


async def pgbench_per_s(side: Side, *, seconds: float, connections: int) -> float:
    """Transactions per second of the SQL of a transfer, without HTTP."""
    output = await output_of(
        *("pgbench", "-n", "-M", "prepared", "-f", str(_HERE / "same_statements.sql")),
        *("-D", f"wallets={side.wallets}", "-c", str(connections)),
        # pgbench would end at the first wait that the service repeats.
        *("-T", str(max(1, round(seconds))), f"{side.database_url}?options=-c%20lock_timeout%3D0"),
    )
    return _number_in(output, r"tps = ([\d.]+) \(without")


async def at_rate(
    side: Side,
    pairs: Path,
    rate: float,
    seconds: float,
    *,
    kind: str = "transfers",
    connections: int = 128,
) -> dict[str, Any]:
    """Latencies at a fixed rate (open loop): p50_ms, p99_ms, statuses, unanswered."""
    output = await output_of(
        *(sys.executable, "-m", "loadtest.bench.openloop", str(side.port), str(pairs)),
        *(f"{rate:.1f}", f"{seconds:.1f}", kind, str(connections)),
    )
    found: dict[str, Any] = json.loads(output)
    if found["unanswered"] or set(found["statuses"]) != {"201" if kind == "transfers" else "200"}:
        click.echo(f"{side.name}: {kind} at {rate:.0f}/s {output.strip()}", err=True)
    return found


def _number_in(output: str, pattern: str) -> float:
    found = re.search(pattern, output)
    return float(found.group(1)) if found else 0.0
