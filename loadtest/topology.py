"""A complete private deployment: servers, replicas behind Nginx, and a worker."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from loadtest.front import Nginx, running_nginx
from loadtest.ledgers import KeyedLedger, make_ledgers
from loadtest.program import TRANSFERD, Program, server_directory, until_ready
from transferd.config import load_settings
from transferd.devstack import DevStack, Server
from transferd.devstack.ports import free_port
from transferd.devstack.process import clean_environment
from transferd.ledger.migrate import migrate

_SETTINGS = {
    "TRANSFERD_AUTH": "off",
    # One log line for each event would fill the disk.
    "TRANSFERD_NOTIFY_LOG": "false",
}

# The programs stop when the load test has ended, so no client uses a connection that they close.
_NO_LINGER = "nginx_keepalive_s=0.05,drain_linger_s=0.1"

# (client, server, URL of the server) -> the URL that the client uses.
LinkUrl = Callable[[str, str, str], Awaitable[str]]


async def _direct(_: str, __: str, url: str) -> str:
    return url


async def migrated(database_url: str, limits: str) -> None:
    """Create the tables."""
    settings = load_settings(database_url=database_url, limits=limits)
    await migrate(settings, settings.limits_of())


@dataclass
class Plan:
    """What `deployed` starts.

    `link` can put a proxy between two parts. `prepare` migrates the database before the first
    program starts. `command` makes the command line of a program from its name and arguments.
    """

    replicas: int = 2
    ledgers: int = 1
    limits: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    link: LinkUrl = _direct
    prepare: Callable[[str, str], Awaitable[None]] = migrated
    command: Callable[[str, Sequence[str]], Sequence[str | Path]] = lambda _, words: (
        *TRANSFERD,
        *words,
    )
    ready_s: float = 30.0


class Deployment:
    """Its parts are replica-1, replica-2 and so on, worker, postgres, redis and rabbitmq."""

    def __init__(self, stack: DevStack) -> None:
        self.stack = stack
        self.programs: dict[str, Program] = {}
        self.nginx: Nginx | None = None
        self.ledgers: list[KeyedLedger] = []

    def __repr__(self) -> str:
        return f"<Deployment {list(self.programs.values())}, {self.stack.servers}>"

    @property
    def replicas(self) -> list[str]:
        return [name for name in self.programs if name != "worker"]

    @property
    def servers(self) -> dict[str, Server]:
        stack = self.stack
        named = {"postgres": stack.postgres, "redis": stack.redis, "rabbitmq": stack.rabbitmq}
        return {name: server for name, server in named.items() if server is not None}

    @property
    def url(self) -> str:
        """The URL for clients: of Nginx, or of the only replica."""
        return self.nginx.url if self.nginx is not None else self.programs["replica-1"].url

    def part(self, name: str) -> Program | Server:
        return self.programs.get(name) or self.servers[name]

    async def until_ready(self, within_s: float, *, answer_s: float = 1.0) -> float:
        """Wait until all programs are ready, without Nginx; returns the seconds.

        Raises StackError with the last answers of the programs that are not ready.
        """
        urls = {repr(each): each.url for each in self.programs.values()}
        return await until_ready(urls, within_s, answer_s=answer_s)


@asynccontextmanager
async def deployed(
    logs: Path, plan: Plan, report: Callable[[str], None]
) -> AsyncIterator[Deployment]:
    """A deployment that is ready; with Nginx if there are several replicas. Raises StackError."""
    async with AsyncExitStack() as exits:
        directory = exits.enter_context(server_directory("stack"))
        stack = await exits.enter_async_context(DevStack(directory / "stack", report=report))
        deployment = Deployment(stack)
        await plan.prepare(stack.database_url, plan.limits)
        deployment.ledgers = await make_ledgers(stack.database_url, plan.limits, plan.ledgers)
        names = [f"replica-{n + 1}" for n in range(plan.replicas)]
        # Without RabbitMQ there is no worker, and events stay in the outbox.
        for name in names if stack.amqp_url is None else [*names, "worker"]:
            program = await _program(deployment, name, logs, plan, report)
            deployment.programs[name] = await exits.enter_async_context(program)
            await program.start()
        if plan.replicas > 1:
            addresses = [
                (await plan.link("nginx", name, deployment.programs[name].url)).removeprefix(
                    "http://"
                )
                for name in deployment.replicas
            ]
            deployment.nginx = await exits.enter_async_context(running_nginx(addresses))
        await deployment.until_ready(plan.ready_s)
        yield deployment


async def _program(
    deployment: Deployment, name: str, logs: Path, plan: Plan, report: Callable[[str], None]
) -> Program:
    """A replica or the worker, with a link to each server that it uses."""
    stack, port = deployment.stack, free_port()
    variables = {
        "TRANSFERD_DATABASE_URL": await plan.link(name, "postgres", stack.database_url),
        "TRANSFERD_LIMITS": plan.limits,
    }
    if name == "worker":
        assert stack.amqp_url is not None
        variables["TRANSFERD_WORKER_PORT"] = str(port)
        variables["TRANSFERD_AMQP_URL"] = await plan.link(name, "rabbitmq", stack.amqp_url)
    else:
        variables["TRANSFERD_PORT"] = str(port)
        variables["TRANSFERD_REDIS_URL"] = await plan.link(name, "redis", stack.redis_url)
    return Program(
        name,
        partial(plan.command, name, ["worker" if name == "worker" else "serve"]),
        port=port,
        log=logs / f"{name}.log",
        environment=clean_environment("TRANSFERD_") | _SETTINGS | dict(plan.settings) | variables,
        report=report,
    )


@asynccontextmanager
async def private_deployment(
    replicas: int, ledgers: int, logs: Path, report: Callable[[str], None]
) -> AsyncIterator[Deployment]:
    """A deployment for one load test. At the end its programs drain. Raises StackError."""
    # With several ledgers each user has the key of its ledger.
    settings = {"TRANSFERD_AUTH": "on"} if ledgers > 1 else {}
    plan = Plan(replicas=replicas, ledgers=ledgers, limits=_NO_LINGER, settings=settings)
    async with deployed(logs, plan, report) as deployment:
        report(f"{', '.join(deployment.programs)}: ready at {deployment.url} (logs: {logs})")
        try:
            yield deployment
        finally:
            await asyncio.gather(*(each.stop() for each in deployment.programs.values()))
