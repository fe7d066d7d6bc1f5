"""The service as it is run for real: servers, replicas behind Nginx and a worker, all private."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from loadtest.front import Nginx, running_nginx
from loadtest.program import TRANSFERD, Program, until_ready
from transferd.config import load_settings
from transferd.devstack import DevStack
from transferd.devstack.ports import free_port
from transferd.devstack.process import clean_environment
from transferd.ledger.migrate import migrate

_SETTINGS = {
    "TRANSFERD_AUTH": "off",
    # A line for each event would fill the disk.
    "TRANSFERD_NOTIFY_LOG": "false",
}

# From the two ends of a link and the address of the second one to the address that is used.
Link = Callable[[str, str, str], Awaitable[str]]


async def _direct(_: str, __: str, url: str) -> str:
    return url


async def migrated(database_url: str, limits: str) -> None:
    """Make the ledger."""
    settings = load_settings(database_url=database_url, limits=limits)
    await migrate(settings, settings.limits_of())


@dataclass
class Plan:
    """What there is. `command` makes the command of a program from its name and its words;
    `prepare` makes the ledger before the first of them starts."""

    replicas: int = 2
    limits: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    link: Link = _direct
    prepare: Callable[[str, str], Awaitable[None]] = migrated
    command: Callable[[str, Sequence[str]], Sequence[str | Path]] = lambda _, words: (
        *TRANSFERD,
        *words,
    )
    ready_s: float = 30.0


class Topology:
    """Programs are named replica-1, replica-2 and so on, and worker."""

    def __init__(self, stack: DevStack) -> None:
        self.stack = stack
        self.programs: dict[str, Program] = {}
        self.nginx: Nginx | None = None

    def __repr__(self) -> str:
        return f"<Topology {list(self.programs.values())}, {self.stack.servers}>"

    @property
    def replicas(self) -> list[str]:
        """Their names."""
        return [name for name in self.programs if name != "worker"]

    @property
    def url(self) -> str:
        """Where clients come in: at Nginx, or at the one replica that has none."""
        return self.nginx.url if self.nginx is not None else self.programs["replica-1"].url


@asynccontextmanager
async def topology(
    directory: Path, logs: Path, plan: Plan, report: Callable[[str], None]
) -> AsyncIterator[Topology]:
    """All of it, ready; Nginx only before more than one replica. Raises StackError."""
    if os.geteuid() == 0:
        # PostgreSQL runs as another user when we are root.
        os.chmod(directory, 0o711)  # nosec B103
    async with AsyncExitStack() as exits:
        stack = await exits.enter_async_context(DevStack(directory / "stack", report=report))
        whole = Topology(stack)
        await plan.prepare(stack.database_url, plan.limits)
        names = [f"replica-{n + 1}" for n in range(plan.replicas)]
        # Without RabbitMQ there is no worker, and events stay in the outbox.
        for name in names if stack.amqp_url is None else [*names, "worker"]:
            program = await _program(whole, name, logs, plan, report)
            whole.programs[name] = await exits.enter_async_context(program)
            program.start()
        if plan.replicas > 1:
            addresses = [
                (await plan.link("nginx", name, whole.programs[name].url)).removeprefix("http://")
                for name in whole.replicas
            ]
            whole.nginx = await exits.enter_async_context(running_nginx(addresses))
        await until_ready({repr(each): each.url for each in whole.programs.values()}, plan.ready_s)
        yield whole


async def _program(
    whole: Topology, name: str, logs: Path, plan: Plan, report: Callable[[str], None]
) -> Program:
    """A replica or the worker, with a link to each server that it uses."""
    stack, port = whole.stack, free_port()
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
async def own_topology(
    replicas: int, logs: Path, report: Callable[[str], None]
) -> AsyncIterator[Topology]:
    """One for a load test; it stops in order. Raises StackError."""
    with tempfile.TemporaryDirectory(prefix="transferd-load-") as name:
        async with topology(Path(name), logs, Plan(replicas=replicas), report) as whole:
            report(f"{', '.join(whole.programs)}: ready at {whole.url} (logs: {logs})")
            try:
                yield whole
            finally:
                await asyncio.gather(*(each.stop() for each in whole.programs.values()))
