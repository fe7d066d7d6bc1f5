"""The base of all private servers: a directory, a port, a log, start and stop."""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import signal
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from transferd.config import Limits
from transferd.devstack.ports import free_port, port_is_free
from transferd.devstack.process import (
    POLL_S,
    Account,
    Child,
    Process,
    StackError,
    launch,
    process_tree,
)

# The last two or three lines of a log.
TAIL_CHARS_MAX = 300
PORT_IN_USE = re.compile(r"address already in use|eaddrinuse|port .*in use", re.IGNORECASE)


class PortTaken(StackError):
    """Another process listens on the chosen port."""


class Server(ABC):
    """One private server on 127.0.0.1, with its data below one directory.

    ``start`` after ``stop`` or ``kill`` uses the same port and the same data. Start from the main
    thread: the kernel kills the server when the thread that started it ends.
    """

    name: ClassVar[str]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    children_hold_lock: ClassVar[bool] = True

    def __init__(
        self, directory: Path, *, port: int | None = None, limits: Limits | None = None
    ) -> None:
        self.directory = directory.absolute()
        self.port = port or 0  # if None is given, the first start chooses one
        self.origin = f"{self.name} (not started)"
        self.log_path = self.directory / f"{self.name.lower()}.log"
        self._limits = limits or Limits()
        self._port_pinned = port is not None
        self._children: list[Child] = []  # helpers first, the server itself last
        self._end_is_wanted = True  # False while the server should run
        self._lock_fd: int | None = None
        self._log_offset = 0

    def __repr__(self) -> str:
        state = f"on port {self.port}, pid {self.pid}" if self.pid else "not running"
        return f"<{self.name} {state}>"

    @property
    @abstractmethod
    def url(self) -> str:
        """The address for clients. The port is known after ``start``."""

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        child = self._main
        return child.pid if child is not None and child.exit_code is None else None

    def processes(self) -> list[Process]:
        """All living processes of this server: its children, its helpers and their children."""
        running = [child for child in self._children if child.exit_code is None]
        return [process for child in running for process in process_tree(child.pid)]

    async def start(self) -> None:
        """Start the server and return when it answers. StackError if it cannot be started."""
        if self.pid is not None:
            return
        try:
            await self._lock_directory()
            await self.kill()  # processes that an earlier crash of this server may have left
            await self._prepare()
            await self._start_on_a_port()
        except BaseException as error:
            self._end_is_wanted = True
            await self._leave()
            if isinstance(error, OSError):
                raise StackError(f"{self.name} could not be started: {error}") from error
            raise

    async def stop(self) -> None:
        """End the server in order, or by SIGKILL after `server_stop_s`, with all its processes."""
        self._end_is_wanted = True
        try:
            child = self._main
            if child is not None:
                self.resume()  # A paused process does not handle signals.
                child.send_signal(self.stop_signal)
                with suppress(TimeoutError):
                    await asyncio.wait_for(child.wait(), self._limits.server_stop_s)
        finally:
            await self._leave()

    async def kill(self) -> None:
        """SIGKILL to the server and all its children; returns when they are dead."""
        self._end_is_wanted = True
        while self._children:
            await self._children[-1].kill()
            self._children.pop()

    def kill_now(self) -> None:
        """SIGKILL without waiting, for a caller that can no longer await."""
        self._end_is_wanted = True
        for child in reversed(self._children):
            child.kill_now()

    def pause(self) -> None:
        """SIGSTOP: connections stay open without answers, as if the machine hangs."""
        for child in reversed(self._children):
            child.pause()

    def resume(self) -> None:
        """SIGCONT: undo ``pause``."""
        for child in self._children:
            child.resume()

    async def exited(self) -> int:
        """Wait until the server ends by itself; returns its exit code (-N: by signal N).

        An end by ``stop`` or ``kill`` does not count: the wait continues after the next start.
        """
        while True:
            child = self._main
            if child is not None and not self._end_is_wanted:
                code = await child.wait()
                if child is self._main and not self._end_is_wanted:
                    return code
            await asyncio.sleep(POLL_S)

    @property
    def _main(self) -> Child | None:
        return self._children[-1] if self._children else None

    @abstractmethod
    async def _prepare(self) -> None:
        """Find the programs and write the files, before each launch."""

    @abstractmethod
    async def _launch(self) -> None:
        """Call ``_spawn`` for the helpers and, last, for the server on ``self.port``."""

    @abstractmethod
    async def _is_ready(self) -> bool:
        """Whether the server answers; polled every 20 ms."""

    def _spawn(
        self,
        command: Sequence[str | Path],
        *,
        environment: Mapping[str, str],
        account: Account | None = None,
    ) -> Child:
        # A child inherits the lock, so the directory stays locked if it outlives this process.
        inherited = self._lock_fd if self.children_hold_lock else None
        child = launch(
            command,
            log=self.log_path,
            cwd=self.directory,
            environment=environment,
            account=account,
            keep_fds=[] if inherited is None else [inherited],
        )
        self._children.append(child)
        return child

    async def _start_on_a_port(self) -> None:
        for attempt in range(1, self._limits.server_port_attempts_max + 1):
            if not self._port_pinned:
                self.port = free_port()
            elif not port_is_free(self.port):
                raise PortTaken(f"{self.name} cannot listen on port {self.port}: it is in use")
            self._log_offset = self.log_path.stat().st_size if self.log_path.exists() else 0
            try:
                await self._launch()
                await self._wait_until_ready()
                break
            except PortTaken:
                await self.kill()
                if self._port_pinned or attempt == self._limits.server_port_attempts_max:
                    raise
        self._port_pinned = True  # clients know it now
        self._end_is_wanted = False
        self._note_pid()

    async def _wait_until_ready(self) -> None:
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._limits.server_start_s
        while not await self._is_ready():
            ended = next((child for child in self._children if child.exit_code is not None), None)
            if ended is not None:
                raise self._failure(f"ended with exit code {ended.exit_code} while starting")
            if clock() > deadline:
                raise self._failure(f"was not ready after {self._limits.server_start_s:g} s")
            await asyncio.sleep(POLL_S)

    def _failure(self, what: str) -> StackError:
        """An error in one line: the failure, the end of the log, and the path of the log."""
        lines = [line.strip() for line in self._fresh_log().splitlines() if line.strip()]
        tail = " | ".join(lines)[-TAIL_CHARS_MAX:] or "its log is empty"
        kind = PortTaken if PORT_IN_USE.search(self._fresh_log()) else StackError
        return kind(f"{self.name} {what}: {tail} (log: {self.log_path})")

    def _fresh_log(self) -> str:
        """The log since the launch, without the lines of earlier runs."""
        with suppress(OSError), self.log_path.open("rb") as log:
            log.seek(self._log_offset)
            return log.read().decode(errors="replace")
        return ""

    async def _lock_directory(self) -> None:
        """Create the directory and lock it, so that two servers never work on the same data."""
        if self._lock_fd is not None:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        if (
            self.log_path.exists()
            and self.log_path.stat().st_size > self._limits.server_log_bytes_max
        ):
            os.truncate(self.log_path, 0)
        lock_fd = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        deadline = asyncio.get_running_loop().time() + self._limits.server_lock_wait_s
        while True:
            try:
                fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if asyncio.get_running_loop().time() < deadline:
                    await asyncio.sleep(POLL_S)
                    continue
                holder = os.pread(lock_fd, 32, 0).decode(errors="replace").strip() or "unknown"
                os.close(lock_fd)
                raise StackError(
                    f"{self.name} is already running on {self.directory} (process {holder}): "
                    "stop it, or use another directory"
                ) from None
            self._lock_fd = lock_fd
            return

    def _note_pid(self) -> None:
        if self._lock_fd is not None:
            os.ftruncate(self._lock_fd, 0)
            os.pwrite(self._lock_fd, f"{self.pid}\n".encode(), 0)

    async def _leave(self) -> None:
        try:
            await self.kill()
        finally:
            if self._lock_fd is not None:
                os.close(self._lock_fd)
                self._lock_fd = None
