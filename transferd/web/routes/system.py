"""Health, metrics, documentation."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import cache, partial
from html import escape

import orjson
from aiohttp import web

from transferd.ledger.store.errors import StoreError
from transferd.web import problems
from transferd.web.context import AppContext
from transferd.web.documents import Document, static_files
from transferd.web.problems import Problem


async def healthz(_: web.Request) -> web.Response:
    """GET /healthz: the process answers."""
    return web.Response(body=b'{"status":"ok"}', content_type="application/json")


async def readyz(context: AppContext, _: web.Request) -> web.Response:
    """GET /readyz: PostgreSQL answers and the replica is not draining."""
    if context.lifecycle.is_draining:
        raise Problem("draining", headers={"Retry-After": "1"})
    context.lifecycle.database_answers = await _database_answers(context)
    if not context.lifecycle.database_answers:
        raise Problem("database-unavailable", headers={"Retry-After": "1"})
    return web.Response(body=b'{"status":"ready"}', content_type="application/json")


async def _database_answers(context: AppContext) -> bool:
    async def ping() -> bool:
        try:
            await context.probe.ping()
        except StoreError:
            return False
        return True

    asking = asyncio.create_task(ping())
    # Not wait_for: it would wait until the driver has cancelled the query at a hung server.
    done, _ = await asyncio.wait([asking], timeout=context.limits.readiness_wait_s)
    if not done:
        asking.cancel()
        return False
    return asking.result()


async def metrics(context: AppContext, request: web.Request) -> web.Response:
    """GET /metrics: the text format of Prometheus or OpenMetrics, as Accept says."""
    context.lifecycle.database_answers = await _database_answers(context)
    body, media_type = context.metrics.exposed(request.headers.getall("Accept", ()))
    return web.Response(body=body, headers={"Content-Type": media_type})


async def index(_: web.Request) -> web.Response:
    """GET /: leads to the documentation."""
    return web.Response(status=302, headers={"Location": "/docs"})


@cache
def problem_pages() -> dict[str, Document]:
    """A page about each problem, by its code."""
    return {
        code: Document(
            (
                f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(kind.title)}"
                f"</title><h1>{escape(kind.title)}</h1><p><code>{kind.status} {code}</code>"
                f"<p>{escape(kind.meaning)}"
            ).encode(),
            "text/html; charset=utf-8",
        )
        for code, kind in problems.TYPES.items()
    }


@cache
def problem_list() -> Document:
    """All problems."""
    rows = [
        {"code": code, "status": kind.status, "title": kind.title, "meaning": kind.meaning}
        for code, kind in problems.TYPES.items()
    ]
    return Document(orjson.dumps({"data": rows}), "application/json")


async def problem_page(request: web.Request) -> web.Response:
    """GET /problems/{code}."""
    return _found(problem_pages(), request.match_info["code"]).answer(request)


async def docs(request: web.Request) -> web.Response:
    """GET /docs: Swagger UI, from files of this package."""
    return _found(static_files(), request.match_info.get("file", "index.html")).answer(request)


def _found(documents: Mapping[str, Document], name: str) -> Document:
    document = documents.get(name)
    if document is None:
        raise Problem("not-found")
    return document


def _answering(document: Document) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        return document.answer(request)

    return answer


def add_routes(application: web.Application, context: AppContext, document: bytes) -> None:
    """Add the routes that are no resources."""
    openapi = Document(document, "application/json")
    application.router.add_get("/", index)
    application.router.add_get("/healthz", healthz)
    application.router.add_get("/readyz", partial(readyz, context))
    application.router.add_get("/metrics", partial(metrics, context))
    application.router.add_get("/openapi.json", _answering(openapi))
    application.router.add_get("/problems", _answering(problem_list()))
    application.router.add_get("/problems/{code}", problem_page)
    application.router.add_get("/docs", docs)
    application.router.add_get("/docs/{file}", docs)
    # Browsers request it with every page.
    application.router.add_get("/favicon.ico", _answering(static_files()["favicon.ico"]))
