"""Several replicas on consecutive ports, each a process that is restarted when it dies.

A replica uses one core. Each has its own port: on a shared port the kernel would spread the
requests of a wallet over all processes, and they are fastest in the process of its actor.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress

import aiohttp
import click

from transferd.config import ConfigurationError, Limits, Settings
from transferd.web.listener import url_of

_PROGRAM = (sys.executable, "-m", "transferd", "serve", "--supervised")
# The exit code of `transferd serve` with a wrong configuration: a restart would not help.
_CANNOT_RUN = 1


class _Unusable(Exception):
    """A replica could not start at all; it has printed the reason."""


class Supervisor:
    """Keeps the replicas running. SIGHUP restarts them one after another."""

    def __init__(self, settings: Settings, limits: Limits, processes: int) -> None:
        if settings.port == 0:
            raise ConfigurationError("TRANSFERD_PORT cannot be 0 with --processes")
        if settings.port + processes - 1 > 65535:
            raise ConfigurationError("TRANSFERD_PORT is too high for --processes")
        self._limits = limits
        self._host = settings.host
        self._ports = range(settings.port, settings.port + processes)
        self._running: dict[int, asyncio.subprocess.Process] = {}
        self._asked_to_restart = asyncio.Event()
        # Ports whose replica is restarted on request: it starts again at once, without a message.
        self._restarting: set[int] = set()

    def __repr__(self) -> str:
        return f"<Supervisor {len(self._running)} of {len(self._ports)} replicas running>"

    async def run(self) -> int:
        """Supervise until cancelled; 1 if a replica cannot run at all."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._asked_to_restart.set)
        code = 0
        try:
            async with asyncio.TaskGroup() as tasks:
                for port in self._ports:
                    tasks.create_task(self._keep(port))
                tasks.create_task(self._restart_when_asked())
        except* _Unusable:
            code = _CANNOT_RUN
        finally:
            await self._stop()
        return code

    async def _keep(self, port: int) -> None:
        """Start the replica, and restart it whenever it ends."""
        waits = self._waits()
        is_first = True
        while True:
            started = time.monotonic()
            process = await asyncio.create_subprocess_exec(
                *_PROGRAM,
                env=os.environ | {"TRANSFERD_PORT": str(port)},
                # The replica sees the end of this pipe when the supervisor ends, even by SIGKILL.
                stdin=asyncio.subprocess.PIPE,
            )
            self._running[port] = process
            code = await process.wait()
            del self._running[port]
            lived_s = time.monotonic() - started
            was_first, is_first = is_first, False
            if port in self._restarting:
                self._restarting.discard(port)
                continue
            if was_first and code == _CANNOT_RUN and lived_s < self._limits.replica_start_s:
                # Only at the first start: later the same error must not stop the other replicas.
                raise _Unusable
            if lived_s > self._limits.replica_stable_s:
                waits = self._waits()
            wait_s = next(waits)
            click.echo(
                f"the replica on port {port} has ended ({_reason(code)}): starting it again"
                + (f" in {wait_s:g} s" if wait_s else ""),
                err=True,
            )
            await asyncio.sleep(wait_s)

    def _waits(self) -> Iterator[float]:
        """No wait, then growing waits: a replica that dies at every start must not load a core."""
        yield 0.0
        wait_s = self._limits.replica_restart_first_s
        while True:
            yield wait_s
            wait_s = min(2 * wait_s, self._limits.replica_restart_max_s)

    async def _restart_when_asked(self) -> None:
        while True:
            await self._asked_to_restart.wait()
            self._asked_to_restart.clear()
            for port in self._ports:
                if not await self._restart(port):
                    click.echo(
                        f"the replica on port {port} is not ready again:"
                        " the others are not restarted",
                        err=True,
                    )
                    break
            else:
                click.echo("all replicas were restarted", err=True)

    async def _restart(self, port: int) -> bool:
        """Drain a replica and start it again; returns whether it became ready."""
        process = self._running.get(port)
        if process is not None:
            self._restarting.add(port)
            await self._end([process])
        async with aiohttp.ClientSession() as session:
            deadline = time.monotonic() + self._limits.replica_start_s
            while time.monotonic() < deadline:
                if await self._is_ready(session, port):
                    return True
                await asyncio.sleep(self._limits.replica_poll_s)
        return False

    async def _is_ready(self, session: aiohttp.ClientSession, port: int) -> bool:
        timeout = aiohttp.ClientTimeout(total=self._limits.readiness_wait_s)
        try:
            async with session.get(
                f"{url_of(self._host, port)}/readyz", timeout=timeout
            ) as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def _stop(self) -> None:
        """Drain all replicas concurrently, and kill all if one takes too long."""
        await self._end(list(self._running.values()))

    async def _end(self, processes: Sequence[asyncio.subprocess.Process]) -> None:
        limits = self._limits
        for process in processes:
            with suppress(ProcessLookupError):  # it has ended already
                process.terminate()
        waiting = [asyncio.ensure_future(process.wait()) for process in processes]
        if not waiting:
            return
        timeout_s = limits.drain_linger_s + 2 * limits.drain_timeout_s
        _, late = await asyncio.wait(waiting, timeout=timeout_s)
        if late:
            for process in processes:
                with suppress(ProcessLookupError):
                    process.kill()
            await asyncio.wait(late)


def _reason(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


async def wait_for_supervisor_end() -> None:
    """Wait until the supervisor has ended. Its replicas must not outlive it."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while await reader.read(1024):
        pass
