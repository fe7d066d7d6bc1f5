"""`python -m loadtest`, which is `make loadtest`: on a stack of its own, on a running service."""

import os
import signal
import sys
from pathlib import Path

import orjson

from tests.conftest import Replicas
from tests.support.command import alive, running
from tests.support.locusts import LEVELS, locust, run_time
from tests.support.project import ROOT
from tests.support.waiting import SLOWNESS

_SHORT = ("--users", "10", "--wallets", "40")


def only_folder(path: Path) -> Path:
    [folder] = path.iterdir()
    return folder


def is_locust(pid: int) -> bool:
    return b"locustfile" in Path("/proc", str(pid), "cmdline").read_bytes()


async def test_a_run_starts_a_topology_of_its_own(tmp_path: Path) -> None:
    async with running(
        *("-m", "loadtest", "--scenario", "mixed", "--reports", str(tmp_path), *_SHORT),
        *(*run_time(5), "--think", "0.1", *LEVELS),
        settings={},
        program=(sys.executable,),
    ) as command:
        code = await command.end()
    assert code == 0, command.output
    folder = only_folder(tmp_path)
    names = {path.name for path in folder.iterdir()}
    assert {"report.html", "requests.json", "stats_stats.csv", "verdict.json"} <= names
    assert {"replica-1.log", "replica-2.log", "worker.log"} <= names
    verdict = orjson.loads((folder / "verdict.json").read_bytes())
    roles = sorted(target["role"] for target in verdict["server"]["targets"])
    assert roles == ["replica", "replica", "worker"]
    assert verdict["server"]["total"]["results"]["done"] > 0
    assert 0 < verdict["client"]["locust_share"] < 1
    assert str(folder) in command.output


async def test_ctrl_c_audits_the_run_and_leaves_no_process(tmp_path: Path) -> None:
    async with running(
        *("-m", "loadtest", "--replicas", "1", "--reports", str(tmp_path), *_SHORT),
        *("--run-time", "10m", "--think", "0.1", *LEVELS),
        settings={},
        program=(sys.executable,),
    ) as command:
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


# A greenlet beside the users swallows every exception raised in it.
_DEAF = """
import os
import signal

import gevent
from locust import events


@events.test_start.add_listener
def press(**_):
    gevent.spawn_later({seconds}, interrupt)


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
    deaf.write_text(_DEAF.replace("{seconds}", f"{2 * SLOWNESS}"))
    test = await locust(
        *("--locustfile", f"{ROOT / 'loadtest' / 'locustfile.py'},{deaf}", *_SHORT),
        *("--run-time", "10m", "--think", "0.1", *LEVELS),
        host=api.url,
    )
    assert test.code == 0, test.output[-5_000:]
    # Long before the ten minutes are over.
    assert test.verdict["seconds"] < 300


async def test_a_run_may_use_an_existing_service(replicas: Replicas, tmp_path: Path) -> None:
    api = await replicas.start()
    async with running(
        *("-m", "loadtest", "--scenario", "uniform", "--host", api.url, *_SHORT),
        *("--reports", str(tmp_path), *run_time(3), "--think", "0.1"),
        *("--metrics-url", api.url, *LEVELS),
        settings={},
        program=(sys.executable,),
    ) as command:
        code = await command.end()
    assert code == 0, command.output
    folder = only_folder(tmp_path)
    verdict = orjson.loads((folder / "verdict.json").read_bytes())
    assert verdict["host"] == api.url
    assert verdict["server"]["total"]["results"]["done"] > 0
