"""Commands that end by themselves, ours and others: how they ended, and what they said."""

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

from tests.support.command import TRANSFERD, WITHIN_S, environment
from tests.support.waiting import patient_s


@dataclass(frozen=True)
class Finished:
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """What a command that could not run said: one line, and nothing else."""
        assert self.code == 1, self
        assert self.out == "", self
        [line] = self.err.splitlines()
        assert line.startswith("Error: "), self
        return line.removeprefix("Error: ")


async def transferd(*arguments: str, **settings: str) -> Finished:
    """Run it to its end, with no settings but these: `port="1"` is TRANSFERD_PORT."""
    process = await asyncio.create_subprocess_exec(
        TRANSFERD,
        *arguments,
        env=environment({f"TRANSFERD_{name.upper()}": value for name, value in settings.items()}),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), patient_s(WITHIN_S))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return Finished(process.returncode or 0, out.decode(), err.decode())


async def ran(*command: str | Path, **environment: str) -> tuple[int, str]:
    """Run any command to its end, with these variables beside ours: its exit code and its words."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env=os.environ | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()
