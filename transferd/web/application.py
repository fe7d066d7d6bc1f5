"""The handler of a replica's requests: every operation, behind authentication, and the rest."""

from transferd.web import openapi
from transferd.web.auth import Authentication, local_client
from transferd.web.calls import Call
from transferd.web.context import AppContext
from transferd.web.edge import Edge
from transferd.web.operations import Operation
from transferd.web.replies import Reply
from transferd.web.request_headers import only_line
from transferd.web.routes import (
    currencies,
    events,
    holds,
    idempotency_keys,
    system,
    transfers,
    users,
    wallets,
    webhooks,
)
from transferd.web.routing import Handler, Route, Routes
from transferd.web.schemas import NoQuery

OPERATIONS: tuple[Operation, ...] = (
    *users.OPERATIONS,
    *currencies.OPERATIONS,
    *wallets.OPERATIONS,
    *events.OPERATIONS,
    *transfers.OPERATIONS,
    *holds.OPERATIONS,
    *idempotency_keys.OPERATIONS,
    *webhooks.OPERATIONS,
)


def build(context: AppContext) -> Edge:
    """The handler of one replica."""
    is_open = context.settings.auth == "off"
    authentication = Authentication(
        context.shared,
        context.limits,
        context.key_uses,
        anonymous=local_client(context.ledger.database.ledger) if is_open else None,
        clock=context.clock,
    )
    document = openapi.document(OPERATIONS, is_open=is_open)
    routes = Routes(
        [
            *(
                Route(operation.method, operation.path, _behind(authentication, operation))
                for operation in OPERATIONS
            ),
            *system.routes(document),
        ]
    )
    return Edge(routes, context)


def _behind(authentication: Authentication, operation: Operation) -> Handler:
    """Check authentication and scope, then call the operation."""
    scope, handler, has_query = operation.scope, operation.handler, operation.query is not NoQuery

    async def handle(call: Call) -> Reply:
        request = call.request
        header = only_line(request.headers, "Authorization")
        principal = call.principal = (
            authentication.anonymous if header is None else await authentication.resolve(header)
        )
        if scope is not None:
            principal.require(scope)
        call.ledger = await call.context.ledgers.of(principal.ledger)
        if not has_query and request.has_query:
            call.query(NoQuery)
        return await handler(call)

    return handle
