"""Load on a side, and what it came to. Committed transfers count, never accepted ones."""

import asyncio
import json
import re
import sys
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import click

from loadtest.bench.scene import Side

_HERE = Path(__file__).parent
_STATEMENTS = _HERE / "same_statements.sql"


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
    """What wrk gets with one of its scripts; complains if anything was refused."""
    output = await output_of(
        *("wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s"),
        *("-s", str(_HERE / script), side.url, "--", str(pairs), *more),
    )
    if "Non-2xx" in output:
        click.echo(f"{side.name}: {re.findall('Non-2xx.*', output)[0]}", err=True)
    found = re.search(r"Requests/sec:\s+([\d.]+)", output)
    return float(found.group(1)) if found else 0.0


async def transfers_per_s(
    side: Side, script: str, pairs: Path, *more: str, seconds: float, connections: int
) -> float:
    """Committed transfers per second under POST requests."""
    before, started = await side.committed(), time.monotonic()
    await requests_per_s(
        side, script, pairs, uuid4().hex[:12], *more, seconds=seconds, connections=connections
    )
    elapsed_s = time.monotonic() - started
    return (await side.committed() - before) / elapsed_s


async def pgbench_per_s(side: Side, *, seconds: float, connections: int) -> float:
    """Transactions per second of the same statements without any HTTP."""
    output = await output_of(
        *(
            "pgbench",
            "-n",
            "-M",
            "prepared",
            "-f",
            str(_STATEMENTS),
            "-D",
            f"wallets={side.wallets}",
        ),
        *("-c", str(connections), "-T", str(max(1, round(seconds))), side.database_url),
    )
    found = re.search(r"tps = ([\d.]+) \(without", output)
    return float(found.group(1)) if found else 0.0


async def readers(
    side: Side, kind: str, *, count: int, pause_s: float, seconds: float
) -> dict[str, Any]:
    """What so many readers were answered: statuses, p50_ms, p99_ms. Complains of all but 200."""
    output = await output_of(
        *(sys.executable, "-m", "loadtest.bench.readers", str(side.port), kind),
        *(str(count), str(pause_s), f"{seconds:.1f}"),
    )
    found: dict[str, Any] = json.loads(output)
    if set(found["statuses"]) != {"200"}:
        click.echo(f"{side.name}: readers {kind} {output.strip()}", err=True)
    return found


async def at_rate(side: Side, pairs: Path, rate: float, seconds: float) -> dict[str, Any]:
    """Latencies in an open loop: p50_ms, p99_ms, statuses, unanswered."""
    output = await output_of(
        *(sys.executable, "-m", "loadtest.bench.openloop", str(side.port), str(pairs)),
        *(f"{rate:.1f}", f"{seconds:.1f}"),
    )
    found: dict[str, Any] = json.loads(output)
    if found["unanswered"] or set(found["statuses"]) != {"201"}:
        click.echo(f"{side.name}: at {rate:.0f}/s {output.strip()}", err=True)
    return found
