"""Modules of the load test that do not import Locust: it replaces sockets and threads by gevent's,
which breaks asyncio."""

import subprocess
import sys

from tests.support.project import ROOT

PURE = (
    *(
        "api",
        "api_keys",
        "attacks",
        "audit",
        "book_reading",
        "each_ledger",
        "options",
        "progress",
        "proof.bounded",
        "proof.check",
        "report",
    ),
    *("scenarios", "seeding", "session", "shapes", "verdict", "world"),
)
_FRESH = """
import importlib, sys
from gevent import monkey
for module in sys.argv[1:]:
    importlib.import_module("loadtest." + module)
    assert "locust" not in sys.modules and not monkey.is_module_patched("socket"), module
"""


def test_pure_modules_do_not_import_locust() -> None:
    subprocess.run([sys.executable, "-c", _FRESH, *PURE], cwd=ROOT, check=True)
