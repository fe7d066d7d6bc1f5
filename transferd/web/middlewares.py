"""The one middleware: whatever happens inside, the client gets an answer it can read."""

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

from transferd.commit.envelope import Origin
from transferd.domain.errors import MailboxFull, TransferdError
from transferd.observability.facts import EnvelopeFailed, Facts, RequestFailed, RequestFinished
from transferd.web.calls import origin_of
from transferd.web.pace import Pace
from transferd.web.parts import Lifecycle
from transferd.web.problems import MEDIA_TYPE, Problem

ORIGIN = web.RequestKey("origin", Origin)
_METHODS = frozenset({"GET", "HEAD", "POST", "PATCH", "DELETE", "PUT", "OPTIONS"})
_CODE_OF_STATUS = {404: "not-found", 405: "method-not-allowed", 413: "body-too-large"}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def edge(
    facts: Facts, lifecycle: Lifecycle, pace: Pace, clock: Callable[[], float]
) -> Callable[..., Awaitable[web.StreamResponse]]:
    """Ids in and out, problems for errors, one fact per request."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        started = clock()
        origin = origin_of(request)
        request[ORIGIN] = origin
        try:
            response = await handler(request)
        except Problem as problem:
            response = _response(problem, origin)
        except TransferdError as error:
            failed = Problem.of_error(error)
            if isinstance(error, MailboxFull):
                # Callers who ask again at once would else take the whole core for refusals.
                await asyncio.sleep(pace.delay_s())
            facts.emit(EnvelopeFailed(failed.code))
            response = _response(failed, origin)
        except web.HTTPException as error:
            response = _response(_problem_of(error), origin)
        except Exception as error:
            facts.emit(RequestFailed(origin.request_id, _route(request), error))
            response = _response(Problem("internal-error"), origin)
        if lifecycle.is_draining:
            response.force_close()
        headers = response.headers
        headers["X-Request-Id"] = origin.request_id
        headers["traceparent"] = origin.traceparent
        method = request.method if request.method in _METHODS else "other"
        facts.emit(RequestFinished(method, _route(request), response.status, clock() - started))
        return response

    return middleware


def _route(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "unmatched"


def _response(problem: Problem, origin: Origin) -> web.Response:
    return web.Response(
        status=problem.status,
        body=problem.body(origin),
        headers={"Content-Type": MEDIA_TYPE, **problem.headers},
    )


def _problem_of(error: web.HTTPException) -> Problem:
    code = _CODE_OF_STATUS.get(error.status)
    headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
    if code is not None:
        return Problem(code, headers=headers)
    if error.status < 500:
        return Problem("invalid-request", error.reason)
    return Problem("internal-error")
