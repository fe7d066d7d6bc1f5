"""Runs of pytest with failures of all kinds: other tests run, and the end lists the failures."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.project import ROOT

# The source of `unparsable` is nested too deeply for every parser.
_FAULTS = """
import os, pathlib, pytest

raising = "def unparsable(): raise ValueError('the reason')\\n"
source = pathlib.Path(__file__).with_name("deep.py")
source.write_text(raising + "x = " + "+".join(["1"] * 100_000))
exec(compile(raising, str(source), "exec"))

def recursion(depth=0):
    if depth == 900:
        raise ValueError("the reason")
    recursion(depth + 1)

def long_reason():
    raise ValueError("a text that is wider than a terminal, " * 4 + "the reason")

class Mute(Exception):
    def __str__(self):
        raise KeyError("the reason")
    __repr__ = __str__

def mute():
    raise Mute()

def crash():
    os._exit(7)
"""
# In a test, a setup and a teardown, with passing tests before, between and after them.
_TESTS = """
@pytest.fixture
def setup():
    fail()

@pytest.fixture
def teardown():
    yield
    fail()

def test_before(): pass
def test_call(): fail()
def test_between(): pass
def test_setup(setup): pass
def test_teardown(teardown): pass
@pytest.mark.parametrize("n", range(5))
def test_behind(n): pass
"""


def run(directory: Path, faults: list[str], *arguments: str) -> list[str]:
    """The output of pytest for such tests, one file per fault, by lines."""
    for fault in faults:
        text = f"{_FAULTS}\nfail = {fault}\n{_TESTS}"
        (directory / f"test_{fault}.py").write_text(text)
    process = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "xdist", "-p", "tests.support.failures"),
            # Without the summary of pytest itself, which cuts its lines, but not where CI is set.
            *(
                "-rN",
                "-W",
                "error",
                "-p",
                "no:cacheprovider",
                "--rootdir",
                str(directory),
                *arguments,
            ),
        ],
        cwd=directory,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert process.returncode == pytest.ExitCode.TESTS_FAILED, process.stdout
    return process.stdout.splitlines()


def named(output: list[str]) -> set[tuple[str, str]]:
    """The failed tests in the last lines, with the last word of their reason."""
    lines = [
        line for line in output if line.startswith(("FAILED ", "ERROR ")) and "..." not in line
    ]
    return {(line.split()[1], line.split()[-1]) for line in lines}


@pytest.mark.parametrize("arguments", [(), ("-n", "2", "--dist", "loadfile")], ids=["one", "more"])
def test_a_failure_ends_no_other_test_and_is_named_with_its_reason(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    faults = {
        "unparsable": "reason",
        "recursion": "reason",
        "long_reason": "reason",
        "mute": "failed>",
    }
    output = run(tmp_path, list(faults), *arguments)
    # A teardown that fails is an error beside a test that passes.
    assert "4 failed, 32 passed, 8 errors" in output[-1], "\n".join(output)
    assert named(output) == {
        (f"test_{fault}.py::test_{where}", reason)
        for fault, reason in faults.items()
        for where in ("call", "setup", "teardown")
    }


def test_a_process_that_ends_is_a_failure_and_all_other_tests_run_once(tmp_path: Path) -> None:
    # The test whose teardown ends the process has passed before.
    output = run(tmp_path, ["crash"], "-n", "2", "--dist", "loadfile")
    assert "3 failed, 8 passed" in output[-1], "\n".join(output)
    assert named(output) == {
        (f"test_crash.py::test_{where}", f"'test_crash.py::test_{where}'")
        for where in ("call", "setup", "teardown")
    }
