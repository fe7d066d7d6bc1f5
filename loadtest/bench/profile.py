"""CPU time of a transfer by stage: `python -m loadtest.bench.profile`.

py-spy samples the service under load 200 times per second, including its C code. Each sample
belongs to a stage of a transfer. The cost of a stage is its share of the samples times the CPU time
of the service per committed transfer.
"""

import asyncio
import shutil
from collections import Counter
from pathlib import Path

import click
import uvloop

from loadtest.bench import load
from loadtest.bench.measures import WALLETS, uniform_pairs
from loadtest.bench.scene import SERVICE, Scene, Side, scene

_SAMPLES_PER_S = 200
# The load begins earlier than the samples, and ends later.
_MARGIN_S = 1.5

# The innermost frame that matches decides the stage of a sample. The stages are in the order of a
# request, from the socket to the commit and back.
STAGES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "HTTP parse and route",
        (
            *("RequestHandler.data_received", "RequestHandler.start", "BaseRequest.__init__"),
            *("Protocol.data_received", "make_request", "_http_parser_cb", "llhttp"),
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
    ("begin and commit", ("Database.transaction", "_give_back")),
    ("cache", ("Committer._refresh", "Wallets.refresh")),
    (
        "reply",
        (
            *("answered (", "Committer._answer", "Envelope.settle"),
            *("RequestHandler.finish_response", "Reply."),
        ),
    ),
    ("metrics", ("Facts.emit",)),
)
# For samples without a stage: answers of servers arrive outside of the calls that wait for them.
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
@click.option("--seconds", default=10.0, show_default=True, help="The duration of the samples.")
@click.option("--connections", default=128, show_default=True, type=click.IntRange(1))
def main(seconds: float, connections: int) -> None:
    """Print the microseconds of a transfer by stage."""
    if shutil.which("py-spy") is None:
        raise click.ClickException("py-spy is missing: pip install 'transferd[bench]'")
    uvloop.run(_profile(seconds, connections))


async def _profile(seconds: float, connections: int) -> None:
    async with scene() as place:
        side = await place.add(Side("transferd", SERVICE), wallets=WALLETS)
        rate, cpu_us = await _cost(place, side, seconds, connections)
        found = await _sampled(place, side, seconds, connections)
    click.echo(f"{rate:,.0f} transfers/s, {cpu_us:.0f} us of CPU in the service for each:\n")
    for name, share in found.items():
        click.echo(f"  {name:<34}{share * cpu_us:6.1f} us  {share:5.0%}")


async def _cost(place: Scene, side: Side, seconds: float, connections: int) -> tuple[float, float]:
    """Transfers per second, and microseconds of CPU for each, without py-spy."""
    before, cpu_s = await side.committed(), side.running.cpu_s
    rate = await _load(place, side, seconds, connections)
    transfers = await side.committed() - before
    return rate, (side.running.cpu_s - cpu_s) / max(1, transfers) * 1e6


async def _load(place: Scene, side: Side, seconds: float, connections: int) -> float:
    return await load.transfers_per_s(
        side, "transfers.lua", uniform_pairs(place), seconds=seconds, connections=connections
    )


async def _sampled(place: Scene, side: Side, seconds: float, connections: int) -> dict[str, float]:
    samples = place.directory / "samples"
    # py-spy stops the service for every sample of C code, so the load must last longer.
    loading = asyncio.create_task(_load(place, side, seconds + 2 * _MARGIN_S, connections))
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
