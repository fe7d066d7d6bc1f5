"""Private PostgreSQL, Redis and RabbitMQ servers for ``transferd dev`` and for the tests.

They run on free loopback ports from installed programs (or from a wheel), keep their files in
one directory and never touch a server on a standard port.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from transferd.config import Limits
from transferd.devstack.citus import CitusCluster, CitusNode, find_citus_binaries
from transferd.devstack.postgres import PostgresServer, find_postgres_binaries
from transferd.devstack.process import StackError
from transferd.devstack.rabbitmq import RabbitServer, find_rabbitmq
from transferd.devstack.redis import RedisServer, find_redis
from transferd.devstack.server import Server

__all__ = [
    "CitusCluster",
    "CitusNode",
    "DevStack",
    "PostgresServer",
    "RabbitServer",
    "RedisServer",
    "Server",
    "StackError",
    "find_citus_binaries",
    "find_postgres_binaries",
    "find_rabbitmq",
    "find_redis",
]

NO_RABBITMQ = (
    "RabbitMQ is NOT INSTALLED: events are delivered within this process instead. PostgreSQL keeps "
    "undelivered events. Install RabbitMQ (apt install rabbitmq-server, brew install "
    "rabbitmq) or set TRANSFERD_AMQP_URL."
)


class DevStack:
    """The servers of a local run, started and stopped concurrently.

    A server whose URL is given is not started. ``ephemeral`` keeps the data in a new directory
    beside ``directory`` and removes it at the end; otherwise the next run uses ``directory`` again.
    ``report`` gets one line per server. StackError if a server cannot be started; then none runs.
    """

    def __init__(
        self,
        directory: Path,
        *,
        ephemeral: bool = False,
        durable: bool = True,
        database_url: str | None = None,
        redis_url: str | None = None,
        amqp_url: str | None = None,
        report: Callable[[str], None] = print,
        limits: Limits | None = None,
    ) -> None:
        self.directory = directory.absolute()
        self.database_url = database_url or ""
        self.redis_url = redis_url or ""
        self.amqp_url = amqp_url  # None once started: RabbitMQ is not installed
        self.postgres: PostgresServer | None = None
        self.redis: RedisServer | None = None
        self.rabbitmq: RabbitServer | None = None
        self.servers: list[Server] = []
        self._ephemeral = ephemeral
        self._durable = durable
        self._report = report
        self._limits = limits

    def __repr__(self) -> str:
        return f"<DevStack {', '.join(map(repr, self.servers)) or 'without servers of its own'}>"

    async def __aenter__(self) -> Self:
        if self._ephemeral:
            self.directory = _new_directory_beside(self.directory)
        try:
            self._choose_servers()
            await self._start_all()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._end()

    async def first_exit(self) -> str:
        """Wait until a server ends by itself; returns a line with its name, exit code and log."""
        if not self.servers:
            await asyncio.Event().wait()  # Never ends.
        watches = {asyncio.ensure_future(server.exited()): server for server in self.servers}
        try:
            done, _ = await asyncio.wait(watches, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for watch in watches:
                watch.cancel()
        ended = done.pop()
        code, server = ended.result(), watches[ended]
        return (
            f"{server.name} ended by itself with exit code {_named(code)} (log: {server.log_path})"
        )

    def _choose_servers(self) -> None:
        if not self.database_url:
            self.postgres = PostgresServer(
                self.directory / "postgresql", durable=self._durable, limits=self._limits
            )
            self.servers.append(self.postgres)
        if not self.redis_url:
            self.redis = RedisServer(self.directory / "redis", limits=self._limits)
            self.servers.append(self.redis)
        if self.amqp_url is None:
            if find_rabbitmq() is None:
                self._report(NO_RABBITMQ)
                return
            self.rabbitmq = RabbitServer(self.directory / "rabbitmq", limits=self._limits)
            self.servers.append(self.rabbitmq)

    async def _start_all(self) -> None:
        failures: list[StackError] = []
        # If one start fails, the group cancels the others, and each stops what it has started.
        try:
            async with asyncio.TaskGroup() as group:
                for server in self.servers:
                    group.create_task(self._start(server))
        except* StackError as errors:
            failures = [error for error in errors.exceptions if isinstance(error, StackError)]
        if failures:
            raise failures[0]
        if self.postgres is not None:
            self.database_url = self.postgres.url
        if self.redis is not None:
            self.redis_url = self.redis.url
        if self.rabbitmq is not None:
            self.amqp_url = self.rabbitmq.url

    async def _start(self, server: Server) -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        await server.start()
        took_s = clock() - began
        self._report(f"{server.origin}, port {server.port}, process {server.pid}, {took_s:.1f} s")

    async def _end(self) -> None:
        """Stop all servers concurrently, and always remove an ephemeral directory."""
        try:
            outcomes = await asyncio.gather(
                *(server.stop() for server in self.servers), return_exceptions=True
            )
            for server, outcome in zip(self.servers, outcomes, strict=True):
                if isinstance(outcome, Exception):
                    self._report(f"{server.name} was not stopped cleanly: {outcome}")
        finally:
            for server in self.servers:
                server.kill_now()  # Needed after a second Ctrl-C; no effect after a clean stop.
            if self._ephemeral:
                shutil.rmtree(self.directory, ignore_errors=True)


def _new_directory_beside(directory: Path) -> Path:
    directory.parent.mkdir(parents=True, exist_ok=True)
    created = Path(tempfile.mkdtemp(prefix=f"{directory.name}-", dir=directory.parent))
    if os.geteuid() == 0:
        created.chmod(0o711)  # PostgreSQL runs as another user, which must be able to traverse it.
    return created


def _named(code: int) -> str:
    with suppress(ValueError):
        if code < 0:
            return f"{code} ({signal.Signals(-code).name})"
    return str(code)
