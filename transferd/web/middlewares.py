"""The one middleware: every request gets a readable answer, also after an unexpected error."""

import asyncio
from collections.abc import Awaitable, Callable

import orjson
from aiohttp import web

from transferd.commit.origin import Origin
from transferd.domain.errors import MailboxFull, TransferdError
from transferd.observability.facts import (
    About,
    EnvelopeFailed,
    RequestDetails,
    RequestFailed,
    RequestFinished,
)
from transferd.web.calls import origin_of
from transferd.web.context import AppContext
from transferd.web.problems import MEDIA_TYPE, Problem
from transferd.web.refusal_rate import RefusalRate

ORIGIN = web.RequestKey("origin", Origin)
_METHODS = frozenset({"GET", "HEAD", "POST", "PATCH", "DELETE", "PUT", "OPTIONS"})

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def edge(context: AppContext) -> Callable[..., Awaitable[web.StreamResponse]]:
    """Ids in and out, problems for errors, one fact per request."""
    facts, lifecycle, clock = context.facts, context.lifecycle, context.clock
    refusal_rate = RefusalRate(context.limits, clock)

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        started = clock()
        origin = origin_of(request, facts.begin)
        request[ORIGIN] = origin
        try:
            response = await handler(request)
        except Problem as problem:
            response = _response(problem, origin)
        except TransferdError as error:
            failed = Problem.of_error(error)
            if isinstance(error, MailboxFull):
                # Without the delay, callers who retry at once use up the core with refusals.
                await asyncio.sleep(refusal_rate.delay_s())
            facts.emit(EnvelopeFailed(failed.code))
            response = _response(failed, origin)
        except web.HTTPException as error:
            response = _response(Problem.of_http(error), origin)
        except Exception as error:
            about = About(origin.request_id, origin.traceparent)
            facts.emit(RequestFailed(about, _route(request), error))
            response = _response(Problem("internal-error"), origin)
        if lifecycle.is_draining:
            response.force_close()
        headers = response.headers
        headers["X-Request-Id"] = origin.request_id
        headers["traceparent"] = origin.traceparent
        method = request.method if request.method in _METHODS else "other"
        details = _details(request, response, origin, started) if facts.per_request_facts else None
        duration_s = clock() - started
        facts.emit(RequestFinished(method, _route(request), response.status, duration_s, details))
        return response

    return middleware


def _route(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "unmatched"


def _details(
    request: web.Request, response: web.StreamResponse, origin: Origin, started: float
) -> RequestDetails:
    """The details of a request for traces and logs."""
    transfer_id = None
    location = response.headers.get("Location", "")
    if location.startswith("/transfers/"):
        transfer_id = location.removeprefix("/transfers/")
    elif _route(request) == "/transfers/{id}" and response.status == 200:
        # Only an existing id: the path of a 404 may hold anything, secrets too.
        transfer_id = request.match_info["id"]
    code = "ok"
    body = response.body if isinstance(response, web.Response) else None
    if response.content_type == MEDIA_TYPE and isinstance(body, bytes):
        code = orjson.loads(body)["code"]
    about = About(origin.request_id, origin.traceparent, transfer_id)
    return RequestDetails(
        about, started, origin.parent, code, "Idempotent-Replayed" in response.headers
    )


def _response(problem: Problem, origin: Origin) -> web.Response:
    response = web.Response(
        status=problem.status,
        body=problem.body(origin),
        headers={"Content-Type": MEDIA_TYPE, **problem.headers},
    )
    if problem.headers.get("Connection") == "close":
        # The header alone does not make aiohttp close the connection.
        response.force_close()
    return response
