"""The load test as a process, with its exit code and its verdict."""

import sys
import tempfile
from asyncio import timeout
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from tests.support.project import ROOT
from tests.support.waiting import SLOWNESS, patient_s
from transferd.devstack.process import clean_environment, launch

# Service levels that every machine meets, for runs that do not test latencies.
LEVELS = ("--p95", "60000", "--p99", "120000")
_LOCUST = (sys.executable, "-m", "locust", "--locustfile", ROOT / "loadtest" / "locustfile.py")


def run_s(seconds: float) -> float:
    """The duration of a run, longer on a slower machine."""
    return round(seconds * min(SLOWNESS, 2.0))


def run_time(seconds: float) -> tuple[str, str]:
    """The option that sets this duration."""
    return "--run-time", f"{run_s(seconds):.0f}s"


@dataclass(frozen=True)
class LoadTest:
    """The result. `code` is -9 if it was killed; `verdict` is empty if it printed none."""

    code: int
    output: str
    verdict: dict[str, Any]

    @property
    def line(self) -> str:
        """The verdict in one line."""
        assert self.verdict, self.output
        line: str = self.verdict["line"]
        return line

    @property
    def violations(self) -> list[dict[str, str]]:
        """Its violations: a `kind` and a `text` each."""
        assert self.verdict, self.output
        found: list[dict[str, str]] = self.verdict["violations"]
        return found


async def locust(*arguments: str, host: str, within_s: float = 40.0) -> LoadTest:
    """Run it against `host`; it is killed with its processes if it takes too long."""
    with tempfile.TemporaryDirectory(prefix="transferd-locust-") as name:
        verdict, log = Path(name, "verdict.json"), Path(name, "output.log")
        child = launch(
            [*_LOCUST, "--host", host, "--headless", "--verdict", verdict, *arguments],
            log=log,
            cwd=ROOT,
            # Locust reads its options from the environment as well.
            environment=clean_environment("LOCUST_"),
        )
        try:
            # The exit code shows whether it was killed.
            with suppress(TimeoutError):
                async with timeout(patient_s(within_s)):
                    await child.wait()
        finally:
            await child.kill()
        return _load_test(await child.wait(), log, verdict)


def _load_test(code: int, log: Path, file: Path) -> LoadTest:
    verdict: dict[str, Any] = {}
    # A killed run has no verdict or an incomplete one.
    with suppress(FileNotFoundError, orjson.JSONDecodeError):
        verdict = orjson.loads(file.read_bytes())
    return LoadTest(code, log.read_text(errors="replace"), verdict)
