"""Locust's page: runs that are started and stopped on it, and its tab "Service" in a browser."""

import re
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from playwright.async_api import Locator, Route, expect
from playwright.async_api import Page as BrowserPage

from loadtest.verdict import ANSWERS_MIN
from tests.conftest import Database, Replicas, Workers
from tests.support.api import Api
from tests.support.browser import open_page
from tests.support.command import Command, running
from tests.support.project import ROOT
from tests.support.topology import admin_token
from tests.support.waiting import until
from tests.support.watching import promtool
from transferd.devstack.ports import free_port

_FORM = {
    "user_count": "10",
    "spawn_rate": "10",
    "wallets": "30",
    "think": "0.05",
    # Levels that every machine keeps.
    "p95": "60000",
    "p99": "120000",
}

# The tab shows an en dash.
_NO_VALUE = "\u2013"


class Page:
    """Locust's page at `url`; `process` serves it."""

    def __init__(
        self, url: str, session: aiohttp.ClientSession, process: Command, prefix: str
    ) -> None:
        self.url = url
        self._prefix = prefix
        self.process = process
        self._session = session

    async def text(self, path: str) -> str:
        """The body of a GET, which must succeed."""
        async with self._session.get(path) as response:
            assert response.status == 200, (path, response.status)
            return await response.text()

    async def status(self) -> dict[str, Any]:
        """The state of the run."""
        async with self._session.get("/service/data") as response:
            found: dict[str, Any] = (await response.json())["status"]
            return found

    async def swarm(self, **changes: str) -> None:
        """Press Start; the run starts with seeding."""
        async with self._session.post("/swarm", data=_FORM | changes) as response:
            assert (await response.json())["success"] is True

    async def until_running(self, *, transfers: int = 1) -> None:
        """Wait until users have run for a while and transfers of this run were answered."""

        async def runs() -> bool:
            # Until then the statistics are of the previous run.
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
        """Wait for the verdict."""

        async def is_over() -> bool:
            status = await self.status()
            return status["state"] == "finished" and status["verdict"] is not None

        await until(is_over, within_s=40)
        return str((await self.status())["verdict"])

    async def stop(self) -> str:
        """Press Stop, and wait for the verdict."""
        async with self._session.post("/stop") as response:
            assert response.status == 200
        return await self.until_verdict()

    async def workers(self) -> int:
        """How many workers have connected."""
        async with self._session.get(f"{self._prefix}/worker-count") as response:
            return int((await response.json())["worker_count"])


@asynccontextmanager
async def page(
    host: str, *arguments: str, workers: int = 0, prefix: str = ""
) -> AsyncIterator[Page]:
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
        url = f"http://127.0.0.1:{port}"
        session = await exits.enter_async_context(aiohttp.ClientSession(url))
        shown = Page(url, session, process, prefix)
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


async def expect_positive(row: Locator, figure: str) -> None:
    """Wait until a figure in this row of the table is a number above zero."""
    await expect(row.locator(f"[data-figure={figure}]")).to_have_text(re.compile(r"[1-9]"))


async def assert_no_horizontal_scrolling(browser: BrowserPage) -> None:
    for frame in browser.frames:
        wide, visible = await frame.evaluate(
            "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        )
        assert wide <= visible, frame.url


async def with_violations(route: Route) -> None:
    """Answer a request of the tab with violations and without processes."""
    data = await (await route.fetch()).json()
    data["status"] |= {"violations": 3, "verdict": "FAILED: 3 of them twice"}
    await route.fulfill(json=data | {"has_urls": False})


async def test_the_tab_shows_the_figures_of_a_run(api: Api, workers: Workers) -> None:
    worker = await workers.start()
    names = [url.removeprefix("http://") for url in (api.url, worker.url, "http://127.0.0.1:9")]
    urls = [option for name in names for option in ("--metrics-url", name)]
    async with page(api.url, *urls) as shown, open_page(width=1366, height=768) as browser:
        await shown.swarm(scenario="mixed")
        await shown.until_running()
        await browser.emulate_media(color_scheme="light")
        await browser.goto(shown.url)
        frame = browser.locator("#transferd-service")
        await expect(browser.get_by_role("tab").first).to_be_visible()
        await expect(frame).to_have_count(0)
        await browser.get_by_role("tab", name="Service", exact=True).click()
        tab = frame.content_frame
        replica, relay, down, total = (
            tab.locator("#rows tr").filter(has_text=name) for name in (*names, "total")
        )
        for figure in ("done_per_s", "refused_per_s", "group_size_mean", "commit_p95_ms"):
            await expect_positive(replica, figure)
            await expect_positive(total, figure)
        for row in (replica, relay, total):
            await expect_positive(row, "rss_mib")
        await expect(relay.locator("[data-figure=outbox_waiting]")).to_have_text(re.compile(r"\d"))
        await expect(relay.locator("[data-figure=done_per_s]")).to_have_text(_NO_VALUE)
        for row, state in ((replica, "replica up"), (relay, "worker up"), (down, "down")):
            await expect(row.locator(".state")).to_have_text(state)
        await expect(tab.locator("#charts canvas")).to_have_count(6)
        # A line for each outcome, each replica, and the worker.
        await expect(tab.locator("#charts .u-series + .u-series")).to_have_count(4 + 4 + 1)
        for text in ("running", "mixed", "constant", "0 violations"):
            await expect(tab.locator("header")).to_contain_text(text)
        await assert_no_horizontal_scrolling(browser)
        # Locust's button for the theme has no name; it is the last one of the bar.
        await browser.locator("header button").last.click()
        await expect(tab.locator("html")).to_have_attribute("data-theme", "dark")
        await browser.get_by_role("tab").first.click()
        await expect(frame).to_be_hidden()
        verdict = await shown.stop()
        await browser.goto(f"{shown.url}/?tab=service")
        await expect(tab.locator("#verdict")).to_have_text(verdict)
        # A sound service has no violations, so the data are changed on their way to the page.
        await browser.route("**/service/data*", with_violations)
        await expect(tab.locator("#violations.some")).to_have_text("3 violations")
        await expect(tab.locator("#verdict")).to_have_text("FAILED: 3 of them twice")
        await expect(tab.locator("#without-urls")).to_contain_text("--metrics-url")


@pytest.mark.parametrize("prefix", ["", "/load"])
async def test_prometheus_scrapes_the_page_or_a_port_of_its_own(api: Api, prefix: str) -> None:
    port = free_port()
    options = ["--metrics-port", str(port)] + ["--web-base-path", prefix] * bool(prefix)
    async with page(api.url, *options, prefix=prefix) as shown:
        for path in ("", "/data", "/static/frame.js", "/static/uplot-LICENSE.txt"):
            assert await shown.text(f"{prefix}/service{path}")
        assert "service/static/frame.js" in await shown.text(f"{prefix}/")
        if prefix:
            assert await shown.text(f"{prefix}/metrics")
            return
        await shown.swarm()
        await shown.until_running()
        for url in (f"{shown.url}/metrics", f"http://127.0.0.1:{port}/metrics"):
            metrics = await shown.text(url)
            assert 'transferd_loadtest_info{scenario="uniform",shape="constant"} 1.0' in metrics
            assert 'transferd_loadtest_users{user_class="Shopper"} 10.0' in metrics
            assert "transferd_loadtest_requests_total{" in metrics
            assert promtool("check", "metrics", stdin=metrics).returncode == 0


@pytest.mark.parametrize("workers", [0, 1])
async def test_one_run_after_the_other_is_judged_by_itself(
    replicas: Replicas, workers: int
) -> None:
    api = await replicas.start()
    async with page(api.url, workers=workers) as shown:
        await shown.swarm(scenario="uniform", p99="0.0001")
        # Fewer answers have no p99.
        await shown.until_running(transfers=ANSWERS_MIN)
        assert "too slow" in await shown.stop()
        # Immediately, and with other options.
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
        # The worker often reads the messages that start and stop its users together.
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
        # At its first step, so the verdict names no limit.
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
        # From the first run on: a worker has only the address of its master.
        await shown.swarm(scenario="mixed")
        await shown.until_running()
        verdict = await shown.stop()
    assert verdict.startswith("passed")
    assert " 0 failed" in verdict
