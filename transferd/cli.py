"""The commands: dev, serve, migrate, audit. A command that cannot run says why in one line."""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import click
import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from transferd import demo
from transferd.config import ConfigurationError, Limits, Settings, load_settings
from transferd.devstack import DevStack, StackError
from transferd.ledger.migrate import MigrationError, migrate
from transferd.ledger.store.errors import StoreError
from transferd.observability.logging import configure
from transferd.service import open_replica

_EXPECTED = (ConfigurationError, StackError, MigrationError, StoreError)


def _run(main: Coroutine[Any, Any, int]) -> None:
    """Run to the end and exit; what is expected to go wrong is one line, not a stack trace."""
    try:
        sys.exit(uvloop.run(main))
    except _EXPECTED as error:
        raise click.ClickException(str(error)) from error
    except BaseExceptionGroup as group:
        expected, unexpected = group.split(_EXPECTED)
        if expected is None or unexpected is not None:
            raise
        raise click.ClickException(str(_first_leaf(expected))) from group


def _first_leaf(group: BaseExceptionGroup[Any]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _until_stopped(*watches: Callable[[], Awaitable[str]]) -> str | None:
    """Wait for SIGINT or SIGTERM (None), or for a watch: the line that says what has ended."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    tasks: list[asyncio.Future[Any]] = [asyncio.ensure_future(watch()) for watch in watches]
    tasks.append(asyncio.ensure_future(stopped.wait()))
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        ended = [task.result() for task in tasks[:-1] if task.done()]
        return str(ended[0]) if ended else None
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
    _run(_dev(load_settings(auth="off", host="127.0.0.1"), ephemeral, with_demo))


async def _dev(settings: Settings, ephemeral: bool, with_demo: bool) -> int:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    limits = Limits()
    configure("WARNING" if settings.log_level == "INFO" else settings.log_level)
    async with AsyncExitStack() as exits:
        # The handlers come first, so that a Ctrl-C during the start stops in order as well.
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
        if with_demo:
            await _fill(replica.url, console)
        _welcome(console, replica.url, stack)
        ended = await _until_stopped(stack.first_exit, replica.first_exit)
        console.print(f"stopping: {ended or 'asked to'}", style=None if ended is None else "red")
    return 0 if ended is None else 1


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


def _welcome(console: Console, url: str, stack: DevStack) -> None:
    amqp = stack.amqp_url or "none: events wait in the outbox"
    console.print(
        f"""
[bold]transferd is ready at {url}[/bold]
  documentation  {url}/docs
  metrics        {url}/metrics
  PostgreSQL     {stack.database_url}
  Redis          {stack.redis_url}
  RabbitMQ       {amqp}
  data           {stack.directory}

Try it (copy and paste into another terminal):

  new() {{ python3 -c 'import sys, json; print(json.load(sys.stdin)["id"])'; }}
  json='Content-Type: application/json'
  ada=$(curl -s {url}/users -H "$json" -d '{{"name": "Ada"}}' | new)
  a=$(curl -s {url}/wallets -H "$json" -H "Idempotency-Key: $RANDOM-a" \\
      -d '{{"user_id": "'$ada'", "currency": "USD", "initial_balance": 10000}}' | new)
  b=$(curl -s {url}/wallets -H "$json" -d '{{"user_id": "'$ada'", "currency": "USD"}}' | new)
  curl -s {url}/transfers -H "$json" -H "Idempotency-Key: lunch-$RANDOM" \\
      -d '{{"source_wallet_id": "'$a'", "destination_wallet_id": "'$b'",
           "amount": 2500, "currency": "USD"}}'
  curl -s {url}/wallets/$b
  curl -s {url}/wallets/$a/statement

Ctrl-C stops everything.""",
        markup=True,
    )


@main.command()
def serve() -> None:
    """Serve the API on one port, with the servers that the environment names."""
    _run(_serve(load_settings()))


async def _serve(settings: Settings) -> int:
    configure(settings.log_level)
    if settings.auth == "off":
        click.echo(
            "TRANSFERD_AUTH=off: everybody who reaches this port may do everything", err=True
        )
    async with open_replica(settings, Limits()) as replica:
        ended = await _until_stopped(replica.first_exit)
        if ended is not None:
            click.echo(f"stopping: {ended}", err=True)
    return 0 if ended is None else 1


@main.command("migrate")
def migrate_command() -> None:
    """Bring the database up to date. Safe when several start at once."""
    _run(_migrate(load_settings()))


async def _migrate(settings: Settings) -> int:
    applied = await migrate(settings, Limits())
    click.echo("\n".join(f"applied {name}" for name in applied) or "the database is up to date")
    return 0
