"""Commands about the database: migrate and audit."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict

import click
from rich import box
from rich.console import Console
from rich.progress import TaskID
from rich.table import Column, Table
from rich.text import Text

from transferd.cli.running import print_table, progress_bars, run, settings_of
from transferd.config import Settings
from transferd.domain.ledger import MAIN
from transferd.ledger.audit import Finding, audit
from transferd.ledger.migrate import migrate
from transferd.ledger.store.database import Database


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


@click.command("audit")
@click.option("--json", "as_json", is_flag=True, help="Print the findings and counts as JSON.")
def audit_command(*, as_json: bool) -> None:
    """Check that every balance follows from its history. Exits with 1 if there are findings."""
    run(_audit(settings_of(), as_json))


async def _audit(settings: Settings, as_json: bool) -> int:
    limits = settings.limits_of()
    progress = progress_bars(Console(stderr=True))
    rows: dict[str, TaskID] = {}
    counts: dict[str, int] = {}
    with ExitStack() as exits:

        def report_progress(step: str, done: int, total: int) -> None:
            if not rows:  # an audit that cannot start shows no progress
                exits.enter_context(progress)
            if step not in rows:
                rows[step] = progress.add_task(step, total=total)
            progress.update(rows[step], completed=done, total=total)
            counts[step] = total

        async with Database(settings, limits, connections=1) as database:
            findings = await audit(database.of(MAIN), report_progress, limits)
    if as_json:
        listed = [asdict(finding) for finding in findings]
        click.echo(json.dumps(counts | {"findings": listed}, indent=2))
    elif findings:
        _print_findings(findings)
    else:
        click.echo(
            f"no findings: {counts['wallets']} wallets, {counts['transfers']} transfers,"
            f" {counts['outcomes']} outcomes"
        )
    return 1 if findings else 0


def _print_findings(findings: Sequence[Finding]) -> None:
    table = Table("check", "subject", Column("detail", overflow="fold"), box=box.SIMPLE_HEAD)
    for finding in findings:
        # As Text: a damaged row may hold characters that are markup for rich.
        table.add_row(*(Text(cell) for cell in (finding.check, finding.subject, finding.detail)))
    print_table(table)
