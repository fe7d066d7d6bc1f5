"""The tab "Service" of Locust's web UI, in a window as wide as a laptop."""

import json
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from playwright.async_api import FrameLocator, Locator, Page, expect

from tests.conftest import Workers
from tests.support.api import Api
from tests.support.browser import open_page
from tests.support.command import Command, running
from tests.support.project import ROOT
from tests.support.waiting import until
from tests.support.watching import promtool

LAPTOP = {"width": 1366, "height": 768}
LOCUSTFILE = '''
"""People who pay each other, watched from both sides."""

import json
import os
from itertools import count
from uuid import uuid4

import gevent
from locust import FastHttpUser, constant, events, task

from loadtest.dashboards.exporter import add_route, serve
from loadtest.dashboards.server_side import ServerSide
from loadtest.dashboards.tab import add_tab

GIVEN = json.loads(os.environ["GIVEN"])
FOUND = {"violations": GIVEN["violations"], "verdict": GIVEN["verdict"]}


@events.init.add_listener
def on_init(environment, **_):
    server_side = ServerSide(GIVEN["urls"])
    server_side.start()
    told = {
        "violations": lambda: FOUND["violations"],
        "info": lambda: {"version": "0.1.0", "scenario": "payday"},
    }

    def status():
        state = environment.runner.state
        return {"scenario": "payday", "shape": "waves", "state": state, **FOUND}

    add_tab(environment, server_side, status)
    add_route(environment, **told)
    environment.events.test_start.add_listener(lambda **_: server_side.mark_start())
    gevent.spawn(tell_where, environment.web_ui)
    if GIVEN["serves"]:
        server = serve(environment, 0, host="127.0.0.1", **told)
        print(f"Metrics at http://127.0.0.1:{server.server_port}/metrics", flush=True)


def tell_where(web_ui):
    while web_ui.server is None or not web_ui.server.started:
        gevent.sleep(0.01)
    print(f"UI at http://127.0.0.1:{web_ui.server.server_port}", flush=True)


class Shopper(FastHttpUser):
    host = GIVEN["host"]
    wait_time = constant(0.02)
    turn = count()

    @task
    def pay(self):
        ada, bob = GIVEN["wallets"]
        # Now and then more than there is, and now and then the same again.
        amount = 10**9 if next(self.turn) % 5 == 0 else 1
        body = {
            "source_wallet_id": ada,
            "destination_wallet_id": bob,
            "amount": amount,
            "currency": "USD",
        }
        headers = {"Idempotency-Key": str(uuid4())}
        for _ in range(1 + (next(self.turn) % 7 == 0)):
            with self.client.post(
                "/transfers", json=body, headers=headers, name="POST /transfers",
                catch_response=True,
            ) as response:
                response.success()
        self.client.get(f"/wallets/{ada}", name="GET /wallets/{id}")
'''


@dataclass
class Locust:
    """A Locust with a web UI."""

    command: Command
    session: aiohttp.ClientSession

    @property
    def url(self) -> str:
        """Where its UI is."""
        [line] = self.command.lines_with("UI at ")
        return line.rpartition(" ")[2]

    async def text(self, path: str, *, url: str = "") -> str:
        """The body of GET, which has to succeed."""
        async with self.session.get((url or self.url) + path) as response:
            assert response.status == 200, (path, response.status)
            return await response.text()

    async def swarm(self) -> None:
        form = {"user_count": "4", "spawn_rate": "4"}
        async with self.session.post(f"{self.url}/swarm", data=form) as response:
            assert (await response.json())["success"]


@asynccontextmanager
async def locust(
    folder: Path,
    api: Api,
    *urls: str,
    violations: int = 0,
    verdict: str | None = None,
    options: tuple[str, ...] = (),
    serves: bool = False,
) -> AsyncIterator[Locust]:
    """Locust with users of this replica, which looks at what these URLs tell."""
    file = folder / "locustfile.py"
    file.write_text(LOCUSTFILE)
    wallets = [await api.wallet(100_000), await api.wallet()]
    given = {
        "host": api.url,
        "wallets": wallets,
        "urls": urls,
        "violations": violations,
        "verdict": verdict,
        "serves": serves,
    }
    async with (
        running(
            *("-m", "locust", "--locustfile", str(file), "--web-port", "0"),
            *("--web-host", "127.0.0.1", *options),
            settings={"GIVEN": json.dumps(given), "PYTHONPATH": str(ROOT)},
            program=(sys.executable,),
        ) as command,
        aiohttp.ClientSession() as session,
    ):
        await command.says("UI at ")
        yield Locust(command, session)


async def open_tab(page: Page, locust: Locust) -> FrameLocator:
    """Open the UI of a run and click on the tab; what the tab shows."""
    await page.goto(locust.url)
    tab = page.get_by_role("tab", name="Service", exact=True)
    await expect(tab).to_be_visible()
    await expect(page.locator("#transferd-service")).to_have_count(0)
    await tab.click()
    return page.frame_locator("#transferd-service")


async def expect_above_zero(row: Locator, figure: str) -> None:
    """Wait until the figure in this row of the table is a number above zero."""
    await expect(row.locator(f"[data-figure={figure}]")).to_have_text(re.compile(r"[1-9]"))


async def assert_no_horizontal_scrolling(page: Page) -> None:
    for frame in page.frames:
        wide, visible = await frame.evaluate(
            "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        )
        assert wide <= visible, frame.url


async def test_the_tab_shows_the_figures_of_a_replica_and_a_worker(
    tmp_path: Path, api: Api, workers: Workers
) -> None:
    worker = await workers.start()
    unreachable = "127.0.0.1:9"
    async with (
        locust(
            tmp_path, api, api.url, worker.url, f"http://{unreachable}/metrics"
        ) as running_locust,
        open_page(**LAPTOP) as page,
    ):
        await running_locust.swarm()
        await page.emulate_media(color_scheme="light")
        tab = await open_tab(page, running_locust)
        rows = tab.locator("tbody tr")
        replica = rows.filter(has_text=api.url.removeprefix("http://"))
        for name in ("done_per_s", "refused_per_s", "group_size_mean", "commit_p95_ms"):
            await expect_above_zero(replica, name)
        await expect_above_zero(rows.filter(has_text="total"), "done_per_s")
        waiting = rows.filter(has_text=worker.url.removeprefix("http://"))
        await expect(waiting.locator("[data-figure=outbox_waiting]")).to_have_text(
            re.compile(r"\d")
        )
        await expect(tab.locator("tr.away")).to_contain_text(unreachable)
        await expect(tab.locator("#charts canvas")).to_have_count(6)
        for text in ("running", "payday", "0 violations"):
            await expect(tab.locator("header")).to_contain_text(text)
        await assert_no_horizontal_scrolling(page)
        # Locust's button for the theme has no name; it is the last one of the bar.
        await page.locator("header button").last.click()
        await expect(tab.locator("html")).to_have_attribute("data-theme", "dark")


async def test_the_tab_is_hidden_by_another_tab_and_opened_by_its_address(
    tmp_path: Path, api: Api
) -> None:
    async with locust(tmp_path, api, api.url) as running_locust, open_page(**LAPTOP) as page:
        await running_locust.swarm()
        await open_tab(page, running_locust)
        frame = page.locator("#transferd-service")
        await expect(frame).to_be_visible()
        await page.get_by_role("tab").first.click()
        await expect(frame).to_be_hidden()
        await page.goto(f"{running_locust.url}/?tab=service")
        await expect(frame).to_be_visible()
        await expect(frame.content_frame.locator("tbody tr").first).to_be_visible()
        await page.goto(running_locust.url)
        await expect(page.get_by_role("tab").first).to_be_visible()
        await expect(frame).to_have_count(0)


async def test_the_tab_highlights_violations_and_the_verdict(tmp_path: Path, api: Api) -> None:
    verdict = "FAILED: 1200 transfers, 3 of them twice"
    async with (
        locust(tmp_path, api, violations=3, verdict=verdict) as running_locust,
        open_page(**LAPTOP) as page,
    ):
        await running_locust.swarm()
        await page.emulate_media(color_scheme="dark")
        tab = await open_tab(page, running_locust)
        await expect(tab.locator("#violations")).to_have_text("3 violations")
        await expect(tab.locator("#violations")).to_have_class("some")
        await expect(tab.locator("#verdict")).to_have_text(verdict)
        # Without a URL to watch, the tab says which option names one.
        await expect(tab.locator("#nobody")).to_contain_text("--metrics-url")
        await expect(tab.locator("html")).to_have_attribute("data-theme", "dark")
        await assert_no_horizontal_scrolling(page)


@pytest.mark.parametrize("prefix", ["", "/load"])
async def test_prometheus_can_ask_locust_in_the_web_ui_or_beside_it(
    tmp_path: Path, api: Api, prefix: str
) -> None:
    options = ("--web-base-path", prefix) if prefix else ()
    async with locust(tmp_path, api, api.url, options=options, serves=True) as running_locust:
        await running_locust.command.says("Metrics at")
        assert '"key": "service"' in await running_locust.text(f"{prefix}/")
        assert "service/static/frame.js" in await running_locust.text(f"{prefix}/")
        for path in ("", "/data", "/static/frame.js", "/static/uplot-LICENSE.txt"):
            assert await running_locust.text(f"{prefix}/service{path}")
        if prefix:
            return
        await running_locust.swarm()

        async def counts() -> bool:
            told = await running_locust.text("/metrics")
            return 'transferd_loadtest_users{user_class="Shopper"} 4.0' in told and (
                'transferd_loadtest_requests_total{method="POST",name="POST /transfers"}' in told
            )

        await until(counts)
        [line] = running_locust.command.lines_with("Metrics at")
        for url in (f"{running_locust.url}/metrics", line.rpartition(" ")[2]):
            told = await running_locust.text("", url=url)
            assert 'transferd_loadtest_info{scenario="payday",version="0.1.0"} 1.0' in told
            assert promtool("check", "metrics", told=told).returncode == 0
