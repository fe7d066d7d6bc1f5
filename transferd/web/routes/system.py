"""Health, metrics, documentation."""

import asyncio
from functools import partial
from html import escape
from importlib import resources

import orjson
from aiohttp import web

from transferd.ledger.store.database import Database
from transferd.ledger.store.errors import StoreError
from transferd.web import problems
from transferd.web.parts import Parts
from transferd.web.problems import Problem

_PING_TIMEOUT_S = 1.0
_STATIC = resources.files("transferd.web").joinpath("static")
_MEDIA_TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html"}


async def healthz(_: web.Request) -> web.Response:
    """GET /healthz: the process answers."""
    return web.Response(body=b'{"status":"ok"}', content_type="application/json")


async def readyz(parts: Parts, _: web.Request) -> web.Response:
    """GET /readyz: PostgreSQL answers and the replica is not draining."""
    if parts.lifecycle.is_draining:
        raise Problem("draining", headers={"Retry-After": "1"})
    parts.lifecycle.database_answers = await _answers(parts.probe)
    if not parts.lifecycle.database_answers:
        raise Problem("database-unavailable", headers={"Retry-After": "1"})
    return web.Response(body=b'{"status":"ready"}', content_type="application/json")


async def _answers(database: Database) -> bool:
    async def ping() -> bool:
        try:
            await database.ping()
        except StoreError:
            return False
        return True

    asking = asyncio.create_task(ping())
    # Not wait_for: it would wait until the driver has told a hung server of the cancellation.
    done, _ = await asyncio.wait([asking], timeout=_PING_TIMEOUT_S)
    if not done:
        asking.cancel()
        return False
    return asking.result()


async def metrics(parts: Parts, _: web.Request) -> web.Response:
    """GET /metrics: Prometheus text format."""
    parts.lifecycle.database_answers = await _answers(parts.probe)
    return web.Response(
        body=parts.metrics.text(),
        headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
    )


async def problem_page(request: web.Request) -> web.Response:
    """GET /problems/{code}: what a problem means, for people."""
    code = request.match_info["code"]
    kind = problems.TYPES.get(code)
    if kind is None:
        raise Problem("not-found")
    html = (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(kind.title)}</title>"
        f"<h1>{escape(kind.title)}</h1><p><code>{kind.status} {code}</code>"
        f"<p>{escape(kind.meaning)}"
    )
    return web.Response(text=html, content_type="text/html")


async def problem_list(_: web.Request) -> web.Response:
    """GET /problems: all of them."""
    rows = [
        {"code": code, "status": kind.status, "title": kind.title, "meaning": kind.meaning}
        for code, kind in problems.TYPES.items()
    ]
    return web.Response(body=orjson.dumps({"data": rows}), content_type="application/json")


async def docs(request: web.Request) -> web.Response:
    """GET /docs: Swagger UI, from files of this package."""
    name = request.match_info.get("file") or "index.html"
    file = _STATIC.joinpath(name)
    suffix = name[name.rfind(".") :]
    if "/" in name or suffix not in _MEDIA_TYPES or not file.is_file():
        raise Problem("not-found")
    return web.Response(body=file.read_bytes(), content_type=_MEDIA_TYPES[suffix], charset="utf-8")


def add_routes(application: web.Application, parts: Parts, document: bytes) -> None:
    """The addresses that are not part of the resources."""

    async def openapi(_: web.Request) -> web.Response:
        return web.Response(body=document, content_type="application/json")

    application.router.add_get("/healthz", healthz)
    application.router.add_get("/readyz", partial(readyz, parts))
    application.router.add_get("/metrics", partial(metrics, parts))
    application.router.add_get("/openapi.json", openapi)
    application.router.add_get("/problems", problem_list)
    application.router.add_get("/problems/{code}", problem_page)
    application.router.add_get("/docs", docs)
    application.router.add_get("/docs/{file}", docs)
