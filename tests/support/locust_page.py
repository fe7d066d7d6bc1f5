"""Locust with its page: the runs that a test starts and stops on it."""

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp

from tests.support.command import Command, running
from tests.support.project import ROOT
from tests.support.waiting import until
from transferd.devstack.ports import free_port

# The fields of a run that a test does not change. The page keeps fields that it does not get.
_FORM = {
    "user_count": "10",
    "spawn_rate": "10",
    "scenario": "uniform",
    "shape": "constant",
    "run_time": "600",
    "wallets": "30",
    "think": "0.05",
    # Levels that every machine keeps.
    "p95": "60000",
    "p99": "120000",
}


class LocustPage:
    """Locust's page at `url`; `process` serves it.

    `paid` returns how many transfers the service has executed so far.
    """

    def __init__(
        self,
        url: str,
        host: str,
        session: aiohttp.ClientSession,
        process: Command,
        paid: Callable[[], float],
    ) -> None:
        self.url = url
        self.process = process
        self._host = host
        self._session = session
        self._paid = paid

    async def text(self, path: str) -> str:
        """The body of a GET of a path of the page, or of a URL; it must succeed."""
        url = path if path.startswith("http:") else self.url + path
        async with self._session.get(url) as response:
            assert response.status == 200, (path, response.status)
            return await response.text()

    async def status(self) -> dict[str, Any]:
        """The state of the run."""
        async with self._session.get(f"{self.url}/service/data") as response:
            found: dict[str, Any] = (await response.json())["status"]
            return found

    async def swarm(self, **changes: str) -> None:
        """Press Start; the run starts with seeding."""
        if (await self.status())["state"] not in ("ready", "finished"):
            # An earlier test that failed has left its run.
            await self.stop()
        form = {"host": self._host} | _FORM | changes
        async with self._session.post(f"{self.url}/swarm", data=form) as response:
            assert (await response.json())["success"] is True

    async def until_users_run(self) -> None:
        """Wait until the wallets are ready and Locust starts the users."""

        async def they_run() -> bool:
            return bool((await self.status())["state"] == "running")

        await until(they_run, within_s=30)

    async def until_paid(self, transfers: int = 20) -> None:
        """Wait until this many transfers of this run were executed."""
        await self.until_users_run()
        # The seeding may refill wallets.
        before = self._paid()
        await until(lambda: self._paid() >= before + transfers, within_s=30)

    async def until_verdict(self) -> str:
        """Wait for the verdict."""

        async def is_over() -> bool:
            status = await self.status()
            return status["state"] == "finished" and status["verdict"] is not None

        await until(is_over, within_s=40)
        return str((await self.status())["verdict"])

    async def stop(self) -> str:
        """Press Stop, and wait for the verdict."""
        async with self._session.post(f"{self.url}/stop") as response:
            assert response.status == 200
        return await self.until_verdict()

    async def workers(self) -> int:
        """How many workers have connected."""
        async with self._session.get(f"{self.url}/worker-count") as response:
            return int((await response.json())["worker_count"])


@asynccontextmanager
async def locust_page(
    host: str, *arguments: str, paid: Callable[[], float], workers: int = 0, prefix: str = ""
) -> AsyncIterator[LocustPage]:
    """Locust with its page, whose paths begin with `prefix`; with workers it is a master."""
    port, master = str(free_port()), str(free_port())
    locust = ("-m", "locust", "--locustfile", str(ROOT / "loadtest/locustfile.py"))
    of_a_page = ("--host", host, "--web-host", "127.0.0.1", "--web-port", port, *arguments)
    of_a_master = ("--master", "--master-bind-port", master) if workers else ()
    async with AsyncExitStack() as exits:
        # A worker may start before its master: it connects when the master listens.
        process, *_ = [
            await exits.enter_async_context(
                running(*locust, *options, settings={}, program=(sys.executable,))
            )
            for options in [
                (*of_a_page, *of_a_master, *(("--web-base-path", prefix) if prefix else ())),
                *[("--worker", "--master-port", master)] * workers,
            ]
        ]
        session = await exits.enter_async_context(aiohttp.ClientSession())
        shown = LocustPage(f"http://127.0.0.1:{port}{prefix}", host, session, process, paid)
        await process.says("Starting web interface")

        async def is_ready() -> bool:
            try:
                return await shown.workers() == workers
            except aiohttp.ClientError:
                return False

        await until(is_ready, within_s=30)
        yield shown
