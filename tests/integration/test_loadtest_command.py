"""`make loadtest` (`python -m loadtest`): with its own topology and on a running service."""

import os
import signal
import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import orjson

from tests.conftest import Replicas
from tests.support.command import Command, alive, running
from tests.support.locusts import LEVELS, locust, run_time
from tests.support.project import ROOT


def only_folder(path: Path) -> Path:
    [folder] = path.iterdir()
    return folder


def is_locust(pid: int) -> bool:
    return b"locustfile" in Path("/proc", str(pid), "cmdline").read_bytes()


def load_test(*arguments: str) -> AbstractAsyncContextManager[Command]:
    """`python -m loadtest` with few users."""
    return running(
        *("-m", "loadtest", *arguments, "--users", "10", "--wallets", "40", "--think", "0.1"),
        *LEVELS,
        settings={},
        program=(sys.executable,),
    )


async def test_ctrl_c_ends_a_run_on_its_own_topology_with_a_report_and_no_process(
    tmp_path: Path,
) -> None:
    arguments = ("--scenario", "mixed", "--reports", str(tmp_path), "--run-time", "10m")
    async with load_test(*arguments) as command:
        await command.says("/transfers/batch")
        started = command.processes()
        [locust] = [each for each in started if each.parent == command.pid and is_locust(each.pid)]
        for pid in (locust.pid, command.pid):
            # To both processes, as a terminal does.
            os.kill(pid, signal.SIGINT)
        code = await command.end()
    assert code == 0, command.output
    assert "transferd load test: passed" in command.output
    assert alive(started) == []
    folder = only_folder(tmp_path)
    assert str(folder) in command.output
    names = {path.name for path in folder.iterdir()}
    assert {"report.html", "requests.json", "stats_stats.csv", "verdict.json"} <= names
    assert {"replica-1.log", "replica-2.log", "worker.log"} <= names
    verdict = orjson.loads((folder / "verdict.json").read_bytes())
    roles = sorted(target["role"] for target in verdict["server"]["targets"])
    assert roles == ["replica", "replica", "worker"]
    assert 0 < verdict["client"]["locust_share"] < 1


# A greenlet beside the users, which swallows every exception raised in it, presses Ctrl-C after 20
# requests.
_DEAF = """
import os
import signal
from itertools import count

import gevent
from locust import events

numbers = count(1)


@events.request.add_listener
def press(**_):
    if next(numbers) == 20:
        gevent.spawn(interrupt)


def interrupt():
    try:
        os.kill(os.getpid(), signal.SIGINT)
        gevent.sleep(0)
    except KeyboardInterrupt:
        pass
"""


async def test_ctrl_c_works_in_every_greenlet(replicas: Replicas, tmp_path: Path) -> None:
    api = await replicas.start()
    deaf = tmp_path / "deaf.py"
    deaf.write_text(_DEAF)
    test = await locust(
        *("--locustfile", f"{ROOT / 'loadtest' / 'locustfile.py'},{deaf}", *LEVELS),
        *("--users", "10", "--wallets", "40", "--run-time", "10m", "--think", "0.1"),
        host=api.url,
    )
    assert test.code == 0, test.output[-5_000:]
    # The run ended long before its ten minutes.
    assert test.verdict["seconds"] < 300


async def test_a_run_may_use_an_existing_service(replicas: Replicas, tmp_path: Path) -> None:
    api = await replicas.start()
    service = ("--host", api.url, "--metrics-url", api.url, *run_time(2))
    async with load_test(
        "--scenario", "read-mostly", "--reports", str(tmp_path), *service
    ) as command:
        code = await command.end()
    assert code == 0, command.output
    verdict = orjson.loads((only_folder(tmp_path) / "verdict.json").read_bytes())
    assert verdict["host"] == api.url
    names = {name: row["requests"] for name, row in verdict["latencies_ms"].items()}
    reads = [count for name, count in names.items() if name.startswith("GET")]
    assert 0.7 < sum(reads) / verdict["requests"] < 0.97
    assert names.keys() >= {
        "GET /wallets/{id} (not modified)",
        "GET /wallets/{id}?min_version",
        "GET /transfers/{id}",
    }
    assert verdict["server"]["total"]["results"]["done"] > 0
