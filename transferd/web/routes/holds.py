"""Holds: reserve money of a wallet now, pay later."""

from collections.abc import Sequence

import orjson

from transferd.config import Limits
from transferd.domain.book import Captured, HoldSet
from transferd.domain.command import touched_wallets
from transferd.domain.decide_holds import decide_about_hold
from transferd.domain.errors import Refused
from transferd.domain.hold import AdjustHold, Capture, CreateHold, Hold, ReleaseHold
from transferd.domain.times import rfc3339
from transferd.ledger.store import holds as store
from transferd.web import cursors, schemas
from transferd.web.calls import Call
from transferd.web.fields import is_id, metadata_text
from transferd.web.fingerprints import fingerprint_of, metadata_part
from transferd.web.hold_schemas import (
    EXPIRES_IN_S_DEFAULT,
    HoldAdjustment,
    HoldDryRun,
    HoldsQuery,
    NewCapture,
    NewHold,
)
from transferd.web.hold_schemas import Hold as HoldAnswer
from transferd.web.operations import BY_ID, Operation, answered, page, shown
from transferd.web.problems import Problem
from transferd.web.rendering import hold_view, transfer_view
from transferd.web.replies import Reply
from transferd.web.routes.payments import (
    MOVING_REFUSALS,
    capture_of,
    capture_parts,
    committed_book,
    require_admin_for_funding,
)

_LIST = "holds"
_LOOKED_AT_MAX = Limits().listed_holds_looked_at_max
_HoldCommand = CreateHold | Capture | AdjustHold | ReleaseHold


async def create(call: Call) -> Reply:
    """POST /holds."""
    body = await call.body(NewHold)
    command = CreateHold(
        id=call.new_id(),
        source_wallet_id=body.source_wallet_id,
        destination_wallet_id=body.destination_wallet_id,
        amount_minor=body.amount,
        currency=body.currency,
        expires_at=body.expires_at,
        expires_in_s=EXPIRES_IN_S_DEFAULT if body.expires_in_s is None else body.expires_in_s,
        reference=body.reference,
        metadata=metadata_text(body.metadata),
        open_holds_max=call.context.limits.open_holds_max,
    )
    return await _run(
        call,
        command,
        "holds",
        body.source_wallet_id,
        body.destination_wallet_id,
        body.amount,
        body.currency,
        None if body.expires_at is None else rfc3339(body.expires_at),
        body.expires_in_s,
        body.reference,
        metadata_part(body.metadata, command.metadata),
        location="/holds/",
    )


async def capture(call: Call) -> Reply:
    """POST /holds/{id}/capture."""
    body = await call.optional_body(NewCapture)
    id, hold = await _hold_of(call)
    command = capture_of(call, id, hold, body)
    parts = capture_parts(body, command)
    return await _run(call, command, "capture", *parts, location="/transfers/")


async def adjust(call: Call) -> Reply:
    """POST /holds/{id}/adjust."""
    body = await call.body(HoldAdjustment)
    id, hold = await _hold_of(call)
    expires_at = None if body.expires_at is None else rfc3339(body.expires_at)
    command = AdjustHold(id, hold, body.amount, body.expires_at)
    return await _run(call, command, "adjust", id, body.amount, expires_at)


async def release(call: Call) -> Reply:
    """POST /holds/{id}/release."""
    await call.optional_body(schemas.NoBody)
    id, hold = await _hold_of(call)
    return await _run(call, ReleaseHold(id, hold), "release", id)


async def read(call: Call) -> Reply:
    """GET /holds/{id}."""
    id, hold = await _hold_of(call)
    if hold is None:
        raise Problem("hold-not-found", f"There is no hold {id}.")
    return shown(call.context.rendering.hold(hold))


async def list_(call: Call) -> Reply:
    """GET /holds."""
    query = call.query(HoldsQuery)
    scope = cursors.scope_of(call.principal.ledger, _LIST, query)
    holds, end = await store.list_holds(
        call.ledger.database,
        wallet_id=query.wallet_id,
        status=query.status,
        expires_before=query.expires_before,
        before_id=cursors.decode_id(scope, query.cursor),
        limit=query.limit,
        looked_at_max=call.context.limits.listed_holds_looked_at_max,
    )
    return page(call, scope, [hold_view(hold) for hold in holds], end)


async def _hold_of(call: Call) -> tuple[str, Hold | None]:
    """The id in the path, and its hold as it is now."""
    id = call.path["id"].lower()
    hold = await call.ledger.holds.get(id) if is_id(id) else None
    return id, hold


async def _run(
    call: Call, command: _HoldCommand, *asked_for: object, location: str | None = None
) -> Reply:
    require_admin_for_funding(call, [*touched_wallets(command), *_destination_of(command)])
    if call.request.has_query and call.query(schemas.DryRunQuery).dry_run:
        return await _dry_run(call, command)
    key = call.key(required=True)
    answer = await call.ask(command, key=key, fingerprint=fingerprint_of(*asked_for))
    return answered(answer, location=location)


def _destination_of(command: _HoldCommand) -> Sequence[str]:
    """The destination of the hold that a command changes."""
    if isinstance(command, CreateHold) or command.hold is None:
        return ()
    id = command.hold.destination_wallet_id
    return () if id is None else (id,)


async def _dry_run(call: Call, command: _HoldCommand) -> Reply:
    """Decide on the committed state and write nothing."""
    outcome = decide_about_hold(command, await committed_book(call, command))
    if isinstance(outcome, Refused):
        raise Problem.of_refusal(outcome)
    if isinstance(outcome, Captured):
        view = transfer_view(outcome.transfer) | {"id": None, "status": "dry_run"}
    else:
        assert isinstance(outcome, HoldSet)
        view = hold_view(outcome.hold) | {"status": "dry_run"}
        if isinstance(command, CreateHold):
            view["id"] = None
    return shown(orjson.dumps(view))


_HOLD_OVER = ("hold-not-found", "hold-not-active", "hold-expired")

OPERATIONS = (
    Operation(
        "POST",
        "/holds",
        "create_hold",
        create,
        "Reserve money of a wallet for a later payment",
        HoldAnswer,
        "holds",
        scope="transfers:write",
        status=201,
        body=NewHold,
        query=schemas.DryRunQuery,
        dry_run=HoldDryRun,
        key="required",
        description="The wallet's `held` rises and its `available` falls by the amount; its balance"
        " stays. From `expires_at` on, by the database's clock, the hold reserves nothing.",
        refusals=(
            "rate-limited",
            "same-wallet",
            *MOVING_REFUSALS,
            "expiry-invalid",
            "too-many-holds",
        ),
    ),
    Operation(
        "GET",
        "/holds",
        "list_holds",
        list_,
        "List holds, newest first",
        HoldAnswer,
        "holds",
        scope="wallets:read",
        query=HoldsQuery,
        is_list=True,
        description=f"A page looks at {_LOOKED_AT_MAX:,} holds at most, so with a filter it may be"
        " short or empty while `has_more` is true; the next pages go on. This is not so for the"
        f" active holds of one wallet. {BY_ID} The events `hold.created`, from a webhook or the"
        " exchange, miss none. For one wallet its versions are the position that loses nothing.",
    ),
    Operation(
        "GET",
        "/holds/{id}",
        "read_hold",
        read,
        "Read a hold as it is now",
        HoldAnswer,
        "holds",
        scope="wallets:read",
        refusals=("hold-not-found",),
    ),
    Operation(
        "POST",
        "/holds/{id}/capture",
        "capture_hold",
        capture,
        "Pay from a hold, all that is left or a part",
        schemas.Transfer,
        "holds",
        scope="transfers:write",
        status=201,
        body=NewCapture,
        query=schemas.DryRunQuery,
        dry_run=schemas.DryRun,
        key="required",
        description="A final capture releases what is left in the same transaction. With"
        " `final: false` the hold stays active, also when nothing is left.",
        refusals=(
            *_HOLD_OVER,
            "capture-exceeds-hold",
            "destination-missing",
            "destination-mismatch",
            "same-wallet",
            *MOVING_REFUSALS,
        ),
    ),
    Operation(
        "POST",
        "/holds/{id}/adjust",
        "adjust_hold",
        adjust,
        "Change the amount or the expiry of a hold",
        HoldAnswer,
        "holds",
        scope="transfers:write",
        body=HoldAdjustment,
        query=schemas.DryRunQuery,
        dry_run=HoldDryRun,
        key="required",
        description="A larger amount needs an active wallet with enough available.",
        refusals=(
            *_HOLD_OVER,
            "amount-below-captured",
            "expiry-invalid",
            "wallet-frozen",
            "wallet-closed",
            "insufficient-funds",
            "balance-out-of-range",
        ),
    ),
    Operation(
        "POST",
        "/holds/{id}/release",
        "release_hold",
        release,
        "End a hold and give back what is left",
        HoldAnswer,
        "holds",
        scope="transfers:write",
        query=schemas.DryRunQuery,
        dry_run=HoldDryRun,
        key="required",
        refusals=_HOLD_OVER,
    ),
)
