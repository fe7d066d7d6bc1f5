"""`make citus`: the tests of correctness on a coordinator and two workers."""

import subprocess
import sys

from tests.support.every_configuration import SUITE
from transferd.devstack import StackError, find_citus_binaries

_OWN = ("tests/integration/test_citus.py", "tests/integration/test_citus_ledgers.py")


def main(*arguments: str) -> int:
    """Run all; return 1 if one of them failed, or if no PostgreSQL here has the extension."""
    try:
        directory, version = find_citus_binaries()
    except StackError as error:
        print(f"make citus: {error}", file=sys.stderr)
        return 1
    print(f"PostgreSQL {version} with Citus from {directory}", flush=True)
    pytest = (sys.executable, "-m", "pytest", *arguments)
    steps = (
        (*pytest, *_OWN),
        (*pytest, "--configuration", "citus", *SUITE),
    )
    # 5: no test was selected. With `-k` that can happen.
    codes = [subprocess.run(step, check=False).returncode for step in steps]
    return 0 if set(codes) <= {0, 5} else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
