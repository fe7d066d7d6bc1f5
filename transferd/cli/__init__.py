"""The commands of `transferd`. A command that cannot run prints the reason in one line."""

import click

from transferd.cli.dead_letters import dead_letters
from transferd.cli.dev import dev
from transferd.cli.keys import keys
from transferd.cli.ledger import audit_command, migrate_command
from transferd.cli.serving import serve, worker


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="transferd")
def main() -> None:
    """A wallet and money-transfer service on PostgreSQL."""


for command in (dev, serve, worker, migrate_command, audit_command, keys, dead_letters):
    main.add_command(command)
