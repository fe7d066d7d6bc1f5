"""`transferd migrate`."""

import click

from transferd.cli.running import run, settings_of
from transferd.config import Settings
from transferd.ledger.migrate import migrate


@click.command("migrate")
def migrate_command() -> None:
    """Apply pending migrations. Several processes may do so at the same time."""
    run(_migrate(settings_of()))


async def _migrate(settings: Settings) -> int:
    applied = await migrate(
        settings, settings.limits_of(), report=lambda why: click.echo(why, err=True)
    )
    click.echo("\n".join(f"applied {name}" for name in applied) or "the database is up to date")
    return 0
