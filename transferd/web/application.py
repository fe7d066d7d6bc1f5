"""The aiohttp application: every operation bound to the context of a replica."""

from collections.abc import Awaitable, Callable

from aiohttp import web

from transferd.web import openapi
from transferd.web.auth import Authentication
from transferd.web.calls import Call
from transferd.web.context import AppContext
from transferd.web.middlewares import ORIGIN, edge
from transferd.web.operations import Operation
from transferd.web.request_headers import only_line
from transferd.web.routes import (
    currencies,
    events,
    idempotency_keys,
    system,
    transfers,
    users,
    wallets,
    webhooks,
)
from transferd.web.schemas import NoQuery

OPERATIONS: tuple[Operation, ...] = (
    *users.OPERATIONS,
    *currencies.OPERATIONS,
    *wallets.OPERATIONS,
    *events.OPERATIONS,
    *transfers.OPERATIONS,
    *idempotency_keys.OPERATIONS,
    *webhooks.OPERATIONS,
)


def build(context: AppContext) -> web.Application:
    """The application of one replica."""
    application = web.Application(
        middlewares=[edge(context)],
        client_max_size=context.limits.body_bytes_max,
    )
    authentication = Authentication(
        context.database,
        context.limits,
        context.key_uses,
        is_required=context.settings.auth == "on",
        clock=context.clock,
    )
    for operation in OPERATIONS:
        path = _pattern(operation.path)
        handler = _bound(operation, context, authentication)
        application.router.add_route(operation.method, path, handler)
        if operation.method == "GET":
            # RFC 9110 section 9.3.2: HEAD is GET without the body.
            application.router.add_route("HEAD", path, handler)
    document = openapi.document(OPERATIONS, is_open=context.settings.auth == "off")
    system.add_routes(application, context, document)
    return application


def _pattern(path: str) -> str:
    if path == "/transfers/{id}":
        # Without `batch`, so that OPTIONS /transfers/batch does not allow GET.
        return "/transfers/{id:(?!batch$)[^{}/]+}"
    # Only a key may hold slashes.
    return path.replace("{key}", "{key:.+}")


def _bound(
    operation: Operation, context: AppContext, authentication: Authentication
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Check authentication and scope, then call the route."""

    async def handle(request: web.Request) -> web.StreamResponse:
        header = only_line(request.headers, "Authorization")
        principal = (
            authentication.anonymous if header is None else await authentication.resolve(header)
        )
        if operation.scope is not None:
            principal.require(operation.scope)
        call = Call(context, request, request[ORIGIN], principal)
        if operation.query is NoQuery and request.query_string:
            call.query(NoQuery)
        return await operation.handler(call)

    return handle
