"""The tab "Service" of Locust's web UI, as somebody sees it who has a laptop."""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from tests.conftest import Workers
from tests.support.api import Api
from tests.support.browser import Page, browsing
from tests.support.command import Command, running
from tests.support.tidy import ROOT
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
# All of these look into the document of the tab, which is one of its own.
_INSIDE = "document.querySelector('#transferd-service').contentDocument"


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


async def open_tab(page: Page, locust: Locust) -> None:
    """Open the UI of a run, and click on the tab."""
    await page.open(locust.url, **LAPTOP)
    await page.until("document.querySelectorAll('[role=tab]').length > 5")
    assert not await page.value("!!document.querySelector('#transferd-service')")
    await page.value(
        "[...document.querySelectorAll('[role=tab]')].find(t => t.textContent == 'Service').click()"
    )
    await page.until(f"{_INSIDE}.readyState == 'complete'")


def figure(target: str, name: str) -> str:
    """JavaScript for a figure in the row of a process."""
    row = (
        f"[...{_INSIDE}.querySelectorAll('tbody tr')].find(r => r.textContent.includes('{target}'))"
    )
    return f"parseFloat({row}.querySelector('[data-figure={name}]').textContent)"


async def assert_nothing_sticks_out(page: Page) -> None:
    for document in ("document", _INSIDE):
        wide = await page.value(
            f"[{document}.documentElement.scrollWidth, {document}.documentElement.clientWidth]"
        )
        assert wide[0] <= wide[1], document


async def test_the_tab_shows_how_replica_and_worker_do(
    tmp_path: Path, api: Api, workers: Workers
) -> None:
    worker = await workers.start()
    away = "http://127.0.0.1:9/metrics"
    async with (
        locust(tmp_path, api, api.url, worker.url, away) as running_locust,
        browsing(tmp_path / "profile") as page,
    ):
        await running_locust.swarm()
        await page.prefer("light")
        await open_tab(page, running_locust)
        replica = api.url.removeprefix("http://")
        for name in ("done_per_s", "refused_per_s", "group_size_mean", "commit_p95_ms"):
            await page.until(f"{figure(replica, name)} > 0")
        await page.until(f"{figure('total', 'done_per_s')} > 0")
        await page.until(f"{figure(worker.url.removeprefix('http://'), 'outbox_waiting')} >= 0")
        await page.until(f"{_INSIDE}.querySelector('tr.away').textContent.includes('127.0.0.1:9')")
        assert await page.value(f"{_INSIDE}.querySelectorAll('#charts canvas').length") == 6
        said = await page.value(f"{_INSIDE}.querySelector('header').innerText")
        assert "running" in said
        assert "payday" in said
        assert "0 violations" in said
        await assert_nothing_sticks_out(page)
        await page.screenshot(tmp_path / "light.png")
        # The last button of Locust's bar, which has no name, is that for the theme.
        await page.value("[...document.querySelectorAll('header button')].at(-1).click()")
        await page.until(f"{_INSIDE}.documentElement.dataset.theme == 'dark'")
        await page.screenshot(tmp_path / "dark.png")
        assert page.complaints == []


async def test_another_tab_hides_it_and_the_address_brings_it_back(
    tmp_path: Path, api: Api
) -> None:
    async with (
        locust(tmp_path, api, api.url) as running_locust,
        browsing(tmp_path / "profile") as page,
    ):
        await running_locust.swarm()
        await open_tab(page, running_locust)
        hidden = "getComputedStyle(document.querySelector('#transferd-service')).display == 'none'"
        await page.until(f"!({hidden})")
        await page.value("document.querySelector('[role=tab]').click()")
        await page.until(hidden)
        # A reload with the address of the tab, as somebody does who keeps it as a bookmark.
        await page.send("Page.navigate", url=f"{running_locust.url}/?tab=service")
        await page.until(f"!({hidden}) && {_INSIDE}.querySelector('tbody tr')")
        await page.send("Page.navigate", url=running_locust.url)
        await page.until("location.search == '' && document.querySelector('[role=tab]')")
        assert not await page.value("!!document.querySelector('#transferd-service')")
        assert page.complaints == []


async def test_violations_and_the_verdict_are_loud(tmp_path: Path, api: Api) -> None:
    verdict = "FAILED: 1200 transfers, 3 of them twice"
    async with (
        locust(tmp_path, api, violations=3, verdict=verdict) as running_locust,
        browsing(tmp_path / "profile") as page,
    ):
        await running_locust.swarm()
        await page.prefer("dark")
        await open_tab(page, running_locust)
        await page.until(f"{_INSIDE}.querySelector('#violations').textContent == '3 violations'")
        assert await page.value(f"{_INSIDE}.querySelector('#violations').className") == "some"
        assert await page.value(f"{_INSIDE}.querySelector('#verdict').textContent") == verdict
        # Nobody to look at: it says what to do.
        assert "--metrics-url" in await page.value(f"{_INSIDE}.querySelector('#nobody').innerText")
        assert await page.value(f"{_INSIDE}.documentElement.dataset.theme") == "dark"
        await assert_nothing_sticks_out(page)
        await page.screenshot(tmp_path / "violations.png")
        assert page.complaints == []


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
