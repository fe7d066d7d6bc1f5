"""`transferd ledgers audit`."""

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

from transferd.cli.database import ledger_name, opened
from transferd.cli.running import print_table, progress_bars, run, settings_of
from transferd.config import ConfigurationError, Settings
from transferd.domain.ledger import Ledger
from transferd.ledger.audit import Finding, audit
from transferd.ledger.store.database import LedgerDatabase
from transferd.ledger.store.errors import StoreError
from transferd.ledger.store.ledgers import list_ledgers, read_ledger


def _ledger_names(
    context: click.Context, parameter: click.Parameter, names: tuple[str, ...]
) -> list[str]:
    # Without duplicates, in the given order.
    return list(dict.fromkeys(ledger_name(context, parameter, name) for name in names))


@click.command("audit")
@click.argument("names", metavar="[NAME]...", nargs=-1, callback=_ledger_names)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per ledger and line.")
def audit_command(*, names: Sequence[str], as_json: bool) -> None:
    """Check that every balance follows from its history, in all ledgers or in those with a NAME.

    Each ledger is checked in a snapshot of its own. Exits with 1 if there are findings, or if a
    ledger cannot be read.
    """
    run(_audit(settings_of(), names, as_json))


async def _audit(settings: Settings, names: Sequence[str], as_json: bool) -> int:
    sound = 0
    async with opened(settings) as database:
        ledgers = [await read_ledger(database, name) for name in names] or [
            each.ledger for each in await list_ledgers(database)
        ]
        for done, ledger in enumerate(ledgers):
            run_of_ledger = _Run(ledger, done, len(ledgers))
            try:
                findings = await run_of_ledger.audit(database.of(ledger), settings)
            except (ConfigurationError, StoreError) as error:
                click.echo(f"Error: the ledger {ledger.name} cannot be read: {error}", err=True)
                continue
            _print(ledger, run_of_ledger.counts, findings, as_json)
            sound += not findings
    if len(ledgers) > 1 and not as_json:
        click.echo(f"{sound} of {len(ledgers)} ledgers without findings")
    return 0 if sound == len(ledgers) else 1


class _Run:
    """The audit of one ledger: its progress bars, and the counts of rows by step."""

    def __init__(self, ledger: Ledger, done: int, total: int) -> None:
        self.counts: dict[str, int] = {}
        self._ledger = ledger
        self._position = f" ({done + 1} of {total})" if total > 1 else ""
        self._console = Console(stderr=True)
        # They disappear at the end, because there may be thousands of ledgers.
        self._bars = progress_bars(self._console, transient=True)
        self._rows: dict[str, TaskID] = {}

    async def audit(self, database: LedgerDatabase, settings: Settings) -> list[Finding]:
        """Raises as `ledger.audit` does."""
        with ExitStack() as exits:

            def report_progress(step: str, done: int, total: int) -> None:
                # An audit that cannot start shows no progress, and no file or pipe gets it.
                if not self._rows and self._console.is_terminal:
                    exits.enter_context(self._bars)
                if step not in self._rows:
                    title = f"{self._ledger.name}{self._position}: {step}"
                    self._rows[step] = self._bars.add_task(title, total=total)
                self._bars.update(self._rows[step], completed=done, total=total)
                self.counts[step] = total

            return await audit(database, report_progress, settings.limits_of())


def _print(
    ledger: Ledger, counts: dict[str, int], findings: Sequence[Finding], as_json: bool
) -> None:
    if as_json:
        listed = [asdict(finding) for finding in findings]
        click.echo(json.dumps({"ledger": ledger.name, **counts, "findings": listed}))
        return
    number = f"{len(findings)} finding{'s' if len(findings) != 1 else ''}" if findings else ""
    click.echo(
        f"{ledger.name}: {number or 'no findings'}: {counts['wallets']} wallets,"
        f" {counts['transfers']} transfers, {counts['outcomes']} outcomes"
    )
    if findings:
        _print_findings(findings)


def _print_findings(findings: Sequence[Finding]) -> None:
    table = Table("check", "subject", Column("detail", overflow="fold"), box=box.SIMPLE_HEAD)
    for finding in findings:
        # As Text: a damaged row may hold characters that are markup for rich.
        table.add_row(*(Text(cell) for cell in (finding.check, finding.subject, finding.detail)))
    print_table(table)
