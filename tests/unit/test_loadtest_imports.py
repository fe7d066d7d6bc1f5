"""The parts of the load test that decide something can be used and tested without Locust: its
import replaces sockets and threads by those of gevent, which breaks asyncio."""

import subprocess
import sys

from tests.support.project import ROOT

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
from gevent import monkey
for module in sys.argv[1:]:
    importlib.import_module("loadtest." + module)
    if "locust" in sys.modules or monkey.is_module_patched("socket"):
        print(module)
        break
"""


def first_with_locust(*modules: str) -> str:
    """The first of these modules whose import imports Locust, in a new interpreter."""
    command = [sys.executable, "-c", _FRESH, *modules]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_pure_modules_do_not_import_locust() -> None:
    assert first_with_locust(*PURE) == ""


def test_an_import_of_locust_is_found() -> None:
    assert first_with_locust("world", "personas", "options") == "personas"
