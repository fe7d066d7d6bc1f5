"""`make audit` passes only if an advisory service knows no vulnerability of any dependency."""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.support.command import ran
from tests.support.project import ROOT
from transferd.devstack.ports import free_port

_LEAK: dict[str, Any] = {
    "id": "GHSA-0000-0000-0001",
    "summary": "Leaks keys.",
    "affected": [{"package": {"ecosystem": "PyPI", "name": "aiohttp"}}],
}


@asynccontextmanager
async def database_of_vulnerabilities(weak: str) -> AsyncIterator[tuple[str, set[str]]]:
    """The API of https://google.github.io/osv.dev/post-v1-query/; the packages in its requests."""
    checked: set[str] = set()

    async def query(request: web.Request) -> web.Response:
        name = json.loads(await request.read())["package"]["name"]
        checked.add(name)
        return web.json_response({"vulns": [_LEAK]} if name == weak else {})

    app = web.Application()
    app.router.add_post("/v1/query", query)
    async with TestServer(app) as server:
        yield str(server.make_url("/v1/query")), checked


async def audit(url: str, cache: Path) -> tuple[int, str]:
    """Exit code and output."""
    return await ran(
        *(ROOT / ".ci" / "audit", Path(sys.executable).parent),
        PIP_AUDIT_VULNERABILITY_SERVICE="osv",
        PIP_AUDIT_OSV_URL=url,
        PIP_AUDIT_CACHE_DIR=str(cache),
    )


def pinned() -> set[str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return {line.split("==")[0] for line in lines if "==" in line}


async def test_every_dependency_is_checked_and_a_vulnerability_is_named(tmp_path: Path) -> None:
    async with database_of_vulnerabilities("no package") as (url, checked):
        code, output = await audit(url, tmp_path / "first")
    assert (code, checked) == (0, pinned()), output
    assert f"in the {len(pinned())} dependencies" in output
    async with database_of_vulnerabilities("aiohttp") as (url, _):
        code, output = await audit(url, tmp_path / "second")
    assert code == 1
    assert _LEAK["id"] in output


async def test_without_an_advisory_service_it_fails(tmp_path: Path) -> None:
    code, output = await audit(f"http://127.0.0.1:{free_port()}/v1/query", tmp_path)
    assert code == 1
    assert output.startswith("pip-audit could not ask for known vulnerabilities")
