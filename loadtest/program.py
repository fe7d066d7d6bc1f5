"""A process of the service that is killed, stopped and started again, on one port."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import aiohttp

from transferd.devstack import StackError
from transferd.devstack.process import Child, launch

TRANSFERD = (sys.executable, "-c", "from transferd.cli import main; main()")
# As a container runtime waits before it starts again what has ended by itself.
_RESTART_S = 0.25
# Longer than a replica takes to drain.
_STOP_S = 30.0
_POLL_S = 0.01


class Program:
    """`command` is asked for at each start. Opens with `async with`, which does not start it.

    A process that ends by itself is started again, as an init system does; `crashes` counts that.
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
        # No request is left that a drain would answer.
        await self.kill()

    @property
    def address(self) -> str:
        """Where it listens, `host:port`."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{self.address}"

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        child = self._child
        return child.pid if child is not None and child.exit_code is None else None

    @property
    def resident_mib(self) -> float:
        """Memory of the process."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    @property
    def cpu_s(self) -> float:
        """Processor time of the process, user and system."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def start(self) -> None:
        """Start it, and again whenever it ends by itself; it is not ready yet."""
        if self._watch is None:
            self._launch()
            self._watch = asyncio.create_task(self._start_again())

    async def stop(self) -> None:
        """SIGTERM, and wait for the end."""
        await self._want_no_more()
        child = self._child
        if child is not None:
            child.resume()
            child.send_signal(signal.SIGTERM)
            with suppress(TimeoutError):
                await asyncio.wait_for(child.wait(), _STOP_S)
        await self.kill()

    async def kill(self) -> None:
        """SIGKILL; it stays away until `start`."""
        await self._want_no_more()
        if self._child is not None:
            await self._child.kill()
            self._child = None

    def pause(self) -> None:
        """SIGSTOP: its connections stay open and nothing answers."""
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

    async def _start_again(self) -> None:
        while self._child is not None:
            code = await self._child.wait()
            self.crashes += 1
            self._report(f"{self.name} ended by itself with exit code {code} (log: {self.log})")
            await asyncio.sleep(_RESTART_S)
            self._launch()

    async def _want_no_more(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
            self._watch = None


async def until_ready(
    urls: Mapping[str, str], within_s: float, *, answer_s: float = 1.0, path: str = "/readyz"
) -> float:
    """Wait until all of these, by their names, say that they are ready; how long that took.

    Raises StackError with what the last ones said.
    """
    clock = asyncio.get_running_loop().time
    began_s = clock()
    timeout = aiohttp.ClientTimeout(total=answer_s)
    async with aiohttp.ClientSession(timeout=timeout) as session:

        async def complaint(name: str, url: str) -> str:
            try:
                async with session.get(f"{url}{path}") as response:
                    said = "" if response.status == 200 else await response.text()
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                said = str(error) or type(error).__name__
            return f"{name}: {said}" if said else ""

        while said := [
            each
            for each in await asyncio.gather(*(complaint(*named) for named in urls.items()))
            if each
        ]:
            if clock() > began_s + within_s:
                raise StackError(f"not ready within {within_s:g} s: {'; '.join(said)}")
            await asyncio.sleep(_POLL_S)
    return clock() - began_s
