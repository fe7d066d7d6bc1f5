"""`transferd ledgers move`: moves a ledger to another node of Citus."""

from collections.abc import Callable

import click
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

from transferd.cli.running import run, settings_of, until_stopped
from transferd.config import Settings
from transferd.ledger.moves import Move, opened


@click.command("move")
@click.argument("name")
@click.argument("node")
@click.option(
    "--block-writes",
    is_flag=True,
    help="Faster, but writes of the ledger wait until the end, and many are refused.",
)
def move_command(name: str, node: str, *, block_writes: bool) -> None:
    """Move a ledger to another node of Citus: NODE is HOST:PORT, or HOST.

    Reads of the ledger go on, and all other ledgers too. Connects to PostgreSQL without a pooler.
    """
    run(until_stopped(_move(settings_of(), name, node, block_writes)))


async def _move(settings: Settings, name: str, node: str, block_writes: bool) -> int:
    async with opened(settings, settings.limits_of()) as mover:
        move = await mover.plan(name, node)
        click.echo(_costs(move, block_writes=block_writes))
        with Progress(
            TextColumn("copied"),
            BarColumn(),
            DownloadColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        ) as progress:
            moved = await mover.run(move, block_writes=block_writes, report=_reporter(progress))
    click.echo(
        f"the ledger {name} is on {move.target}: the move took {moved.took_s:.1f} s, and a write"
        f" waited for at most {moved.write_waited_s:.2f} s"
    )
    return 0


def _costs(move: Move, *, block_writes: bool) -> str:
    writes = (
        "its writes wait until the end"
        if block_writes
        else "its writes go on, and wait for about a second at the end"
    )
    return (
        f"moving the ledger {move.ledger.name} ({decimal(move.size)}) from {move.source} to"
        f" {move.target}: its reads go on, {writes}. Until the end both nodes have a copy, and no"
        " new connection of the service has a limit on statements."
    )


def _reporter(progress: Progress) -> Callable[[int, int], None]:
    task = progress.add_task("copied", total=None)
    return lambda done, total: progress.update(task, completed=done, total=total)
