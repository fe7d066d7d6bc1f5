"""CPU time of a transfer by stage: `python -m loadtest.bench.profile`.

py-spy samples the stack of the service under load 200 times per second, including C code. Each
sample counts for one stage. The cost of a stage is its share of the samples times the CPU time of
the service per committed transfer.
"""

import asyncio
import shutil
from collections import Counter
from pathlib import Path

import click
import uvloop

from loadtest.bench import load
from loadtest.bench.measures import WALLETS, uniform_pairs
from loadtest.bench.setup import SERVICE, Setup, Side, bench_setup

_SAMPLES_PER_S = 200
# The load begins this much earlier than the sampling, and ends this much later.
_MARGIN_S = 1.5

# The innermost frame that matches a stage decides. The stages are in the order of a request, from
# the socket to the commit and back.
STAGES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "HTTP parse and route",
        (
            *("Connection.data_received", "Request.__init__", "_http_parser_cb", "llhttp"),
            *("Routes.find", "Edge.__call__", "_behind.<locals>"),
        ),
    ),
    ("validation", ("Call.body", "Call.key", "Call.query", "origin_of", "create (")),
    ("mailbox", ("Call.ask", "Router.", "Envelope.__init__", "Gate.", "Committer._collect")),
    ("claim", ("Committer._claim", "Replays.claim")),
    ("lock and look up", ("lock_and_look_up",)),
    ("decide", ("decide (", "Book.apply", "GroupTransaction._decide")),
    ("render the answer and the event", ("Rendering.answer", "events_of")),
    ("write", ("_write_group", "write (transferd")),
    ("begin and commit", ("Database.begun", "_give_back")),
    ("cache", ("Committer._refresh", "Wallets.refresh")),
    (
        "reply",
        (
            *("answered (", "Committer._answer", "Envelope.settle"),
            *("Connection._answer", "Connection.write", "Reply."),
        ),
    ),
    ("metrics", ("Facts.emit",)),
)
# For samples without a stage: the event loop reads the answers of servers outside of the calls that
# wait for them.
_LIBRARIES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("read answers of PostgreSQL", ("asyncpg", "BaseProtocol", "protocol.c", "recordobj")),
    ("read answers of Redis", ("redis/", "hiredis")),
)
_REST = "event loop and sockets"


def stage_of(stack: str) -> str:
    """The stage of a sample: frames from the outermost to the innermost, separated by `;`."""
    frames = stack.split(";")[::-1]
    for named in (STAGES, _LIBRARIES):
        for frame in frames:
            for name, parts in named:
                if any(part in frame for part in parts):
                    return name
    return _REST


def shares(samples: Path) -> dict[str, float]:
    """The share of each stage in a recording of py-spy (format `raw`)."""
    counts: Counter[str] = Counter()
    for line in samples.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        counts[stage_of(stack)] += int(count)
    total = counts.total()
    if not total:
        raise click.ClickException("py-spy made no samples; it may have to run as root")
    names = [name for name, _ in (*STAGES, *_LIBRARIES)]
    return {name: counts[name] / total for name in (*names, _REST)}


@click.command()
@click.option("--seconds", default=10.0, show_default=True, help="The duration of the sampling.")
@click.option("--connections", default=128, show_default=True, type=click.IntRange(1))
def main(seconds: float, connections: int) -> None:
    """Print the CPU time of a transfer by stage, in microseconds."""
    if shutil.which("py-spy") is None:
        raise click.ClickException("py-spy is missing: pip install 'transferd[bench]'")
    uvloop.run(_profile(seconds, connections))


async def _profile(seconds: float, connections: int) -> None:
    async with bench_setup() as setup:
        side = await setup.add(Side("transferd", SERVICE), wallets=WALLETS)
        rate, cpu_us = await _cost(setup, side, seconds, connections)
        found = await _sampled(setup, side, seconds, connections)
    click.echo(f"{rate:,.0f} transfers/s, {cpu_us:.0f} us of CPU in the service for each:\n")
    for name, share in found.items():
        click.echo(f"  {name:<34}{share * cpu_us:6.1f} us  {share:5.0%}")


async def _cost(setup: Setup, side: Side, seconds: float, connections: int) -> tuple[float, float]:
    """Transfers per second, and microseconds of CPU for each, without py-spy."""
    before, cpu_s = await side.committed(), side.running.cpu_s
    rate = await _load(setup, side, seconds, connections)
    transfers = await side.committed() - before
    return rate, (side.running.cpu_s - cpu_s) / max(1, transfers) * 1e6


async def _load(setup: Setup, side: Side, seconds: float, connections: int) -> float:
    return await load.transfers_per_s(
        side, "transfers.lua", uniform_pairs(setup), seconds=seconds, connections=connections
    )


async def _sampled(setup: Setup, side: Side, seconds: float, connections: int) -> dict[str, float]:
    samples = setup.directory / "samples"
    # py-spy stops the service for every sample of C code, so the load must last longer.
    loading = asyncio.create_task(_load(setup, side, seconds + 2 * _MARGIN_S, connections))
    await asyncio.sleep(_MARGIN_S)
    await load.output_of(
        *("py-spy", "record", "--native", "--pid", str(side.running.pid)),
        *("--rate", str(_SAMPLES_PER_S), "--duration", str(max(1, round(seconds)))),
        *("--format", "raw", "--output", str(samples)),
    )
    await loading
    return shares(samples)


if __name__ == "__main__":
    main()
