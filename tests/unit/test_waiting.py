"""How long tests wait, and how it depends on the machine."""

import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from tests.support import waiting
from tests.support.project import ROOT
from tests.support.waiting import measured_slowness, patient_s, until

_TELL = "from tests.support import waiting; print(waiting.SLOWNESS)"


def told(**environment: str) -> float:
    """The slowness in a process of its own."""
    variables = {key: value for key, value in os.environ.items() if key != "SLOWNESS_OF_TESTS"}
    process = subprocess.run(
        [sys.executable, "-c", _TELL],
        cwd=ROOT,
        env=variables | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return float(process.stdout)


def test_all_processes_of_a_run_go_by_one_measurement() -> None:
    assert told(SLOWNESS_OF_TESTS="7.5") == 7.5
    # Child processes inherit the value of this process.
    assert float(os.environ["SLOWNESS_OF_TESTS"]) == waiting.SLOWNESS


def test_a_machine_that_takes_longer_is_as_much_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0

    async def piece() -> None:
        nonlocal now_s
        now_s += takes_s

    monkeypatch.setattr(waiting, "_piece", piece)
    monkeypatch.setattr(waiting, "time", SimpleNamespace(perf_counter=lambda: now_s))
    takes_s = 4 * waiting._PIECE_S
    assert measured_slowness() == pytest.approx(4.0)
    takes_s = 0.5 * waiting._PIECE_S
    assert measured_slowness() == 1.0


async def test_a_condition_that_never_holds_is_given_up() -> None:
    asked = 0

    async def never() -> bool:
        nonlocal asked
        asked += 1
        return False

    with pytest.raises(AssertionError, match="never"):
        await until(never, within_s=0.05)
    assert asked == pytest.approx(patient_s(0.05) / 0.01, abs=1)


async def test_a_loop_that_is_late_extends_the_deadline() -> None:
    polls = 0

    def holds_late() -> bool:
        nonlocal polls
        polls += 1
        # As if other processes had the core: time passes without polls.
        began_s = time.monotonic()
        while time.monotonic() < began_s + 0.05:
            pass
        return time.monotonic() > due_s

    due_s = time.monotonic() + 2 * patient_s(0.1)
    await until(holds_late, within_s=0.1)
    assert polls > 1


async def test_deadlines_are_longer_by_the_slowness(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = patient_s(1.0)
    monkeypatch.setattr(waiting, "SLOWNESS", waiting.SLOWNESS * 3)
    assert patient_s(1.0) == pytest.approx(3 * usual)
