"""Runs commands: signals shut them down in order, and expected errors print one line."""

import asyncio
import gc
import resource
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import aiohttp
import click
import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from transferd.config import ConfigurationError, Settings, load_settings
from transferd.devstack import StackError
from transferd.ledger.steps import MigrationError
from transferd.ledger.store.errors import StoreError

# Wider than any row, so that each row of a table in a file or a pipe is one line.
_WIDTH_OF_A_PIPE = 10_000
_EXPECTED = (ConfigurationError, StackError, MigrationError, StoreError, aiohttp.ClientError)


def run(main: Coroutine[Any, Any, int]) -> None:
    """Run to the end and exit. An expected error prints one line and no stack trace."""
    try:
        sys.exit(uvloop.run(main))
    except _EXPECTED as error:
        raise click.ClickException(_line(error)) from error
    except BaseExceptionGroup as group:
        expected, unexpected = group.split(_EXPECTED)
        if expected is None or unexpected is not None:
            raise
        raise click.ClickException(_line(_first_leaf(expected))) from group


def _line(error: BaseException) -> str:
    # The messages of the driver do not name the server.
    return f"PostgreSQL: {error}" if isinstance(error, StoreError) else str(error)


def _first_leaf(group: BaseExceptionGroup[Any]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def settings_of(**overrides: object) -> Settings:
    """The settings. An error in them prints one line and ends the command."""
    try:
        return load_settings(**overrides)
    except ConfigurationError as error:
        raise click.ClickException(str(error)) from error


async def until_stopped(work: Coroutine[Any, Any, int]) -> int:
    """Do the work until it ends by itself, or until SIGINT or SIGTERM; its exit code, or 0.

    The handlers are installed first, so Ctrl-C during the start also stops in order: the work is
    cancelled, and stops everything that it has started.
    """
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, asked.set)
    task = asyncio.ensure_future(work)
    asking = asyncio.ensure_future(asked.wait())
    await asyncio.wait((task, asking), return_when=asyncio.FIRST_COMPLETED)
    asking.cancel()
    if task.done():
        return task.result()
    click.echo("stopping: signal received", err=True)
    # Each further Ctrl-C cancels the current wait of the shutdown.
    loop.add_signal_handler(signal.SIGINT, task.cancel)
    task.cancel()
    try:
        return await task
    except asyncio.CancelledError:
        return 0


async def first_exit(*watches: Callable[[], Awaitable[str]]) -> str:
    """Wait for the first watch to end; returns its line for the log."""
    tasks = [asyncio.ensure_future(watch()) for watch in watches]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return done.pop().result()
    finally:
        for task in tasks:
            task.cancel()


def tune_garbage_collection() -> None:
    """Exclude the objects made at start from garbage collection, and collect rarely.

    Requests and messages leave almost no cycles, but each allocates: with the default thresholds
    the collector walks all live objects about a hundred times a second (8 % of the time).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def raise_open_files_limit(wanted: int) -> None:
    """Raise the limit of open files to `wanted`, or to the most that the system allows.

    Most shells and init systems start programs with a limit of 1,024 that can be raised.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def print_table(table: Table) -> None:
    """Print to standard output; in a file or a pipe each row is one line."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(width=_WIDTH_OF_A_PIPE, highlight=False)
    console.print(table)


def progress_bars(console: Console, *, transient: bool = False) -> Progress:
    """One bar per step, with the number done, the total and the elapsed time.

    transient: the bars disappear at the end.
    """
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=transient,
    )
