"""A process of the service that can be killed, stopped and restarted on the same port."""

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import aiohttp
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from transferd.devstack import StackError
from transferd.devstack.process import Child, launch

TRANSFERD = (sys.executable, "-c", "from transferd.cli import main; main()")
# The pause of a container runtime before it restarts a process that has ended.
_RESTART_S = 0.25
# Longer than a replica takes to drain.
_STOP_S = 30.0
_POLL_S = 0.01


@contextmanager
def server_directory(purpose: str) -> Iterator[Path]:
    """A temporary directory that servers can enter: under root they run as another user."""
    with tempfile.TemporaryDirectory(prefix=f"transferd-{purpose}-") as name:
        os.chmod(name, 0o711)  # nosec B103
        yield Path(name)


class Program:
    """A process; `command` returns its command line at each start.

    `async with` does not start it, and kills it at the end. A process that ends by itself is
    restarted; `crashes` counts that.
    """

    def __init__(
        self,
        name: str,
        command: Callable[[], Sequence[str | Path]],
        *,
        port: int,
        log: Path,
        environment: Mapping[str, str],
        report: Callable[[str], None],
    ) -> None:
        self.name = name
        self.port = port
        self.log = log
        self.crashes = 0
        self._command = command
        self._environment = environment
        self._report = report
        self._child: Child | None = None
        self._watch: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        state = f"process {self.pid}" if self.pid else "not running"
        return f"<Program {self.name} on port {self.port}, {state}, log {self.log}>"

    async def __aenter__(self) -> "Program":
        return self

    async def __aexit__(self, *_: object) -> None:
        # No request is in flight, so a drain is not needed.
        await self.kill()

    @property
    def address(self) -> str:
        """Its `host:port`."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        child = self._child
        return child.pid if child is not None and child.exit_code is None else None

    @property
    def resident_mib(self) -> float:
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    @property
    def cpu_s(self) -> float:
        """CPU seconds of the process, user and system."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async def metrics(self) -> list[Sample]:
        """The samples of its /metrics."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/metrics") as answer:
            families = text_string_to_metric_families(await answer.text())
        return [sample for family in families for sample in family.samples]

    async def start(self) -> None:
        """Start it, and restart it when it ends by itself. Does not wait until it is ready."""
        if self._watch is None:
            self._launch()
            self._watch = asyncio.create_task(self._restart())

    async def stop(self) -> None:
        """Send SIGTERM and wait for the end; SIGKILL after 30 s."""
        await self._end_watch()
        child = self._child
        if child is not None:
            child.resume()
            child.send_signal(signal.SIGTERM)
            with suppress(TimeoutError):
                await asyncio.wait_for(child.wait(), _STOP_S)
        await self.kill()

    async def kill(self) -> None:
        """Send SIGKILL. It stays down until `start`."""
        await self._end_watch()
        if self._child is not None:
            await self._child.kill()
            self._child = None

    def pause(self) -> None:
        """Send SIGSTOP: its connections stay open, and it does not answer."""
        if self._child is not None:
            self._child.pause()

    def resume(self) -> None:
        """Undo `pause`."""
        if self._child is not None:
            self._child.resume()

    def _launch(self) -> None:
        self._child = launch(
            self._command(), log=self.log, cwd=Path.cwd(), environment=self._environment
        )

    async def _restart(self) -> None:
        while self._child is not None:
            code = await self._child.wait()
            self.crashes += 1
            self._report(f"{self.name} ended by itself with exit code {code} (log: {self.log})")
            await asyncio.sleep(_RESTART_S)
            self._launch()

    async def _end_watch(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
            self._watch = None


async def until_ready(
    urls: Mapping[str, str], within_s: float, *, answer_s: float = 1.0, path: str = "/readyz"
) -> float:
    """Wait until each URL answers 200; returns the seconds. The keys of `urls` are names.

    Raises StackError with the last answers of the URLs that are not ready.
    """
    clock = asyncio.get_running_loop().time
    began_s = clock()
    timeout = aiohttp.ClientTimeout(total=answer_s)
    async with aiohttp.ClientSession(timeout=timeout) as session:

        async def complaint(name: str, url: str) -> str:
            try:
                async with session.get(f"{url}{path}") as response:
                    text = "" if response.status == 200 else await response.text()
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                text = str(error) or type(error).__name__
            return f"{name}: {text}" if text else ""

        while any(complaints := await asyncio.gather(*(complaint(*each) for each in urls.items()))):
            if clock() > began_s + within_s:
                text = "; ".join(filter(None, complaints))
                raise StackError(f"not ready within {within_s:g} s: {text}")
            await asyncio.sleep(_POLL_S)
    return clock() - began_s
