"""`transferd dev`: the service and all its servers on this machine."""

import asyncio
import re
from collections.abc import Coroutine
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from transferd import demo
from transferd.cli.running import (
    first_exit,
    progress_bars,
    run,
    settings_of,
    tune_garbage_collection,
    until_stopped,
)
from transferd.config import Settings
from transferd.devstack import DevStack
from transferd.ledger.migrate import migrate
from transferd.observability.facts import Fact, GroupCommitted
from transferd.observability.logging import configure
from transferd.service import Replica, listener_of, open_replica
from transferd.worker import open_worker


@click.command()
@click.option("--ephemeral", is_flag=True, help="Delete all data at the end.")
@click.option(
    "--demo", "with_demo", is_flag=True, help="Create example users, wallets and transfers."
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="Port of the API, instead of TRANSFERD_PORT or 8080; 0 takes a free one.",
)
def dev(*, ephemeral: bool, with_demo: bool, port: int | None) -> None:
    """Run the service and its servers on this machine, without API keys, on loopback only."""
    # No --host: without API keys every caller has all rights, so only this machine may connect.
    chosen = {} if port is None else {"port": port}
    settings = settings_of(auth="off", host="127.0.0.1", **chosen)
    run(until_stopped(_dev(settings, ephemeral, with_demo)))


async def _dev(settings: Settings, ephemeral: bool, with_demo: bool) -> int:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    limits = settings.limits_of()
    configure("WARNING" if settings.log_level == "INFO" else settings.log_level)
    async with AsyncExitStack() as exits:
        # Bound before the servers start, so that the command fails at once if the port is in use.
        listener = exits.enter_context(
            closing(listener_of(settings, limits, remedy="choose another port with --port"))
        )
        stack = await exits.enter_async_context(
            DevStack(
                Path(settings.data_dir),
                ephemeral=ephemeral,
                database_url=settings.database_url,
                redis_url=settings.redis_url,
                amqp_url=settings.amqp_url,
                report=console.print,
                limits=limits,
            )
        )
        settings = settings.model_copy(
            update={
                "database_url": stack.database_url,
                "redis_url": stack.redis_url,
                "amqp_url": stack.amqp_url,
                # Webhook receivers in development run on this machine, without a certificate.
                "webhook_allow_http": True,
                "webhook_allow_networks": settings.webhook_allow_networks or "127.0.0.0/8,::1/128",
            }
        )
        for name in await migrate(settings, limits, report=console.print):
            console.print(f"applied {name}")
        # A local run has no proxy that keeps connections open, so the drain need not linger.
        replica = await exits.enter_async_context(
            open_replica(settings, limits, listener=listener, drain_linger_s=0.0)
        )
        worker = await exits.enter_async_context(
            open_worker(
                settings,
                limits,
                facts=replica.context.facts,
                metrics=replica.context.metrics,
                wakeup=_commit_signal(replica),
                serves_status=False,
            )
        )
        tune_garbage_collection()
        ending = asyncio.ensure_future(
            first_exit(stack.first_exit, replica.first_exit, worker.first_exit)
        )
        if with_demo:
            await _work_until(ending, _fill(replica.url, console))
        if not ending.done():
            _welcome(console, replica.url, stack)
        console.print(f"stopping: {await ending}", style="red")
    return 1


def _commit_signal(replica: Replica) -> asyncio.Event:
    """An event that is set after each commit of the replica that posted transfers."""
    wakeup = asyncio.Event()

    def on_fact(fact: Fact) -> None:
        if type(fact) is GroupCommitted and fact.posted:
            wakeup.set()

    replica.context.facts.add_hook(on_fact)
    return wakeup


async def _work_until(ending: asyncio.Future[str], work: Coroutine[Any, Any, None]) -> None:
    """Do the work, and cancel it when `ending` is done."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait((task, ending), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _fill(url: str, console: Console) -> None:
    with progress_bars(console) as progress:
        rows = {
            step: progress.add_task(step, total=None) for step in ("users", "wallets", "transfers")
        }
        await demo.fill(
            url,
            lambda step, done, total: progress.update(rows[step], completed=done, total=total),
        )


def _masked(url: str) -> str:
    """The address of an external server without its password."""
    return re.sub(r"(?<=:)[^:@/]+(?=@)", "***", url)


def _welcome(console: Console, url: str, stack: DevStack) -> None:
    amqp = "none: events are delivered within this process"
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
