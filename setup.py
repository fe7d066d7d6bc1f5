"""Builds transferd. With TRANSFERD_COMPILE set, mypyc compiles the core to C: see `make compile`."""

import os
from glob import glob

from setuptools import setup

# The modules in which a transfer spends the time of the service that is its own.
_CORE = (
    *("transferd/domain/*.py", "transferd/commit/*.py", "transferd/actors/*.py"),
    *("transferd/cache/replays.py", "transferd/cache/wallets.py"),
    *("transferd/ledger/ids.py", "transferd/ledger/store/group.py"),
    *("transferd/observability/traceparent.py", "transferd/digits.py"),
    *(
        f"transferd/web/{name}.py"
        for name in (
            *("calls", "edge", "fingerprints", "operations", "rendering", "replies"),
            "routing",
        )
    ),
)


def _extensions() -> list[object]:
    if not os.environ.get("TRANSFERD_COMPILE"):
        return []
    from mypyc.build import mypycify

    files = [file for pattern in _CORE for file in glob(pattern)]
    # Without debug information: it doubles the time of the compilation.
    return mypycify(sorted(files), group_name="transferd", debug_level="0")


setup(ext_modules=_extensions())
