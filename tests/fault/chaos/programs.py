"""Processes of `transferd` that are killed, stopped and started again, each with a port to keep."""

import asyncio
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tests.fault.chaos.skewed import write_offset
from tests.support.project import ROOT
from tests.support.waiting import patient_s
from transferd.devstack.process import Child, clean_environment, launch

# As a container runtime waits before it starts again what has ended by itself.
_RESTART_S = 0.25
# Longer than a replica takes to drain.
_STOP_S = patient_s(30.0)


class Program:
    """`transferd serve` or `worker` as a process of its own. Opens with `async with`.

    What ends although nobody wanted it to is started again, as an init system does; `crashes`
    counts that.
    """

    def __init__(
        self,
        name: str,
        command: str,
        *,
        port: int,
        directory: Path,
        environment: Mapping[str, str],
        report: Callable[[str], None],
    ) -> None:
        self.name = name
        self.port = port
        self.log = directory / f"{name}.log"
        self.crashes = 0
        # Layers of its protections that it does without from its next start on.
        self.without: Sequence[str] = ()
        self._clock = directory / f"{name}.clock"
        self._command = command
        self._directory = directory
        self._environment = clean_environment("TRANSFERD_", PYTHONPATH=str(ROOT)) | dict(
            environment
        )
        self._report = report
        self._child: Child | None = None
        self._watch: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        state = f"process {self.pid}" if self.pid else "not running"
        return f"<Program {self.name} on port {self.port}, {state}>"

    async def __aenter__(self) -> "Program":
        write_offset(self._clock, 0.0)
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        # Nobody is there any more to be served until the end of a drain.
        await self.kill()

    @property
    def url(self) -> str:
        """Where it tells how it is."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        child = self._child
        return child.pid if child is not None and child.exit_code is None else None

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
        """SIGKILL; nobody starts it again until `start`."""
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

    def jump_clock(self, seconds: float) -> None:
        """Its time of day is so much ahead of the real one from now on, also after a restart."""
        write_offset(self._clock, seconds)

    def _launch(self) -> None:
        self._child = launch(
            [
                *(sys.executable, "-m", "tests.fault.chaos.launcher"),
                *(self._clock, ",".join(self.without), self._command),
            ],
            log=self.log,
            cwd=self._directory,
            environment=self._environment,
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
