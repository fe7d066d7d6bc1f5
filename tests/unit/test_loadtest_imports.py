"""The parts of the load test that decide something can be used, and tested, without Locust: its
import puts gevent in the place of sockets and threads, which no asyncio program survives."""

import subprocess
import sys

import pytest

from tests.support.tidy import ROOT, Source, imports, sources

PURE = (
    "api",
    "attacks",
    "audit",
    "options",
    "progress",
    "proof.bounded",
    "proof.check",
    "report",
    "scenarios",
    "seeding",
    "session",
    "shapes",
    "verdict",
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


def foreign_imports(source: Source) -> list[str]:
    """What the kit may not import: the load test, which uses it, and anything of the tests."""
    names = {name for _, name in imports(source.tree)}
    is_kit = source.module.startswith("loadtest.proof")
    return [
        f"{source.module} imports {name}"
        for name in sorted(names)
        if name.startswith("tests")
        or (is_kit and name.startswith("loadtest") and not name.startswith("loadtest.proof"))
    ]


def test_imports_of_the_load_test_point_down() -> None:
    assert [each for source in sources(ROOT / "loadtest") for each in foreign_imports(source)] == []
    planted = Source(
        ROOT / "x.py", "loadtest.proof.x", "import loadtest.world\nimport tests.conftest"
    )
    assert len(foreign_imports(planted)) == 2
