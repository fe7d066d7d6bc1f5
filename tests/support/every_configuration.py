"""`make test-configurations`: the tests of correctness, once in each configuration."""

import subprocess
import sys
import time

from tests.support.configurations import CONFIGURATIONS

# Tests that check money through the service and the fixtures. The other tests check tools, pages
# and processes, which do not depend on the configuration.
SUITE = (
    "tests/acceptance",
    "tests/migration",
    *(
        f"tests/fault/test_{name}.py"
        for name in (
            *("broker_outage", "commit_cuts", "kill_postgres", "redis_faults"),
            *("replicas_behind_nginx", "server_trouble", "worker_faults"),
        )
    ),
    *(
        f"tests/integration/test_{name}.py"
        for name in (
            *("audit", "back_pressure", "cache_coherence", "dead_letters", "disconnects"),
            "hold_races",
            *("idempotency_races", "key_uses", "notifier", "prune", "races", "relay"),
            "state_machine",
        )
    ),
)


def main(*arguments: str) -> int:
    """Print a line for each configuration; return 1 if one of them failed."""
    lines, passed = [], True
    for name, configuration in CONFIGURATIONS.items():
        if configuration.has_nodes:
            continue  # `make citus`
        started = time.monotonic()
        command = [sys.executable, "-m", "pytest", "--configuration", name, *SUITE, *arguments]
        code = subprocess.run(command, check=False).returncode
        # 5: no test was selected. With `-k` that can happen in some configurations only.
        is_good = code in (0, 5)
        took_s = time.monotonic() - started
        lines.append(f"{name:14}{'passed' if is_good else 'FAILED'} in {took_s:.0f} s")
        print(lines[-1], flush=True)
        passed = passed and is_good
    print("", *lines, sep="\n")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
