"""The commands of `transferd`. A command that cannot run prints the reason in one line."""

from importlib import import_module

import click

# The module and the function of each command.
_COMMANDS = {
    "dead-letters": ("dead_letters", "dead_letters"),
    "dev": ("dev", "dev"),
    "keys": ("keys", "keys"),
    "ledgers": ("ledgers", "ledgers"),
    "migrate": ("migrating", "migrate_command"),
    "serve": ("serving", "serve"),
    "worker": ("worker", "worker"),
}


class _Commands(click.Group):
    """Imports only the command that runs: to import all of them takes twice as long."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name, or None."""
        if cmd_name not in _COMMANDS:
            return None
        module, function = _COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(f"transferd.cli.{module}"), function)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="transferd")
def main() -> None:
    """A wallet and money-transfer service on PostgreSQL."""
