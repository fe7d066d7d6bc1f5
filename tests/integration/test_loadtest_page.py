"""Locust's page: runs that are started and stopped on it, and its tab "Service" in a browser."""

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Locator, Route, expect
from playwright.async_api import Page as BrowserPage

from loadtest.verdict import ANSWERS_MIN
from tests.conftest import Database, Replicas, Workers
from tests.support.browser import open_page
from tests.support.locust_page import LocustPage, locust_page
from tests.support.pressure import counted
from tests.support.servers import Servers
from tests.support.topology import admin_token
from tests.support.watching import promtool
from transferd.devstack import RabbitServer
from transferd.devstack.ports import free_port

# The pages and the service serve all tests of this file.
pytestmark = pytest.mark.asyncio(loop_scope="module")

# The tab shows an en dash.
_NO_VALUE = "\u2013"
KINDS = ["local", "distributed"]
NOTHING_LISTENS = "http://127.0.0.1:9"


@dataclass(frozen=True)
class Pages:
    """The pages of Locust in one process and of a master with a worker, for the same service.

    `service` and `worker` are the URLs of processes of the service, `metrics_port` a port of the
    local page.
    """

    local: LocustPage
    distributed: LocustPage
    replicas: Replicas
    service: str
    worker: str
    metrics_port: int

    def of(self, kind: str) -> LocustPage:
        """The page of this kind."""
        return self.local if kind == "local" else self.distributed


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def database(servers: Servers) -> AsyncIterator[Database]:
    """A database for all tests of this file."""
    name, redis_number = await servers.new_database()
    yield Database(name, redis_number, servers)
    await servers.drop_database(name)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pages(database: Database, rabbitmq: RabbitServer) -> AsyncIterator[Pages]:
    """Both pages, with the same API key."""
    async with AsyncExitStack() as exits:
        workers = Workers(database, rabbitmq.url, exits)
        exits.push_async_callback(workers.remove_queues)
        worker = (await workers.start(notify_log=False)).url
        replicas = Replicas(database, exits)
        service = (await replicas.start(auth="on")).url
        port = free_port()
        names = (service, worker, NOTHING_LISTENS)
        urls = [word for name in names for word in ("--metrics-url", name)]
        key = ("--api-key", await admin_token(database))

        def paid() -> float:
            return counted(
                replicas,
                "http_server_request_duration_seconds_count",
                http_request_method="POST",
                http_route="/transfers",
                http_response_status_code="201",
            )

        local = await exits.enter_async_context(
            locust_page(service, *key, *urls, "--metrics-port", str(port), paid=paid)
        )
        distributed = await exits.enter_async_context(
            locust_page(service, *key, paid=paid, workers=1, prefix="/load")
        )
        yield Pages(local, distributed, replicas, service, worker, port)


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


async def test_the_tab_shows_the_figures_of_a_run(pages: Pages) -> None:
    shown = pages.local
    names = [url.removeprefix("http://") for url in (pages.service, pages.worker, NOTHING_LISTENS)]
    async with open_page(width=1366, height=768) as browser:
        await shown.swarm(scenario="mixed")
        await shown.until_paid()
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


async def test_workers_take_the_options_of_their_master(pages: Pages) -> None:
    # From the first run on: a worker has only the address of its master.
    shown = pages.distributed
    await shown.swarm(scenario="mixed")
    await shown.until_paid()
    verdict = await shown.stop()
    assert verdict.startswith("passed")
    assert " 0 failed" in verdict


@pytest.mark.parametrize("kind", KINDS)
async def test_the_page_has_the_tab_and_metrics_below_its_own_path(pages: Pages, kind: str) -> None:
    shown = pages.of(kind)
    for path in ("", "/data", "/static/frame.js", "/static/uplot-LICENSE.txt"):
        assert await shown.text(f"/service{path}")
    assert "service/static/frame.js" in await shown.text("/")
    assert await shown.text("/metrics")


async def test_prometheus_scrapes_the_page_or_a_port_of_its_own(pages: Pages) -> None:
    shown = pages.local
    await shown.swarm()
    await shown.until_paid()
    for url in (f"{shown.url}/metrics", f"http://127.0.0.1:{pages.metrics_port}/metrics"):
        metrics = await shown.text(url)
        assert 'transferd_loadtest_info{scenario="uniform",shape="constant"} 1.0' in metrics
        assert 'transferd_loadtest_users{user_class="Shopper"} 10.0' in metrics
        assert "transferd_loadtest_requests_total{" in metrics
        assert promtool("check", "metrics", stdin=metrics).returncode == 0
    await shown.stop()


@pytest.mark.parametrize("kind", KINDS)
async def test_one_run_after_the_other_is_judged_by_itself(pages: Pages, kind: str) -> None:
    shown = pages.of(kind)
    await shown.swarm(p99="0.0001")
    # Fewer answers have no p99.
    await shown.until_paid(ANSWERS_MIN)
    assert "too slow" in await shown.stop()
    # Immediately, and with other options.
    await shown.swarm(scenario="read-mostly")
    await shown.until_paid(1)
    assert (await shown.stop()).startswith("passed")
    assert (await shown.status())["scenario"] == "read-mostly"


async def test_users_of_a_stopped_run_send_no_transfer_after_their_worker_has_reported(
    pages: Pages,
) -> None:
    shown = pages.distributed
    # The worker often reads the messages that start and stop its users together.
    for _ in range(4):
        await shown.swarm()
        await shown.until_users_run()
        verdict = await shown.stop()
        assert (await shown.status())["violations"] == 0, verdict
        assert "without a report" not in verdict
    await shown.swarm()
    await shown.until_paid()
    assert (await shown.stop()).startswith("passed")


async def test_a_ramp_that_found_its_limit_is_followed_by_another_run(pages: Pages) -> None:
    shown = pages.local
    await shown.swarm(shape="ramp", p99="0.0001", user_count="400", run_time="40")
    # At its first step, so the verdict names no limit.
    assert "too slow" in await shown.until_verdict()
    await shown.swarm()
    await shown.until_paid()
    assert (await shown.stop()).startswith("passed")


async def test_the_page_cannot_send_the_api_key_to_another_host(pages: Pages) -> None:
    other = await pages.replicas.start()
    await pages.local.swarm(host=other.url)
    assert f"the API key is for {pages.service}" in await pages.local.until_verdict()
    metrics = await other.get("/metrics")
    assert b'http_route="/users"' not in metrics.body


async def test_the_page_cannot_choose_the_file_of_the_verdict(pages: Pages, tmp_path: Path) -> None:
    file = tmp_path / "verdict.json"
    await pages.local.swarm(verdict=str(file))
    await pages.local.until_paid()
    await pages.local.stop()
    assert not file.exists()
