"""The edge: every request gets a readable answer, also after an unexpected error."""

import asyncio
from weakref import WeakKeyDictionary

import orjson

from transferd.actors.ledgers import OpenLedger
from transferd.domain.errors import MailboxFull, TransferdError
from transferd.observability.facts import (
    About,
    EnvelopeFailed,
    RequestDetails,
    RequestFailed,
    RequestFinished,
)
from transferd.web.calls import Call, origin_of
from transferd.web.context import AppContext
from transferd.web.problems import MEDIA_TYPE, Problem
from transferd.web.refusal_rate import RefusalRate
from transferd.web.replies import Reply, problem_reply
from transferd.web.request import Request
from transferd.web.routing import UNMATCHED, Routes

_METHODS = frozenset({"GET", "HEAD", "POST", "PATCH", "DELETE", "PUT", "OPTIONS"})


class Edge:
    """Answers a request with the reply of its route or with a problem; emits one fact about it."""

    def __init__(self, routes: Routes, context: AppContext) -> None:
        self._routes = routes
        self._context = context
        # A ledger in which a wallet is flooded does not delay refusals in others.
        self._refusal_rates: WeakKeyDictionary[OpenLedger, RefusalRate] = WeakKeyDictionary()

    async def __call__(self, request: Request) -> Reply:
        """The answer to a request, composed."""
        context = self._context
        facts, clock = context.facts, context.clock
        started = clock()
        origin = origin_of(request, facts.begin)
        call = Call(context, request, origin)
        template = UNMATCHED
        try:
            route, call.path = self._routes.find(request)
            template = route.template
            if "Expect" in request.headers:
                call.read_expectation()
            reply = await route.handler(call)
        except Problem as problem:
            reply = problem_reply(problem, origin)
        except TransferdError as error:
            failed = Problem.of_error(error)
            if isinstance(error, MailboxFull):
                # Without the delay, callers who retry at once use up the core with refusals.
                await asyncio.sleep(self._refusal_delay_s(call.ledger))
            facts.emit(EnvelopeFailed(failed.code))
            reply = problem_reply(failed, origin)
        except Exception as error:
            about = About(origin.request_id, origin.traceparent)
            facts.emit(RequestFailed(about, template, error))
            reply = problem_reply(Problem("internal-error"), origin)
        if context.lifecycle.is_draining:
            reply.keeps_connection = False
        reply.compose(request, origin)
        method = request.method if request.method in _METHODS else "other"
        details = _details(call, template, reply, started) if facts.per_request_facts else None
        facts.emit(RequestFinished(method, template, reply.status, clock() - started, details))
        return reply

    def _refusal_delay_s(self, ledger: OpenLedger) -> float:
        rate = self._refusal_rates.get(ledger)
        if rate is None:
            rate = RefusalRate(self._context.limits, self._context.clock)
            self._refusal_rates[ledger] = rate
        return rate.delay_s()


def _details(call: Call, template: str, reply: Reply, started: float) -> RequestDetails:
    """The details of a request for traces and logs."""
    origin = call.origin
    transfer_id = None
    location = reply.extra.get("Location", "")
    if location.startswith("/transfers/"):
        transfer_id = location.removeprefix("/transfers/")
    elif template == "/transfers/{id}" and reply.status == 200:
        # Only an existing id: the path of a 404 may hold anything, secrets too.
        transfer_id = call.path["id"]
    code = "ok"
    if reply.media_type == MEDIA_TYPE:
        code = orjson.loads(reply.content)["code"]
    about = About(origin.request_id, origin.traceparent, transfer_id)
    return RequestDetails(about, started, origin.parent, code, "Idempotent-Replayed" in reply.extra)
