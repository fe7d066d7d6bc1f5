"""`transferd worker`: publishes events and delivers notifications."""

from typing import Literal

import click

from transferd.cli.running import run, settings_of, tune_garbage_collection, until_stopped
from transferd.config import Settings
from transferd.observability.logging import configure
from transferd.worker import open_worker


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
