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

# Service levels of a run that is not about its latencies: no machine is so slow.
LEVELS = ("--p95", "60000", "--p99", "120000")
_LOCUST = (sys.executable, "-m", "locust", "--locustfile", ROOT / "loadtest" / "locustfile.py")


def run_s(seconds: float) -> float:
    """How long a run is, so that it is worth something on a machine that is slower."""
    return round(seconds * min(SLOWNESS, 2.0))


def run_time(seconds: float) -> tuple[str, str]:
    """The option for that."""
    return "--run-time", f"{run_s(seconds):.0f}s"


@dataclass(frozen=True)
class LoadTest:
    """How it ended. `code` is -9 if it had to be ended; `verdict` is empty if it gave none."""

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
    """Run it against `host`; it is ended, with all that it has started, if it takes longer."""
    with tempfile.TemporaryDirectory(prefix="transferd-locust-") as name:
        verdict, log = Path(name, "verdict.json"), Path(name, "output.log")
        child = launch(
            [*_LOCUST, "--host", host, "--headless", "--verdict", verdict, *arguments],
            log=log,
            cwd=ROOT,
            # Locust takes any of its options from there as well.
            environment=clean_environment("LOCUST_"),
        )
        try:
            # The exit code shows whether it was in time.
            with suppress(TimeoutError):
                async with timeout(patient_s(within_s)):
                    await child.wait()
        finally:
            await child.kill()
        return _load_test(await child.wait(), log, verdict)


def _load_test(code: int, log: Path, file: Path) -> LoadTest:
    verdict: dict[str, Any] = {}
    # Ended before it came to a verdict, it has none, or one that stops in the middle.
    with suppress(FileNotFoundError, orjson.JSONDecodeError):
        verdict = orjson.loads(file.read_bytes())
    return LoadTest(code, log.read_text(errors="replace"), verdict)
