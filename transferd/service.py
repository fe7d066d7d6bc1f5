"""Composition root of an API replica: builds, starts and stops every part of it."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, closing
from typing import Any

from aiohttp import http_parser

from transferd.actors.expiry import Expiry
from transferd.actors.router import Router
from transferd.cache.link import Link
from transferd.commit.committer import CommitParts, Committer
from transferd.config import ConfigurationError, Limits, Settings
from transferd.domain.ledger import MAIN
from transferd.ledger.migrate import assert_migrated
from transferd.ledger.store.clients import has_usable_api_key
from transferd.ledger.store.database import Database
from transferd.ledger.store.ledgers import read_ledger
from transferd.observability.facts import Facts
from transferd.observability.logging import Log
from transferd.observability.metrics import Metrics
from transferd.observability.opening import open_facts
from transferd.web.application import build
from transferd.web.context import AppContext, Lifecycle
from transferd.web.key_uses import KeyUses
from transferd.web.ledgers import OpenLedgers
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
        return f"<Replica {self.url}, {self.context.router!r}>"

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
    shared = await stack.enter_async_context(Database(settings, limits, limits.read_connections))
    commits = await stack.enter_async_context(Database(settings, limits, limits.commit_connections))
    redis_url = settings.required("redis_url") if settings.cache else None
    link = await stack.enter_async_context(Link(redis_url, limits, facts))
    # A ping must not wait for a connection behind reads: a busy replica is ready.
    probe = await stack.enter_async_context(Database(settings, limits, connections=1))
    await assert_migrated(shared)
    ledgers = OpenLedgers(shared, link, limits, facts, replica=os.urandom(8).hex())
    main = await ledgers.of(await read_ledger(shared, MAIN.name))
    database = main.database
    await _assert_usable_api_key(settings, shared)
    rendering = Rendering()
    parts = CommitParts(
        commits.of(database.ledger), database, main.wallets, main.replays, rendering
    )
    committer, bulk = (Committer(parts, limits, facts, clock) for _ in range(2))
    router = Router(committer, bulk, rendering, limits, clock)
    context = AppContext(
        settings=settings,
        limits=limits,
        ledger=await read_ledger(shared, settings.ledger),
        shared=shared,
        ledgers=ledgers,
        main=main,
        probe=probe,
        link=link,
        router=router,
        rendering=rendering,
        streams=Streams(database, limits),
        key_uses=KeyUses(shared, limits, facts),
        batches=asyncio.Semaphore(limits.batches_max),
        lifecycle=Lifecycle(),
        facts=facts,
        metrics=metrics,
        clock=clock,
    )
    expiry = Expiry(database, router, limits, facts, clock)
    _add_gauges(context, commits, expiry)
    return context, {
        "committer": committer.run,
        "waiting room": committer.attend,
        "bulk committer": bulk.run,
        "bulk waiting room": bulk.attend,
        "sweeper": router.sweep,
        "expiry of holds": expiry.run,
        "event streams": context.streams.run,
        "uses of API keys": context.key_uses.run,
    }


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
            await context.router.drain()


async def _assert_usable_api_key(settings: Settings, database: Database) -> None:
    if settings.auth == "on" and not await has_usable_api_key(database):
        raise ConfigurationError(
            "there is no usable API key: make one with `transferd keys create --client NAME"
            " --scope SCOPE`, or set TRANSFERD_AUTH=off"
        )


def _add_gauges(context: AppContext, commits: Database, expiry: Expiry) -> None:
    gauge = context.metrics.gauge
    router, lifecycle, limits = context.router, context.lifecycle, context.limits
    for name, text, read in (
        ("live_actors", "Wallets with waiting commands.", lambda: router.live_actors),
        ("backlog_envelopes", "Commands in flight.", lambda: router.backlog),
        (
            "mailbox_envelopes",
            "Commands in mailboxes, not in a group yet.",
            lambda: sum(router.mailbox_depths()),
        ),
        (
            "mailbox_largest_envelopes",
            "Commands in the fullest mailbox.",
            lambda: max(router.mailbox_depths(), default=0),
        ),
        (
            "mailbox_limit_envelopes",
            "Most commands in a mailbox.",
            lambda: limits.mailbox_envelopes_max,
        ),
        ("gate_inside_commands", "Commands inside the gate.", lambda: router.gate.inside),
        ("gate_waiting_requests", "Callers that wait at the gate.", lambda: router.gate.waiting),
        (
            "gate_limit_commands",
            "Most commands inside and callers waiting; further callers get an error.",
            lambda: limits.backlog_max,
        ),
        ("active_holds", "Active holds of the ledger.", lambda: expiry.active.holds),
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
        gauge(f"transferd_{name}", text, read)
    for name, pool in (("reads", context.shared), ("commit", commits)):
        context.metrics.watch_pool(name, pool)


def _assert_fast_parser() -> None:
    parser = http_parser.HttpRequestParser
    if parser.__module__ != "aiohttp._http_parser":
        raise ConfigurationError(
            "aiohttp runs without its C parser: install a wheel of it (pip install"
            " --force-reinstall --only-binary :all: aiohttp)"
        )
