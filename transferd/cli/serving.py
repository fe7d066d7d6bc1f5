"""`transferd serve`: one replica, or several under a supervisor."""

import click

from transferd.cli.running import (
    first_exit,
    raise_open_files_limit,
    run,
    settings_of,
    tune_garbage_collection,
    until_stopped,
)
from transferd.cli.supervisor import Supervisor, wait_for_supervisor_end
from transferd.config import Settings
from transferd.observability.logging import configure
from transferd.service import open_replica


@click.command()
@click.option(
    "--processes",
    default=1,
    show_default=True,
    type=click.IntRange(1, 64),
    help="Replicas, on consecutive ports from TRANSFERD_PORT. SIGHUP restarts them one by one.",
)
@click.option("--supervised", is_flag=True, hidden=True)
def serve(*, processes: int, supervised: bool) -> None:
    """Serve the API. The environment gives the addresses of the servers."""
    settings = settings_of()
    if processes > 1:
        run(until_stopped(_supervise(settings, processes)))
    else:
        run(until_stopped(_serve(settings, supervised=supervised)))


async def _supervise(settings: Settings, processes: int) -> int:
    return await Supervisor(settings, settings.limits_of(), processes).run()


async def _serve(settings: Settings, *, supervised: bool) -> int:
    configure(settings.log_level)
    if settings.auth == "off":
        click.echo(
            "TRANSFERD_AUTH=off: every caller who reaches this port has all rights", err=True
        )
    limits = settings.limits_of()
    raise_open_files_limit(limits.connections_max + limits.files_kept_back)
    async with open_replica(settings, limits) as replica:
        tune_garbage_collection()
        watches = [replica.first_exit]
        if supervised:
            watches.append(_supervisor_end)
        click.echo(f"stopping: {await first_exit(*watches)}", err=True)
    return 1


async def _supervisor_end() -> str:
    await wait_for_supervisor_end()
    return "the supervisor has ended"
