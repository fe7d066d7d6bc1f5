"""The commands of `transferd`. A command that cannot run prints the reason in one line."""

import click


class _Commands(click.Group):
    """Imports only the command that runs: to import all of them takes up to three times as long."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands."""
        return ["audit", "dead-letters", "dev", "keys", "migrate", "serve", "worker"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name, or None."""
        match cmd_name:
            case "audit":
                from transferd.cli.ledger import audit_command

                return audit_command
            case "dead-letters":
                from transferd.cli.dead_letters import dead_letters

                return dead_letters
            case "dev":
                from transferd.cli.dev import dev

                return dev
            case "keys":
                from transferd.cli.keys import keys

                return keys
            case "migrate":
                from transferd.cli.ledger import migrate_command

                return migrate_command
            case "serve":
                from transferd.cli.serving import serve

                return serve
            case "worker":
                from transferd.cli.worker import worker

                return worker
            case _:
                return None


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="transferd")
def main() -> None:
    """A wallet and money-transfer service on PostgreSQL."""
