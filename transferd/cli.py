"""The commands: dev, serve, migrate, audit. A command that cannot run says why in one line."""

import asyncio
import json
import re
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import aiohttp
import click
import uvloop
from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Column, Table
from rich.text import Text

from transferd import demo
from transferd.config import ConfigurationError, Limits, Settings, load_settings
from transferd.devstack import DevStack, StackError
from transferd.ledger.audit import Finding, audit
from transferd.ledger.migrate import MigrationError, migrate
from transferd.ledger.store.database import Database
from transferd.ledger.store.errors import StoreError
from transferd.observability.logging import configure
from transferd.service import open_replica

_EXPECTED = (ConfigurationError, StackError, MigrationError, StoreError, aiohttp.ClientError)


def _run(main: Coroutine[Any, Any, int]) -> None:
    """Run to the end and exit; what is expected to go wrong is one line, not a stack trace."""
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
    # The driver's own words do not say which server they are about.
    return f"PostgreSQL: {error}" if isinstance(error, StoreError) else str(error)


def _first_leaf(group: BaseExceptionGroup[Any]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _settings(**overrides: object) -> Settings:
    """The settings; what is wrong with them is one line as well."""
    try:
        return load_settings(**overrides)
    except ConfigurationError as error:
        raise click.ClickException(str(error)) from error


async def _until_stopped(work: Coroutine[Any, Any, int]) -> int:
    """Do the work until it ends by itself, or until SIGINT or SIGTERM; its exit code, or 0.

    The handlers come first, so that a Ctrl-C during the start stops in order as well: the work is
    cancelled, and whatever it had started by then is stopped on the way out.
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
    click.echo("stopping: asked to", err=True)
    # Whoever presses Ctrl-C again does not want to wait: each cuts short what is waited for then.
    loop.add_signal_handler(signal.SIGINT, task.cancel)
    task.cancel()
    try:
        return await task
    except asyncio.CancelledError:
        return 0


async def _first_exit(*watches: Callable[[], Awaitable[str]]) -> str:
    """Wait for one of the watches: the line that says what has ended."""
    tasks = [asyncio.ensure_future(watch()) for watch in watches]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return done.pop().result()
    finally:
        for task in tasks:
            task.cancel()


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="transferd")
def main() -> None:
    """A wallet and money-transfer service on PostgreSQL."""


@main.command()
@click.option("--ephemeral", is_flag=True, help="Throw all data away at the end.")
@click.option("--demo", "with_demo", is_flag=True, help="Fill in users, wallets and transfers.")
def dev(*, ephemeral: bool, with_demo: bool) -> None:
    """Start everything needed on this machine, without API keys, on loopback only."""
    settings = _settings(auth="off", host="127.0.0.1")
    _run(_until_stopped(_dev(settings, ephemeral, with_demo)))


async def _dev(settings: Settings, ephemeral: bool, with_demo: bool) -> int:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    limits = Limits()
    configure("WARNING" if settings.log_level == "INFO" else settings.log_level)
    async with AsyncExitStack() as exits:
        stack = await exits.enter_async_context(
            DevStack(
                Path(settings.data_dir),
                ephemeral=ephemeral,
                database_url=settings.database_url,
                redis_url=settings.redis_url,
                amqp_url=settings.amqp_url,
                report=console.print,
            )
        )
        settings = settings.model_copy(
            update={"database_url": stack.database_url, "redis_url": stack.redis_url}
        )
        for name in await migrate(settings, limits):
            console.print(f"applied {name}")
        # Nothing proxies a local run, so no connection has to be lingered for.
        replica = await exits.enter_async_context(
            open_replica(settings, limits, drain_linger_s=0.0)
        )
        ending = asyncio.ensure_future(_first_exit(stack.first_exit, replica.first_exit))
        if with_demo:
            await _unless(ending, _fill(replica.url, console))
        if not ending.done():
            _welcome(console, replica.url, stack)
        console.print(f"stopping: {await ending}", style="red")
    return 1


async def _unless(ending: asyncio.Future[str], work: Coroutine[Any, Any, None]) -> None:
    """Do the work, but give it up when something it needs has ended."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait((task, ending), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )


async def _fill(url: str, console: Console) -> None:
    with _progress(console) as progress:
        rows = {
            step: progress.add_task(step, total=None) for step in ("users", "wallets", "transfers")
        }
        await demo.fill(
            url,
            lambda step, done, total: progress.update(rows[step], completed=done, total=total),
        )


def _masked(url: str) -> str:
    """The address of a server that is not ours, without its password."""
    return re.sub(r"(?<=:)[^:@/]+(?=@)", "***", url)


def _welcome(console: Console, url: str, stack: DevStack) -> None:
    amqp = "none: events wait in the outbox"
    if stack.amqp_url is not None:
        amqp = stack.amqp_url if stack.rabbitmq else _masked(stack.amqp_url)
    console.print(
        f"""
[bold]transferd is ready at {url}[/bold]
  documentation  {url}/docs
  metrics        {url}/metrics
  PostgreSQL     {stack.database_url if stack.postgres else _masked(stack.database_url)}
  Redis          {stack.redis_url if stack.redis else _masked(stack.redis_url)}
  RabbitMQ       {amqp}
  data           {stack.directory}

Try it (copy and paste into another terminal):

  new() {{ python3 -c 'import sys, json; print(json.load(sys.stdin)["id"])'; }}
  json='Content-Type: application/json'
  ada=$(curl -s {url}/users -H "$json" -d '{{"name": "Ada"}}' | new)
  a=$(curl -s {url}/wallets -H "$json" -H "Idempotency-Key: $RANDOM-a" \\
      -d '{{"user_id": "'$ada'", "currency": "USD", "initial_balance": 10000}}' | new)
  b=$(curl -s {url}/wallets -H "$json" -d '{{"user_id": "'$ada'", "currency": "USD"}}' | new)
  curl -sw '\\n' {url}/transfers -H "$json" -H "Idempotency-Key: lunch-$RANDOM" \\
      -d '{{"source_wallet_id": "'$a'", "destination_wallet_id": "'$b'",
           "amount": 2500, "currency": "USD"}}'
  curl -sw '\\n' {url}/wallets/$b
  curl -sw '\\n' {url}/wallets/$a/statement

Ctrl-C stops everything.""",
        markup=True,
    )


@main.command()
def serve() -> None:
    """Serve the API on one port, with the servers that the environment names."""
    _run(_until_stopped(_serve(_settings())))


async def _serve(settings: Settings) -> int:
    configure(settings.log_level)
    if settings.auth == "off":
        click.echo(
            "TRANSFERD_AUTH=off: everybody who reaches this port may do everything", err=True
        )
    async with open_replica(settings, Limits()) as replica:
        click.echo(f"stopping: {await replica.first_exit()}", err=True)
    return 1


@main.command("migrate")
def migrate_command() -> None:
    """Bring the database up to date. Safe when several start at once."""
    _run(_migrate(_settings()))


async def _migrate(settings: Settings) -> int:
    applied = await migrate(settings, Limits())
    click.echo("\n".join(f"applied {name}" for name in applied) or "the database is up to date")
    return 0


@main.command("audit")
@click.option("--json", "as_json", is_flag=True, help="Print the findings and counts as JSON.")
def audit_command(*, as_json: bool) -> None:
    """Prove that every balance follows from its history. Exits with 1 where one does not."""
    _run(_audit(_settings(), as_json))


async def _audit(settings: Settings, as_json: bool) -> int:
    limits = Limits()
    progress = _progress(Console(stderr=True))
    rows: dict[str, TaskID] = {}
    counts: dict[str, int] = {}
    with ExitStack() as exits:

        def report_progress(step: str, done: int, total: int) -> None:
            if not rows:  # an audit that cannot even begin shows no progress
                exits.enter_context(progress)
            if step not in rows:
                rows[step] = progress.add_task(step, total=total)
            progress.update(rows[step], completed=done, total=total)
            counts[step] = total

        async with Database(settings, limits, connections=1) as database:
            findings = await audit(database, report_progress, limits)
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


_WIDTH_OF_A_PIPE = 10_000


def _print_findings(findings: Sequence[Finding]) -> None:
    table = Table("check", "subject", Column("detail", overflow="fold"), box=box.SIMPLE_HEAD)
    for finding in findings:
        # As text: what stands in a damaged row is not markup.
        table.add_row(*(Text(cell) for cell in (finding.check, finding.subject, finding.detail)))
    # Into a file or a pipe every finding goes on one line.
    width = None if sys.stdout.isatty() else _WIDTH_OF_A_PIPE
    Console(width=width, highlight=False).print(table)
