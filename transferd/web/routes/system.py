"""Health, metrics, documentation."""

import asyncio
from collections.abc import Mapping
from functools import cache
from html import escape

import orjson

from transferd.ledger.store.errors import StoreError
from transferd.web import problems
from transferd.web.calls import Call
from transferd.web.context import AppContext
from transferd.web.documents import Document, static_files
from transferd.web.problems import Problem
from transferd.web.replies import JSON, Reply
from transferd.web.routing import Handler, Route


async def healthz(_: Call) -> Reply:
    """GET /healthz: the process answers."""
    return Reply(200, b'{"status":"ok"}')


async def readyz(call: Call) -> Reply:
    """GET /readyz: PostgreSQL answers and the replica is not draining."""
    context = call.context
    if context.lifecycle.is_draining:
        raise Problem("draining", headers={"Retry-After": "1"})
    context.lifecycle.database_answers = await _database_answers(context)
    if not context.lifecycle.database_answers:
        raise Problem("database-unavailable", headers={"Retry-After": "1"})
    return Reply(200, b'{"status":"ready"}')


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


async def metrics(call: Call) -> Reply:
    """GET /metrics: the text format of Prometheus or OpenMetrics, as Accept says."""
    context = call.context
    context.lifecycle.database_answers = await _database_answers(context)
    body, media_type = context.metrics.exposed(call.request.headers.getall("Accept", ()))
    return Reply(200, body, media_type)


async def index(_: Call) -> Reply:
    """GET /: leads to the documentation."""
    return Reply(302, media_type=None, extra={"Location": "/docs"})


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
    return Document(orjson.dumps({"data": rows}), JSON)


async def problem_page(call: Call) -> Reply:
    """GET /problems/{code}."""
    return _found(problem_pages(), call.path["code"]).answer(call)


async def docs(call: Call) -> Reply:
    """GET /docs: Swagger UI, from files of this package."""
    return _found(static_files(), call.path.get("file", "index.html")).answer(call)


def _found(documents: Mapping[str, Document], name: str) -> Document:
    document = documents.get(name)
    if document is None:
        raise Problem("not-found")
    return document


def _answering(document: Document) -> Handler:
    async def answer(call: Call) -> Reply:
        return document.answer(call)

    return answer


def routes(document: bytes) -> list[Route]:
    """The routes that are no operations; `document` is the OpenAPI document."""
    return [
        Route("GET", template, handler)
        for template, handler in (
            ("/", index),
            ("/healthz", healthz),
            ("/readyz", readyz),
            ("/metrics", metrics),
            ("/openapi.json", _answering(Document(document, JSON))),
            ("/problems", _answering(problem_list())),
            ("/problems/{code}", problem_page),
            ("/docs", docs),
            ("/docs/{file}", docs),
            # Browsers request it with every page.
            ("/favicon.ico", _answering(static_files()["favicon.ico"])),
        )
    ]
