"""Runs that are started and stopped on Locust's page, by a single process and by a master."""

import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from loadtest.verdict import ANSWERS_MIN
from tests.conftest import Database, Replicas
from tests.support.command import Command, running
from tests.support.project import ROOT
from tests.support.topology import admin_token
from tests.support.waiting import until
from transferd.devstack.ports import free_port

_FORM = {
    "user_count": "10",
    "spawn_rate": "10",
    "wallets": "30",
    "think": "0.05",
    # No machine is so slow.
    "p95": "60000",
    "p99": "120000",
}


class Page:
    """Locust's page; `process` is the one that serves it."""

    def __init__(self, session: aiohttp.ClientSession, process: Command) -> None:
        self.process = process
        self._session = session

    async def status(self) -> dict[str, Any]:
        """How the run goes."""
        async with self._session.get("/service/data") as response:
            found: dict[str, Any] = (await response.json())["status"]
            return found

    async def swarm(self, **changes: str) -> None:
        """Press Start, and wait until users are there."""
        async with self._session.post("/swarm", data=_FORM | changes) as response:
            assert (await response.json())["success"] is True

    async def until_running(self, *, transfers: int = 1) -> None:
        """Wait until users have been there for a while and transfers of this run were answered."""

        async def runs() -> bool:
            # Until then the statistics are those of the run before.
            if float((await self.status())["seconds"]) <= 1.5:
                return False
            async with self._session.get("/stats/requests") as response:
                known = await response.json()
            paid = [row["num_requests"] for row in known["stats"] if row["name"] == "/transfers"]
            return sum(map(int, paid)) >= transfers

        await until(runs, within_s=30)

    async def is_started(self) -> bool:
        """Whether the wallets are ready and Locust starts the users."""
        return bool((await self.status())["state"] == "running")

    async def until_verdict(self) -> str:
        """Wait for it."""

        async def is_over() -> bool:
            status = await self.status()
            return status["state"] == "finished" and status["verdict"] is not None

        await until(is_over, within_s=40)
        return str((await self.status())["verdict"])

    async def stop(self) -> str:
        """Press Stop; the verdict."""
        async with self._session.post("/stop") as response:
            assert response.status == 200
        return await self.until_verdict()

    async def workers(self) -> int:
        """Those that have connected."""
        async with self._session.get("/worker-count") as response:
            return int((await response.json())["worker_count"])


@asynccontextmanager
async def page(host: str, *arguments: str, workers: int = 0) -> AsyncIterator[Page]:
    """Locust with its page."""
    port, master = str(free_port()), str(free_port())
    locust = ("-m", "locust", "--locustfile", str(ROOT / "loadtest/locustfile.py"))
    async with AsyncExitStack() as exits:
        process = await exits.enter_async_context(
            running(
                *(*locust, "--host", host, "--web-host", "127.0.0.1", "--web-port", port),
                *(("--master", "--master-bind-port", master) if workers else ()),
                *arguments,
                settings={},
                program=(sys.executable,),
            )
        )
        session = await exits.enter_async_context(aiohttp.ClientSession(f"http://127.0.0.1:{port}"))
        shown = Page(session, process)
        await process.says("Starting web interface")
        for _ in range(workers):
            await exits.enter_async_context(
                running(
                    *(*locust, "--worker", "--master-port", master),
                    settings={},
                    program=(sys.executable,),
                )
            )

        async def is_ready() -> bool:
            try:
                return await shown.workers() == workers
            except aiohttp.ClientError:
                return False

        await until(is_ready, within_s=30)
        yield shown


@pytest.mark.parametrize("workers", [0, 1])
async def test_one_run_after_the_other_is_judged_by_itself(
    replicas: Replicas, workers: int
) -> None:
    api = await replicas.start()
    async with page(api.url, workers=workers) as shown:
        await shown.swarm(scenario="uniform", p99="0.0001")
        # With fewer there is no p99.
        await shown.until_running(transfers=ANSWERS_MIN)
        assert "too slow" in await shown.stop()
        # At once, and with other options than before.
        await shown.swarm(scenario="read-mostly")
        await shown.until_running()
        assert (await shown.stop()).startswith("passed")
        assert (await shown.status())["scenario"] == "read-mostly"


async def test_users_of_a_stopped_run_send_no_transfer_after_their_worker_has_reported(
    replicas: Replicas,
) -> None:
    api = await replicas.start()
    async with page(api.url, workers=1) as shown:
        await shown.swarm(scenario="uniform")
        await shown.until_running()
        assert (await shown.stop()).startswith("passed")
        # Often the worker reads the messages that start and stop its users in one go.
        for _ in range(4):
            await shown.swarm(scenario="uniform")
            await until(shown.is_started, within_s=30)
            verdict = await shown.stop()
            assert (await shown.status())["violations"] == 0, verdict
            assert "without a report" not in verdict


async def test_a_ramp_that_found_its_limit_is_followed_by_another_run(replicas: Replicas) -> None:
    api = await replicas.start()
    async with page(api.url) as shown:
        await shown.swarm(shape="ramp", p99="0.0001", user_count="200", run_time="60")
        # At its very first step, so it has no limit to tell.
        assert "too slow" in await shown.until_verdict()
        await shown.swarm(shape="constant")
        await shown.until_running()
        assert (await shown.stop()).startswith("passed")


async def test_the_page_cannot_send_the_api_key_to_another_host(replicas: Replicas) -> None:
    api, other = await replicas.start(), await replicas.start()
    async with page(api.url, "--api-key", "td_x_" + "0" * 43) as shown:
        await shown.swarm(host=other.url)
        assert f"the API key is for {api.url}" in await shown.until_verdict()
    metrics = await other.get("/metrics")
    assert b'http_route="/users"' not in metrics.body


async def test_the_page_cannot_choose_the_file_of_the_verdict(
    replicas: Replicas, tmp_path: Path
) -> None:
    api = await replicas.start()
    file = tmp_path / "verdict.json"
    async with page(api.url) as shown:
        await shown.swarm(verdict=str(file))
        await shown.until_running()
        await shown.stop()
    assert not file.exists()


async def test_workers_take_the_options_of_their_master(
    replicas: Replicas, database: Database
) -> None:
    token = await admin_token(database)
    api = await replicas.start(auth="on")
    async with page(api.url, "--api-key", token, workers=1) as shown:
        # The first run already: a worker knows nothing but where its master is.
        await shown.swarm(scenario="mixed")
        await shown.until_running()
        verdict = await shown.stop()
    assert verdict.startswith("passed")
    assert " 0 failed" in verdict
