"""`transferd dead-letters`: list, show, redrive or purge undeliverable notifications."""

import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from transferd.cli.running import print_table, progress_bars, run, settings_of
from transferd.config import Settings
from transferd.domain.webhook import EVENT_TYPES
from transferd.ledger.store.database import Database, LedgerDatabase
from transferd.ledger.store.dead_letters import (
    DeadLetter,
    Filter,
    count_dead_letters,
    fold_dead_letters,
    list_dead_letters,
)
from transferd.ledger.store.ledgers import read_ledger
from transferd.notifications.dead_letters import Progress, purge, redrive

_UUID = click.UUID


@click.group("dead-letters")
def dead_letters() -> None:
    """Undeliverable notifications: list, show, redrive, purge."""


_of_ledger = click.option(
    "--ledger", metavar="NAME", help="Ledger of the dead letters. Default: TRANSFERD_LEDGER."
)


def _filtered(command: Callable[..., None]) -> Callable[..., None]:
    """The options that select dead letters."""
    for option in (
        _of_ledger,
        click.option("--endpoint", type=_UUID, help="Only dead letters of this webhook."),
        click.option(
            "--type", "event_type", type=click.Choice(EVENT_TYPES), help="Only events of this type."
        ),
        click.option(
            "--reason",
            type=click.Choice(["attempts exhausted", "endpoint gone", "undeliverable"]),
            help="Only dead letters with this reason.",
        ),
        click.option(
            "--older-than",
            "hours",
            type=click.FloatRange(min=0),
            help="Only dead letters older than this many hours.",
        ),
    ):
        command = option(command)
    return command


def _filter_of(
    endpoint: object, event_type: str | None, reason: str | None, hours: float | None
) -> Filter:
    try:
        before = None if hours is None else datetime.now(UTC) - timedelta(hours=hours)
    except (ValueError, OverflowError) as error:
        raise click.BadParameter("is out of range", param_hint="--older-than") from error
    return Filter(None if endpoint is None else str(endpoint), event_type, reason, before)


@dead_letters.command("list")
@_filtered
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
def list_command(*, ledger: str | None, limit: int, as_json: bool, **chosen: Any) -> None:
    """List dead letters, oldest first."""
    run(_list(_settings(ledger), _filter_of(**chosen), limit, as_json))


async def _list(settings: Settings, wanted: Filter, limit: int, as_json: bool) -> int:
    async with _opened(settings) as database:
        await fold_dead_letters(database)
        letters = await list_dead_letters(database, wanted, after_id=None, limit=limit)
        total = await count_dead_letters(database, wanted)
    if as_json:
        for letter in letters:
            click.echo(json.dumps(_view(letter)))
        return 0
    table = Table("id", "died at", "event", "endpoint", "attempts", Column("why", overflow="fold"))
    table.box = box.SIMPLE_HEAD
    for letter in letters:
        view = _view(letter)
        why = f"{letter.reason}: {letter.detail}"
        names = ("id", "died_at", "event_type", "endpoint_id", "attempts")
        cells = ["-" if view[name] is None else str(view[name]) for name in names]
        table.add_row(*(Text(cell) for cell in (*cells, why)))
    if letters:
        print_table(table)
    click.echo(f"{len(letters)} of {total} dead letters")
    return 0


@dead_letters.command("show")
@click.argument("id", type=_UUID)
@_of_ledger
def show_command(*, id: object, ledger: str | None) -> None:
    """Show one dead letter with its message."""
    run(_show(_settings(ledger), str(id)))


async def _show(settings: Settings, id: str) -> int:
    async with _opened(settings) as database:
        await fold_dead_letters(database)
        letters = await list_dead_letters(database, Filter(ids=[id]), after_id=None, limit=1)
    if not letters:
        raise click.ClickException(f"there is no dead letter {id}")
    view = _view(letters[0])
    body = letters[0].body.decode(errors="replace")
    try:
        view["message"] = json.loads(body)
    except ValueError:
        view["message"] = body
    click.echo(json.dumps(view, indent=2))
    return 0


@dead_letters.command("redrive")
@click.argument("ids", nargs=-1, type=_UUID)
@_filtered
@click.option("--all", "everything", is_flag=True, help="All that match the other options.")
def redrive_command(
    *, ledger: str | None, ids: tuple[object, ...], everything: bool, **chosen: Any
) -> None:
    """Send dead letters again, each to its endpoint."""
    wanted = _chosen(ids, everything, chosen)
    run(_redrive(_settings(ledger), wanted))


async def _redrive(settings: Settings, wanted: Filter) -> int:
    async def work(database: LedgerDatabase, progress: Progress) -> str:
        sent, kept = await redrive(database, wanted, progress)
        rest = f"; {kept} kept: not an event, or the webhook was deleted" if kept else ""
        return f"{sent} redriven{rest}"

    return await _with_progress(settings, "redriving", work)


@dead_letters.command("purge")
@click.argument("ids", nargs=-1, type=_UUID)
@_filtered
@click.option("--all", "everything", is_flag=True, help="All that match the other options.")
@click.confirmation_option(prompt="Purged dead letters cannot be restored. Purge?")
def purge_command(
    *, ledger: str | None, ids: tuple[object, ...], everything: bool, **chosen: Any
) -> None:
    """Delete dead letters. This cannot be undone."""
    wanted = _chosen(ids, everything, chosen)
    run(_purge(_settings(ledger), wanted))


async def _purge(settings: Settings, wanted: Filter) -> int:
    async def work(database: LedgerDatabase, progress: Progress) -> str:
        return f"{await purge(database, wanted, progress)} purged"

    return await _with_progress(settings, "purging", work)


def _chosen(ids: tuple[object, ...], everything: bool, chosen: dict[str, Any]) -> Filter:
    """The filter for ids, or for options. Without both, `--all` is required."""
    is_filtered = any(value is not None for value in chosen.values())
    if bool(ids) + (everything or is_filtered) != 1:
        raise click.UsageError("give ids, or filter options, or --all")
    return _filter_of(**chosen)._replace(ids=[str(id) for id in ids] or None)


async def _with_progress(
    settings: Settings,
    title: str,
    work: Callable[[LedgerDatabase, Progress], Coroutine[Any, Any, str]],
) -> int:
    async with _opened(settings) as database:
        with progress_bars(Console(stderr=True)) as bars:
            bar = bars.add_task(title, total=None)
            summary = await work(
                database, lambda done, total: bars.update(bar, completed=done, total=total)
            )
    click.echo(summary)
    return 0


def _settings(ledger: str | None) -> Settings:
    """The settings, with the ledger that the command names."""
    return settings_of() if ledger is None else settings_of(ledger=ledger)


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[LedgerDatabase]:
    """The ledger of the settings. Raises ConfigurationError if there is none with that name."""
    async with Database(settings, settings.limits_of(), connections=1) as database:
        yield database.of(await read_ledger(database, settings.ledger))


def _view(letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": letter.id,
        "died_at": letter.died_at.isoformat(),
        "event_id": letter.event_id,
        "event_type": letter.event_type,
        "endpoint_id": letter.endpoint_id,
        "attempts": letter.attempts,
        "reason": letter.reason,
        "detail": letter.detail,
    }
