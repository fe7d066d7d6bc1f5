"""The long-running commands: serve and worker."""

from typing import Literal

import click

from transferd.cli.running import run, settings_of, spare_the_collector, until_stopped
from transferd.config import Limits, Settings
from transferd.observability.logging import configure
from transferd.service import open_replica
from transferd.worker import open_worker


@click.command()
def serve() -> None:
    """Serve the API on one port, with the servers that the environment names."""
    run(until_stopped(_serve(settings_of())))


async def _serve(settings: Settings) -> int:
    configure(settings.log_level)
    if settings.auth == "off":
        click.echo(
            "TRANSFERD_AUTH=off: everybody who reaches this port may do everything", err=True
        )
    async with open_replica(settings, Limits()) as replica:
        spare_the_collector()
        click.echo(f"stopping: {await replica.first_exit()}", err=True)
    return 1


@click.command()
@click.option(
    "--only",
    type=click.Choice(["relay", "notifier"]),
    help="Publish the outbox, or deliver notifications, and leave the other to another worker.",
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
    async with open_worker(settings, Limits(), only=only) as working:
        spare_the_collector()
        click.echo(f"ready when {working.url}/readyz says so", err=True)
        click.echo(f"stopping: {await working.first_exit()}", err=True)
    return 1
