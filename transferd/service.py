"""Composition root of an API replica: builds, starts and stops every part of it."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, closing
from typing import Any

from aiohttp import http_parser

from transferd.actors.expiry import Expiry
from transferd.actors.gate import Gate
from transferd.actors.ledgers import OpenLedgers, ReplicaParts
from transferd.cache.link import Link
from transferd.config import ConfigurationError, Limits, Settings
from transferd.ledger.migrate import assert_migrated
from transferd.ledger.store.clients import has_usable_api_key
from transferd.ledger.store.database import Database
from transferd.ledger.store.holds import HAS_DUE_HOLDS
from transferd.ledger.store.ledgers import read_ledger
from transferd.ledger.watch import LedgerList, Watch
from transferd.observability.facts import Facts
from transferd.observability.logging import Log
from transferd.observability.metrics import Metrics
from transferd.observability.opening import open_facts
from transferd.web.application import build
from transferd.web.context import AppContext, Lifecycle
from transferd.web.key_uses import KeyUses
from transferd.web.listener import Listener
from transferd.web.rendering import Rendering
from transferd.web.streams import Streams

Loop = Callable[[], Coroutine[Any, Any, None]]


class Replica:
    """A running replica; made by `open_replica`."""

    def __init__(self, context: AppContext, url: str, tasks: dict[str, asyncio.Task[None]]) -> None:
        self.context = context
        self.url = url
        self._tasks = tasks

    def __repr__(self) -> str:
        return f"<Replica {self.url}, {self.context.intake!r}>"

    async def first_exit(self) -> str:
        """Wait until a task ends, which is always a fault; one line with its name and error."""
        done, _ = await asyncio.wait(self._tasks.values(), return_when=asyncio.FIRST_COMPLETED)
        name = next(name for name, task in self._tasks.items() if task in done)
        return f"the {name} ended: {self._tasks[name].exception()!r}"


@asynccontextmanager
async def open_replica(
    settings: Settings,
    limits: Limits,
    *,
    listener: Listener | None = None,
    drain_linger_s: float | None = None,
) -> AsyncIterator[Replica]:
    """A replica that serves until the block ends, and then drains.

    `listener` is an address that the caller has already bound. `drain_linger_s` replaces the limit
    of that name; without a proxy it can be 0. Raises ConfigurationError, StoreError or OSError.
    """
    _assert_fast_parser()
    # Bound before the first connection to a server, so that a port in use fails at once.
    listener = listener or listener_of(settings, limits)
    clock = time.monotonic
    metrics = Metrics(with_exemplars=settings.tracing == "on")
    log = Log()
    async with AsyncExitStack() as stack:
        stack.enter_context(closing(listener))
        facts = await stack.enter_async_context(
            open_facts(
                metrics, log, service="transferd", settings=settings, limits=limits, clock=clock
            )
        )
        context, loops = await _assemble(stack, settings, limits, facts, metrics, clock)
        tasks = {
            name: await stack.enter_async_context(_running(name, loop()))
            for name, loop in loops.items()
        }
        linger_s = limits.drain_linger_s if drain_linger_s is None else drain_linger_s
        await stack.enter_async_context(_serving(context, listener, linger_s))
        log.say("serving", url=listener.url, pid=os.getpid())
        try:
            yield Replica(context, listener.url, tasks)
        finally:
            # Logged also if the caller is cancelled, as on SIGTERM.
            log.say("draining")
            await stack.aclose()
            log.say("stopped")


def listener_of(
    settings: Settings, limits: Limits, *, remedy: str = "set TRANSFERD_PORT"
) -> Listener:
    """The bound address of the API. Raises ConfigurationError if the port is in use."""
    return Listener(
        settings.host,
        settings.port,
        limits,
        remedy=f"stop the program that uses it, or {remedy}",
    )


async def _assemble(  # noqa: PLR0917 the parameters of most parts
    stack: AsyncExitStack,
    settings: Settings,
    limits: Limits,
    facts: Facts,
    metrics: Metrics,
    clock: Callable[[], float],
) -> tuple[AppContext, Mapping[str, Loop]]:
    """All layers below HTTP, built from the bottom up, and the loops to run, by name."""
    shared = await stack.enter_async_context(
        Database(
            settings,
            limits,
            limits.read_connections_all,
            of_one_ledger=limits.read_connections,
        )
    )
    # Reads cannot use these connections: one for each lane of either kind.
    commits = await stack.enter_async_context(Database(settings, limits, 2 * limits.lanes_max))
    redis_url = settings.required("redis_url") if settings.cache else None
    link = await stack.enter_async_context(Link(redis_url, limits, facts))
    # A ping must not wait for a connection behind reads: a busy replica is ready.
    probe = await stack.enter_async_context(Database(settings, limits, connections=1))
    await assert_migrated(shared)
    ledger = await read_ledger(shared, settings.ledger)
    await assert_migrated(shared, ledger)
    await _assert_usable_api_key(settings, shared)
    rendering = Rendering()
    ledgers = OpenLedgers(
        ReplicaParts(os.urandom(8).hex(), shared, commits, link, rendering, limits, facts, clock)
    )
    context = AppContext(
        settings=settings,
        limits=limits,
        ledger=await ledgers.of(ledger),
        shared=shared,
        ledgers=ledgers,
        probe=probe,
        link=link,
        intake=ledgers.intake,
        rendering=rendering,
        streams=Streams(limits),
        key_uses=KeyUses(shared, limits, facts),
        lifecycle=Lifecycle(),
        facts=facts,
        metrics=metrics,
        clock=clock,
    )
    expiry = _expiry_of(ledgers, shared, limits, facts, clock)
    _add_gauges(context, commits, expiry)
    return context, {
        "lanes": ledgers.lanes.run,
        "lane of bulk work": ledgers.bulk_lanes.run,
        "sweeper": ledgers.sweep,
        "expiry of holds": expiry.run,
        "count of active holds": expiry.measure,
        "event streams": context.streams.run,
        "uses of API keys": context.key_uses.run,
    }


def _expiry_of(
    ledgers: OpenLedgers,
    shared: Database,
    limits: Limits,
    facts: Facts,
    clock: Callable[[], float],
) -> Expiry:
    due = Watch(
        shared,
        LedgerList(shared, limits, clock),
        HAS_DUE_HOLDS,
        limits=limits,
        facts=facts,
        clock=clock,
        idle_groups_max=limits.expiry_groups_asked_max,
    )
    return Expiry(due, ledgers, limits, facts, clock)


@asynccontextmanager
async def _running(name: str, loop: Coroutine[Any, Any, None]) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(loop, name=name)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def _serving(context: AppContext, listener: Listener, linger_s: float) -> AsyncIterator[None]:
    """Listen. At the end close the listener, serve open connections for a while, then drain."""
    connections = listener.connections
    context.metrics.gauge(
        "transferd_connections", "Connections of clients.", lambda: len(connections)
    )
    async with listener.serving(build(context)) as server:
        try:
            yield
        finally:
            context.lifecycle.is_draining = True
            server.close()
            context.streams.close()
            await asyncio.sleep(linger_s)
            await context.intake.drain()


async def _assert_usable_api_key(settings: Settings, database: Database) -> None:
    if settings.auth == "on" and not await has_usable_api_key(database):
        raise ConfigurationError(
            "there is no usable API key: make one with `transferd keys create --client NAME"
            " --scope SCOPE`, or set TRANSFERD_AUTH=off"
        )


def _add_gauges(context: AppContext, commits: Database, expiry: Expiry) -> None:
    lifecycle = context.lifecycle
    _add_gauges_of_commands(context)
    for name, text, read in (
        (
            "active_holds",
            "Active holds of the ledgers that are open here.",
            lambda: expiry.active.holds,
        ),
        (
            "holds_overdue_seconds",
            "Since when the oldest due hold waits for its expiry to be written.",
            lambda: expiry.active.overdue_s,
        ),
        ("event_streams", "Event streams of wallets.", lambda: len(context.streams)),
        (
            "cache_breaker_open",
            "1 while no calls to Redis are made, after one has failed.",
            lambda: context.link.is_broken,
        ),
        (
            "database_up",
            "1 if PostgreSQL answered the last ping.",
            lambda: lifecycle.database_answers,
        ),
        ("draining", "1 while the replica is stopping.", lambda: lifecycle.is_draining),
        ("ready", "1 if `/readyz` answers 200.", lambda: lifecycle.is_ready),
    ):
        context.metrics.gauge(f"transferd_{name}", text, read)
    for name, pool in (("reads", context.shared), ("commit", commits)):
        context.metrics.watch_pool(name, pool)


def _add_gauges_of_commands(context: AppContext) -> None:
    ledgers, limits = context.ledgers, context.limits

    def depths() -> list[int]:
        return [depth for ledger in ledgers for depth in ledger.router.mailbox_depths()]

    def fullest_gate() -> Gate:
        gates = [ledger.router.gate for ledger in ledgers]
        return max(gates, key=lambda gate: gate.inside + gate.waiting)

    for name, text, read in (
        (
            "live_actors",
            "Wallets with waiting commands.",
            lambda: sum(ledger.router.live_actors for ledger in ledgers),
        ),
        ("backlog_envelopes", "Commands in flight.", lambda: ledgers.intake.commands),
        (
            "mailbox_envelopes",
            "Commands in mailboxes, not in a group yet.",
            lambda: sum(depths()),
        ),
        (
            "mailbox_largest_envelopes",
            "Commands in the fullest mailbox.",
            lambda: max(depths(), default=0),
        ),
        (
            "mailbox_limit_envelopes",
            "Most commands in a mailbox.",
            lambda: limits.mailbox_envelopes_max,
        ),
        (
            "gate_inside_commands",
            "Commands inside the gate of the ledger with the most.",
            lambda: fullest_gate().inside,
        ),
        (
            "gate_waiting_requests",
            "Callers that wait at the gate of the ledger with the most commands.",
            lambda: fullest_gate().waiting,
        ),
        (
            "gate_limit_commands",
            "Most commands inside a gate and callers waiting; further callers get an error.",
            lambda: limits.backlog_max,
        ),
    ):
        context.metrics.gauge(f"transferd_{name}", text, read)


def _assert_fast_parser() -> None:
    parser = http_parser.HttpRequestParser
    if parser.__module__ != "aiohttp._http_parser":
        raise ConfigurationError(
            "aiohttp runs without its C parser: install a wheel of it (pip install"
            " --force-reinstall --only-binary :all: aiohttp)"
        )
