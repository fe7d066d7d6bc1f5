"""The long-running commands: serve and worker."""

from typing import Literal

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
from transferd.worker import open_worker


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


@click.command()
@click.option(
    "--only",
    type=click.Choice(["relay", "notifier"]),
    help="Only publish the outbox, or only deliver notifications; another worker does the other.",
)
def worker(*, only: Literal["relay", "notifier"] | None) -> None:
    """Publish events to RabbitMQ and deliver them to webhooks."""
    run(until_stopped(_work(settings_of(), only)))


async def _work(settings: Settings, only: Literal["relay", "notifier"] | None) -> int:
    configure(settings.log_level)
    settings.required("amqp_url")
    if settings.notify_fail_rate:
        click.echo(
            f"TRANSFERD_NOTIFY_FAIL_RATE={settings.notify_fail_rate}: failures are simulated",
            err=True,
        )
    async with open_worker(settings, settings.limits_of(), only=only) as working:
        tune_garbage_collection()
        click.echo(f"ready when {working.url}/readyz answers 200", err=True)
        click.echo(f"stopping: {await working.first_exit()}", err=True)
    return 1
