"""`make test-configurations`: the tests of correctness, once in each configuration."""

import subprocess
import sys
import time

from tests.support.configurations import CONFIGURATIONS

# Tests that check money through the service and the fixtures. The others are about
# tools, pages and processes, which do not depend on the configuration.
SUITE = (
    "tests/acceptance",
    "tests/migration",
    *(
        f"tests/fault/test_{name}.py"
        for name in (
            *("broker_outage", "commit_cuts", "kill_postgres", "kill_replica", "redis_faults"),
            *("replicas_behind_nginx", "server_trouble", "worker_faults"),
        )
    ),
    *(
        f"tests/integration/test_{name}.py"
        for name in (
            *("audit", "back_pressure", "cache_coherence", "dead_letters", "disconnects"),
            *("idempotency_races", "key_uses", "notifier", "prune", "races", "relay"),
            "state_machine",
        )
    ),
)


def summary(output: list[str]) -> str:
    """The counts of a run of pytest, deselected tests included."""
    left_out = sum(
        int(line.split("[")[1].split("]")[0]) for line in output if line.startswith("DESELECTED [")
    )
    count = output[-1].strip().strip("= ") if output else "nothing was said"
    return f"{count}, {left_out} deselected"


def run(name: str, *arguments: str) -> tuple[bool, str]:
    """The suite in this configuration: whether it passed, and its summary."""
    command = [sys.executable, "-m", "pytest", "--configuration", name, *arguments]
    output = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            sys.stdout.write(line)
            sys.stdout.flush()
            output.append(line)
    # 5: no test was selected, which `-k` may cause in one configuration only.
    return process.returncode in (0, 5), summary(output)


def main(*arguments: str) -> int:
    """A line for each configuration; 1 if one of them failed."""
    lines, passed = [], True
    for name in CONFIGURATIONS:
        started = time.monotonic()
        well, said = run(name, *SUITE, *arguments)
        took_s = time.monotonic() - started
        lines.append(f"{name:14}{'passed' if well else 'FAILED'} in {took_s:.0f} s: {said}")
        print(lines[-1], flush=True)
        passed = passed and well
    print("", *lines, sep="\n")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
