"""The parts of the load test that decide something can be used, and tested, without Locust: its
import puts gevent in the place of sockets and threads, which no asyncio program survives."""

import subprocess
import sys

import pytest

from tests.support.project import ROOT

PURE = (
    "api",
    "attacks",
    "options",
    "progress",
    "report",
    "scenarios",
    "seeding",
    "session",
    "shapes",
    "truth.audit",
    "truth.checks",
    "truth.compare",
    "truth.history",
    "truth.verdict",
    "truth.violations",
    "world",
)
_FRESH = """
import importlib, sys
importlib.import_module("loadtest." + sys.argv[1])
from gevent import monkey
print("locust" in sys.modules, monkey.is_module_patched("socket"))
"""


def fresh_import(module: str) -> str:
    """Whether Locust came with it, and whether sockets were replaced."""
    command = [sys.executable, "-c", _FRESH, module]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.mark.parametrize("module", PURE)
def test_a_pure_module_comes_without_locust(module: str) -> None:
    assert fresh_import(module) == "False False"


def test_locust_is_noticed_where_it_comes() -> None:
    assert fresh_import("personas") == "True True"
