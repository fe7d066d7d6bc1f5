"""A topology of the load test's own: servers, replicas behind Nginx, a worker; gone afterwards."""

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from loadtest.front import running_nginx
from transferd.config import Limits, load_settings
from transferd.devstack import DevStack, StackError
from transferd.devstack.ports import free_ports
from transferd.devstack.process import Child, clean_environment, launch
from transferd.ledger.migrate import migrate

_START_S = 30.0
_STOP_S = 30.0
_TRANSFERD = (sys.executable, "-c", "from transferd.cli import main; main()")


@dataclass(frozen=True)
class Stack:
    """`host` is where clients come in; `metrics` are those of the replicas and of the worker."""

    host: str
    metrics: list[str]


@asynccontextmanager
async def own_stack(
    replicas: int, logs: Path, report: Callable[[str], None]
) -> AsyncIterator[Stack]:
    """So many replicas; one alone needs no Nginx. Logs go to that folder. Raises StackError."""
    async with AsyncExitStack() as exits:
        directory = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="transferd-load-")))
        # PostgreSQL runs as another user when we are root.
        os.chmod(directory, 0o711)  # nosec B103
        servers = await exits.enter_async_context(DevStack(directory / "stack", report=report))
        first = free_ports(replicas + 1)
        environment = clean_environment("TRANSFERD_") | {
            "TRANSFERD_DATABASE_URL": servers.database_url,
            "TRANSFERD_REDIS_URL": servers.redis_url,
            "TRANSFERD_PORT": str(first),
            "TRANSFERD_WORKER_PORT": str(first + replicas),
            "TRANSFERD_AUTH": "off",
            # A line for each event would fill the disk.
            "TRANSFERD_NOTIFY_LOG": "false",
        }
        if servers.amqp_url is not None:
            environment["TRANSFERD_AMQP_URL"] = servers.amqp_url
        await migrate(load_settings(database_url=servers.database_url), Limits())
        addresses = [f"127.0.0.1:{first + number}" for number in range(replicas)]
        for name, command in (
            ("replicas", ("serve", "--processes", str(replicas))),
            ("worker", ("worker",)),
        ):
            child = launch(
                [*_TRANSFERD, *command],
                log=logs / f"{name}.log",
                cwd=Path.cwd(),
                environment=environment,
            )
            exits.push_async_callback(_stop, child)
        for address in addresses:
            await _until_ready(address, logs / "replicas.log")
        host = f"http://{addresses[0]}"
        if replicas > 1:
            nginx = await exits.enter_async_context(running_nginx(addresses))
            host = nginx.url
        report(f"{replicas} replicas and a worker are ready at {host} (logs: {logs})")
        yield Stack(host, [*addresses, f"127.0.0.1:{first + replicas}"])


async def _until_ready(address: str, log: Path) -> None:
    def ready() -> bool:
        try:
            with urlopen(f"http://{address}/readyz", timeout=1.0) as answer:  # nosec B310
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False

    try:
        async with asyncio.timeout(_START_S):
            # Nobody tells us; asking is all there is.
            while not await asyncio.to_thread(ready):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise StackError(f"{address} was not ready within {_START_S:g} s: see {log}") from None


async def _stop(child: Child) -> None:
    child.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(_STOP_S):
            await child.wait()
    except TimeoutError:
        pass
    finally:
        await child.kill()
