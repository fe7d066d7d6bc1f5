"""Runs `transferd` and other programs as processes, until a block ends or until they exit."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner

from tests.support.waiting import patient_s, until
from transferd.cli import main
from transferd.devstack.process import Process, process_table, process_tree

TRANSFERD = Path(sys.executable).with_name("transferd")
# Most waits end within two seconds.
WITHIN_S = 15.0

_PREFIX = "TRANSFERD_"


def environment(changes: Mapping[str, str]) -> dict[str, str]:
    """The environment of the tests without settings of the service, then the changes."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_PREFIX)}
    return kept | dict(changes)


class Command:
    """A process; `output` is its stdout and stderr so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.output = ""
        self._process = process
        self._reading = asyncio.create_task(self._read())

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.returncode is None

    @property
    def url(self) -> str:
        """The URL that it has printed."""
        match = re.search(r"http://127\.0\.0\.1:\d+", self.output)
        assert match is not None, self.output
        return match.group()

    def pid_of(self, server: str) -> int:
        """The process id of one of its private servers, from the output."""
        match = re.search(rf"^{server} .* process (\d+)", self.output, re.MULTILINE)
        assert match is not None, self.output
        return int(match.group(1))

    def lines_with(self, text: str) -> list[str]:
        """The printed lines that contain this text."""
        return [line for line in self.output.splitlines() if text in line]

    def processes(self) -> list[Process]:
        """Itself and all processes below it."""
        return process_tree(self.pid)

    async def says(self, text: str) -> None:
        """Wait until it has printed the text; AssertionError with its output if it ends before."""
        await until(lambda: text in self.output or not self.is_running, within_s=WITHIN_S)
        assert text in self.output, self.output

    def send(self, number: signal.Signals) -> None:
        """Signal this process only."""
        self._process.send_signal(number)

    async def end(self) -> int:
        """Wait until it exits and its output is read; return the exit code."""
        code = await asyncio.wait_for(self._process.wait(), patient_s(WITHIN_S))
        await self._reading
        return code

    async def kill(self) -> None:
        """End it at once; its servers end with it."""
        if self.is_running:
            self._process.kill()
        await self.end()

    async def _read(self) -> None:
        stream = self._process.stdout
        assert stream is not None
        while chunk := await stream.read(4096):
            self.output += chunk.decode()


@asynccontextmanager
async def running(
    *arguments: str, settings: Mapping[str, str], program: Sequence[str | Path] = (TRANSFERD,)
) -> AsyncIterator[Command]:
    """Run `transferd` with these arguments and no other settings; kill it when the block ends."""
    process = await asyncio.create_subprocess_exec(
        *program,
        *arguments,
        env=environment(settings),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    command = Command(process)
    try:
        yield command
    finally:
        await command.kill()


async def run(*arguments: str, settings: Mapping[str, str]) -> tuple[int, str]:
    """Run `transferd` until it ends: the exit code and the output."""
    async with running(*arguments, settings=settings) as command:
        return await command.end(), command.output


def alive(processes: Sequence[Process]) -> list[Process]:
    """The processes that still run; a later process with the same pid does not count."""
    table = process_table()
    return [
        process
        for process in processes
        if (now := table.get(process.pid)) is not None
        and now.alive
        and now.started == process.started
    ]


def working_in(directory: Path) -> list[int]:
    """The processes with a path below the directory among their arguments."""
    found = []
    for process in process_table().values():
        try:
            arguments = Path("/proc", str(process.pid), "cmdline").read_bytes()
        except OSError:  # it ended after the table was read
            continue
        if process.alive and str(directory).encode() in arguments:
            found.append(process.pid)
    return found


@dataclass(frozen=True)
class Finished:
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """The error in the one line that a failed command prints."""
        assert self.code == 1, self
        assert self.out == "", self
        [line] = self.err.splitlines()
        assert line.startswith("Error: "), self
        return line.removeprefix("Error: ")


async def transferd(*arguments: str, **settings: str) -> Finished:
    """Run a command of `transferd` to its end, in a thread. `port="1"` sets TRANSFERD_PORT."""
    variables: dict[str, str | None] = {
        name: None for name in os.environ if name.startswith(_PREFIX)
    }
    variables |= {f"{_PREFIX}{name.upper()}": value for name, value in settings.items()}
    result = await asyncio.to_thread(CliRunner().invoke, main, arguments, env=variables)
    return Finished(result.exit_code, result.stdout, result.stderr)


async def ran(*command: str | Path, **variables: str) -> tuple[int, str]:
    """Run any command to its end, with these variables added; return exit code and output."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env=os.environ | variables,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()
