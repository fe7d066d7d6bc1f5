"""A small run of the benchmark, and its open loop, which counts the wait of each request."""

import asyncio
import json
import math
import sys
from pathlib import Path

import pytest
from aiohttp import web

from loadtest.bench.rows import Figure
from loadtest.bench.setup import wallet_id
from tests.support.serving import serving
from tests.support.waiting import SLOWNESS


async def output_of(module: str, *arguments: str) -> str:
    """The output of a module, which has to exit with 0."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


async def test_a_benchmark_measures_reports_and_plots(tmp_path: Path) -> None:
    rows = ("uniform", "cpu")
    only = [word for row in rows for word in ("--only", row)]
    # Few connections: on a busy machine each of many would get no answer within a second.
    small = ("--rounds", "1", "--seconds", f"{SLOWNESS:.1f}", "--connections", "8")
    output = await output_of("loadtest.bench", *only, *small, "--out", str(tmp_path))
    report = json.loads((tmp_path / "bench.json").read_text())
    assert [row["name"] for row in report["rows"]] == list(rows)
    for row in report["rows"]:
        assert all(value > 0 for value in row["medians"].values()), row
        for figure in row["figures"]:
            assert f"{figure['what']} " in output
            assert ("reached" if figure["is_reached"] else "NOT REACHED") in output
    assert report["machine"]["PostgreSQL fsync"] == "on"
    assert report["machine"]["PostgreSQL synchronous_commit"] == "on"
    assert (tmp_path / "bench.svg").read_text().startswith("<?xml")
    # wrk reports refused and failed requests with these words.
    assert "Non-2xx" not in output


async def test_an_open_loop_counts_the_wait_of_each_request(tmp_path: Path) -> None:
    rate, seconds, held_from, held_until = 200, 2.0, 150, 250
    released = asyncio.Event()
    arrived = 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal arrived
        await request.read()
        arrived += 1
        if arrived >= held_until:
            released.set()
        elif arrived >= held_from:
            await released.wait()
        return web.Response(status=201, body=b"{}")

    application = web.Application()
    application.router.add_post("/transfers", answer)
    pairs = tmp_path / "pairs"
    pairs.write_text(f"{wallet_id(1)} {wallet_id(2)}\n")
    async with serving(application) as url:
        port = url.rpartition(":")[2]
        arguments = (port, str(pairs), str(rate), str(seconds), "transfers", "128")
        printed = await output_of("loadtest.bench.openloop", *arguments)
    found = json.loads(printed)
    assert found["statuses"] == {"201": rate * seconds}
    assert found["unanswered"] == 0
    # The first request that was held waited for a hundred others, which came every 5 ms.
    assert found["p99_ms"] > 400
    # Most requests were not held.
    assert found["p50_ms"] < found["p99_ms"] / 2


@pytest.mark.parametrize(
    ("value", "at_least", "at_most", "is_reached"),
    [
        (5.0, 5.0, None, True),
        (4.99, 5.0, None, False),
        (1.3, None, 1.3, True),
        (1.31, None, 1.3, False),
        (math.nan, 5.0, None, False),
        (math.nan, None, 5.0, False),
    ],
)
def test_a_figure_is_compared_with_its_bound(
    value: float, at_least: float | None, at_most: float | None, *, is_reached: bool
) -> None:
    figure = Figure("figure", lambda _: value, at_least, at_most)
    assert figure.is_reached(value) is is_reached
