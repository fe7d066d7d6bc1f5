"""Composition root of the notification worker: the relay, the notifier, or both."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, closing
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal

import orjson

from transferd.commit.origin import Origin
from transferd.config import ConfigurationError, Limits, Settings
from transferd.domain.ledger import MAIN
from transferd.ledger.migrate import assert_migrated
from transferd.ledger.store.database import Database
from transferd.ledger.store.deliveries import HAS_WAITING
from transferd.ledger.store.outbox import HAS_ROWS
from transferd.ledger.watch import LedgerList, LedgerWatch
from transferd.notifications.broker import Broker, Connect
from transferd.notifications.carryover import Carryover
from transferd.notifications.consumer import Consumer
from transferd.notifications.directory import Directories, Directory
from transferd.notifications.local import LocalBroker
from transferd.notifications.measuring import Backlog
from transferd.notifications.notifier import Notifier
from transferd.notifications.prune import prune
from transferd.notifications.rabbit import RabbitBroker
from transferd.notifications.relay import Relay
from transferd.notifications.relays import Relays
from transferd.notifications.sinks.log import LogSink
from transferd.notifications.sinks.sinks import Sinks
from transferd.notifications.sinks.webhook import WebhookSink
from transferd.notifications.topology import Topology
from transferd.observability.facts import Facts, Hook
from transferd.observability.logging import Log
from transferd.observability.metrics import Metrics
from transferd.observability.opening import open_facts
from transferd.web.calls import origin_of
from transferd.web.listener import Listener
from transferd.web.problems import Problem
from transferd.web.replies import Reply, problem_reply
from transferd.web.request import Request

Only = Literal["relay", "notifier"]

# For questions about all ledgers; the lanes of relay and notifier have their own.
_DATABASE_CONNECTIONS = 4
# A task that receives a cancellation ends sooner than this.
_CANCEL_AGAIN_S = 1.0


class Worker:
    """A running worker; made by `open_worker`. `url` is its status address, or empty."""

    def __init__(self) -> None:
        self.tasks: dict[str, asyncio.Task[None]] = {}
        # By task: returns the reason why it makes no progress now, or None.
        self.faults: dict[str, Callable[[], str | None]] = {}
        self.url = ""

    def __repr__(self) -> str:
        return f"<Worker of {', '.join(self.tasks)}>"

    def complaints(self) -> dict[str, str]:
        """Task -> why it makes no progress; empty when the worker is ready."""
        wrong = {name: fault for name, read in self.faults.items() if (fault := read())}
        return wrong | {name: "ended" for name, task in self.tasks.items() if task.done()}

    async def first_exit(self) -> str:
        """Wait until a task ends, which is always a fault; one line with its name and error.

        Raises ConfigurationError if that is the error.
        """
        done, _ = await asyncio.wait(self.tasks.values(), return_when=asyncio.FIRST_COMPLETED)
        name = next(name for name, task in self.tasks.items() if task in done)
        error = self.tasks[name].exception()
        if isinstance(error, ConfigurationError):
            raise error
        return f"the {name} ended: {error!r}"


@asynccontextmanager
async def open_worker(
    settings: Settings,
    limits: Limits,
    *,
    only: Only | None = None,
    facts: Facts | None = None,
    metrics: Metrics | None = None,
    wakeup: asyncio.Event | None = None,
    serves_status: bool = True,
) -> AsyncIterator[Worker]:
    """A worker that relays and notifies until the block ends.

    Without an address of RabbitMQ it uses a broker in this process, for `transferd dev` only.
    Setting `wakeup` makes the relay look for events at once. Raises ConfigurationError, StoreError
    or OSError.
    """
    metrics = metrics or Metrics(with_exemplars=settings.tracing == "on")
    log = Log()
    wakeup = wakeup or asyncio.Event()
    worker = Worker()
    async with AsyncExitStack() as stack:
        listener = None
        if serves_status:
            listener = stack.enter_context(closing(_listener(settings, limits)))
        if facts is None:
            facts = await stack.enter_async_context(
                _facts_of_worker(settings, limits, metrics, log)
            )
        connections = _DATABASE_CONNECTIONS + limits.relay_lanes_max + 2 * limits.notify_lanes_max
        database = await stack.enter_async_context(Database(settings, limits, connections))
        await assert_migrated(database)
        metrics.watch_pool("worker", database)
        metrics.gauge(
            "transferd_worker_ready",
            "1 if the worker's `/readyz` answers 200.",
            lambda: not worker.complaints(),
        )
        tasks = _Tasks(settings, limits, facts, metrics, database, worker, stack)
        connect = _connect(settings, limits)
        if only != "notifier":
            await tasks.relay(partial(connect, "transferd relay"), wakeup)
        if only != "relay":
            await tasks.notify(partial(connect, "transferd notifier"))
        if listener is not None:
            worker.url = await stack.enter_async_context(_status(listener, worker, metrics))
        try:
            yield worker
        finally:
            log.say("worker stopping")
            await stack.aclose()


def _connect(
    settings: Settings, limits: Limits
) -> Callable[[str], AbstractAsyncContextManager[Broker]]:
    """A function that opens a named connection to the broker."""
    if settings.amqp_url is None:
        local = LocalBroker()
        return lambda _: local.connect()
    url = settings.amqp_url
    topology = Topology(settings.amqp_prefix, settings.retry_delays_s, limits)
    return lambda name: RabbitBroker(url, topology, limits, name)


def _listener(settings: Settings, limits: Limits) -> Listener:
    return Listener(
        settings.worker_host,
        settings.worker_port,
        limits,
        remedy="stop the program that uses it, or set TRANSFERD_WORKER_PORT",
    )


def _facts_of_worker(
    settings: Settings, limits: Limits, *hooks: Hook
) -> AbstractAsyncContextManager[Facts]:
    return open_facts(
        *hooks,
        service="transferd-worker",
        settings=settings,
        limits=limits,
        clock=time.monotonic,
    )


class _Tasks:
    """Starts the tasks of a worker. The stack stops them in reverse order."""

    def __init__(  # noqa: PLR0917 the parameters of most tasks
        self,
        settings: Settings,
        limits: Limits,
        facts: Facts,
        metrics: Metrics,
        database: Database,
        worker: Worker,
        stack: AsyncExitStack,
    ) -> None:
        self._settings = settings
        self._limits = limits
        self._facts = facts
        self._metrics = metrics
        self._database = database
        self._worker = worker
        self._stack = stack
        self._ledgers = LedgerList(database, limits, time.monotonic)

    async def start(
        self,
        name: str,
        loop: Coroutine[Any, Any, None],
        fault: Callable[[], str | None] = lambda: None,
    ) -> None:
        """Start a task, which runs until the stack closes."""
        self._worker.tasks[name] = await self._stack.enter_async_context(_running(name, loop))
        self._worker.faults[name] = fault

    async def relay(self, connect: Connect, wakeup: asyncio.Event) -> None:
        """Publish the outboxes, and measure the backlog."""
        outboxes = self._watch(HAS_ROWS)
        relay = Relay(
            database=self._database,
            directories=self._directories(),
            limits=self._limits,
            facts=self._facts,
            clock=time.monotonic,
        )
        relays = Relays(
            relay=relay,
            watch=outboxes,
            connect=connect,
            limits=self._limits,
            facts=self._facts,
            wakeup=wakeup,
        )
        await self.start("relay", relays.run(), lambda: relays.fault)
        waiting = self._watch(HAS_WAITING)
        backlog = Backlog(self._database, outboxes, waiting, self._limits, self._metrics)
        await self.start("measuring", backlog.run())

    async def notify(self, connect: Connect) -> None:
        """Deliver notifications that are due, and prune old ones."""
        settings, limits = self._settings, self._limits
        webhooks = await self._stack.enter_async_context(
            WebhookSink(settings, limits, lambda: datetime.now(UTC))
        )
        # Earlier versions had one ledger.
        directory = Directory(with_log=settings.notify_log)
        carryover = Carryover(self._database.of(MAIN), directory, limits, self._facts)
        notifier = Notifier(
            database=self._database,
            ledgers=self._ledgers,
            directories=self._directories(),
            sinks=Sinks(settings, LogSink(Log()), webhooks),
            delays_s=settings.retry_delays_s,
            limits=limits,
            facts=self._facts,
            clock=time.monotonic,
        )
        consumer = Consumer(
            notifier=notifier,
            database=self._database,
            ledgers=self._ledgers,
            connect=connect,
            carryover=carryover,
            limits=limits,
            facts=self._facts,
        )
        # The stop in reverse order: reading ends, running attempts end, their results are written.
        await self.start("writing", notifier.results.run(), lambda: notifier.results.fault)
        await self.start("consumer", consumer.run(), lambda: consumer.fault)
        self._stack.push_async_callback(notifier.drain)
        await self.start("notifier", notifier.read(), lambda: notifier.fault)
        days = settings.delivery_log_days
        await self.start("pruning", prune(self._database, self._ledgers, limits, self._facts, days))
        self._metrics.gauge(
            "transferd_notifications_in_flight",
            "Deliveries that were read and are not recorded yet.",
            lambda: notifier.in_flight,
        )

    def _directories(self) -> Directories:
        return Directories(self._limits, with_log=self._settings.notify_log)

    def _watch(self, name: str) -> LedgerWatch:
        return LedgerWatch(
            self._database,
            self._ledgers,
            name,
            limits=self._limits,
            facts=self._facts,
            clock=time.monotonic,
        )


@asynccontextmanager
async def _running(name: str, loop: Coroutine[Any, Any, None]) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(loop, name=name)
    try:
        yield task
    finally:
        # More than once: aiormq turns a cancellation during the end of a channel into an error of
        # its own, which the task treats as a lost connection: it continues.
        while not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=_CANCEL_AGAIN_S)
        await asyncio.gather(task, return_exceptions=True)


_STATUS_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})


@asynccontextmanager
async def _status(listener: Listener, worker: Worker, metrics: Metrics) -> AsyncIterator[str]:
    """`/healthz`, `/readyz` and `/metrics` of the worker."""

    def answer(request: Request, origin: Origin) -> Reply:
        if request.is_malformed:
            return problem_reply(Problem("malformed-request", closes=True), origin)
        if request.path in _STATUS_PATHS and request.method not in ("GET", "HEAD"):
            refused = Problem("method-not-allowed", headers={"Allow": "GET,HEAD"})
            return problem_reply(refused, origin)
        match request.path:
            case "/healthz":
                return Reply(200, b'{"status":"ok"}')
            case "/readyz" if complaints := worker.complaints():
                return Reply(503, orjson.dumps({"status": "not ready", "why": complaints}))
            case "/readyz":
                return Reply(200, b'{"status":"ready"}')
            case "/metrics":
                return Reply(200, *metrics.exposed(request.headers.getall("Accept", ())))
            case _:
                return problem_reply(Problem("not-found"), origin)

    async def handle(request: Request) -> Reply:
        origin = origin_of(request)
        reply = answer(request, origin)
        reply.compose(request, origin)
        return reply

    async with listener.serving(handle):
        yield listener.url
