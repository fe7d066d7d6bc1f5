"""Transfers and reversals: the main job."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import orjson

from transferd.domain.command import touched_wallets
from transferd.domain.decide import decide_transfer
from transferd.domain.errors import Overloaded, Refused
from transferd.domain.hold import Capture, Hold
from transferd.domain.transfer import Batch, Reversal, Transfer
from transferd.ledger.store import transfers as store
from transferd.ledger.store.holds import holds_now
from transferd.ledger.store.wallets import read_wallets
from transferd.web import cursors, schemas
from transferd.web.batch_schemas import BatchCapture, BatchItem, BatchResult, NewBatch
from transferd.web.calls import Call
from transferd.web.fields import is_id, metadata_text
from transferd.web.fingerprints import fingerprint_of, metadata_part
from transferd.web.operations import Operation, answered, listed, shown
from transferd.web.problems import Problem
from transferd.web.rendering import transfer_view
from transferd.web.replies import Reply
from transferd.web.routes.payments import (
    MOVING_REFUSALS,
    capture_of,
    capture_parts,
    committed_book,
    require_admin_for_funding,
)

_LIST = "transfers"
_FIRST_PAGE = 2**63 - 1


async def create(call: Call) -> Reply:
    """POST /transfers."""
    body = await call.body(schemas.NewTransfer)
    require_admin_for_funding(call, (body.source_wallet_id, body.destination_wallet_id))
    command = _command_of(call, body)
    if call.request.has_query and call.query(schemas.DryRunQuery).dry_run:
        return await _dry_run(call, command)
    key = call.key(required=True)
    answer = await call.ask(
        command,
        key=key,
        fingerprint=fingerprint_of("transfers", *_parts_of(body, command)),
    )
    return answered(answer, location="/transfers/")


async def create_batch(call: Call) -> Reply:
    """POST /transfers/batch."""
    async with _batch_slot(call):
        body = await call.body(NewBatch, bytes_max=call.context.limits.batch_body_bytes_max)
        holds = await _holds_of(call, body.transfers)
        commands, parts = await _commands_of(call, body.transfers, holds)
        command = Batch(body.mode, tuple(commands))
        require_admin_for_funding(call, touched_wallets(command))
        key = call.key(required=True)
        answer = await call.ask(
            command,
            key=key,
            fingerprint=fingerprint_of("batch", body.mode, parts),
        )
    return answered(answer)


@asynccontextmanager
async def _batch_slot(call: Call) -> AsyncIterator[None]:
    """One of the few places for batches, each of which takes much memory. Raises Overloaded."""
    batches = call.ledger.batches
    try:
        async with asyncio.timeout(call.context.limits.batch_wait_s):
            await batches.acquire()
    except TimeoutError:
        raise Overloaded() from None
    try:
        yield
    finally:
        batches.release()


async def _holds_of(call: Call, bodies: Sequence[BatchItem]) -> dict[str, Hold]:
    """The holds that a batch captures; unknown ids are missing."""
    ids = {body.hold_id for body in bodies if isinstance(body, BatchCapture)}
    return await holds_now(call.ledger.database, ids) if ids else {}


async def _commands_of(
    call: Call, bodies: Sequence[BatchItem], holds: Mapping[str, Hold]
) -> tuple[list[Transfer | Capture], list[tuple[object, ...]]]:
    """The commands of a batch and their parts of its fingerprint. Other requests run in between."""
    per_tick = call.context.limits.items_per_tick
    commands: list[Transfer | Capture] = []
    parts: list[tuple[object, ...]] = []
    for start in range(0, len(bodies), per_tick):
        for body in bodies[start : start + per_tick]:
            if isinstance(body, BatchCapture):
                capture = capture_of(call, body.hold_id, holds.get(body.hold_id), body)
                commands.append(capture)
                parts.append(("capture", *capture_parts(body, capture)))
            else:
                transfer = _command_of(call, body)
                commands.append(transfer)
                parts.append(_parts_of(body, transfer))
        await asyncio.sleep(0)
    return commands, parts


def _command_of(call: Call, body: schemas.NewTransfer) -> Transfer:
    return Transfer(
        call.new_id(),
        body.source_wallet_id,
        body.destination_wallet_id,
        body.amount,
        body.currency,
        body.reference,
        metadata_text(body.metadata),
    )


def _parts_of(body: schemas.NewTransfer, command: Transfer) -> tuple[object, ...]:
    """All that the command asks for, as parts of a fingerprint."""
    return *command[1:-1], metadata_part(body.metadata, command.metadata)


async def _dry_run(call: Call, command: Transfer) -> Reply:
    """Decide on the committed state and write nothing."""
    outcome = decide_transfer(command, await committed_book(call, command))
    if isinstance(outcome, Refused):
        raise Problem.of_refusal(outcome)
    view = transfer_view(outcome.transfer) | {"id": None, "status": "dry_run"}
    return shown(orjson.dumps(view))


async def reverse(call: Call) -> Reply:
    """POST /transfers/{id}/reversal."""
    body = await call.optional_body(schemas.NewReversal)
    id = call.path["id"].lower()
    original = None
    if is_id(id):
        # Transfers never change, so this may be read before any lock.
        original = await store.read_transfer(call.ledger.database, id)
    if original is not None:
        sides = (original.source_wallet_id, original.destination_wallet_id)
        require_admin_for_funding(call, sides)
    key = call.key(required=True)
    metadata = metadata_text(body.metadata)
    asked_for: list[object] = ["reversal", id, body.amount]
    if body.reference is not None or body.metadata:
        # Without them the fingerprint stays the one of versions without these members.
        asked_for += [body.reference, metadata_part(body.metadata, metadata)]
    answer = await call.ask(
        Reversal(call.new_id(), id, original, body.amount, body.reference, metadata),
        key=key,
        fingerprint=fingerprint_of(*asked_for),
    )
    return answered(answer, location="/transfers/")


async def read(call: Call) -> Reply:
    """GET /transfers/{id}."""
    id = call.path["id"].lower()
    transfer = None
    if is_id(id):
        transfer = await store.read_transfer(call.ledger.database, id)
    if transfer is None:
        raise Problem("transfer-not-found", f"There is no transfer {id}.")
    return shown(call.context.rendering.transfer(transfer))


async def list_(call: Call) -> Reply:
    """GET /transfers."""
    query = call.query(schemas.TransfersQuery)
    database = call.ledger.database
    if not await read_wallets(database, [query.wallet_id]):
        raise Problem("wallet-not-found", f"There is no wallet {query.wallet_id}.")
    scope = cursors.scope_of(call.principal.ledger, _LIST, query)
    below = cursors.decode_version(scope, query.cursor)
    found = await store.list_transfers(
        database,
        query.wallet_id,
        before_version=_FIRST_PAGE if below is None else below,
        limit=query.limit + 1,
    )
    items = [transfer_view(transfer) for _, transfer in found]
    return listed(call, scope, query.limit, items, [version for version, _ in found])


OPERATIONS = (
    Operation(
        "POST",
        "/transfers",
        "create_transfer",
        create,
        "Move money from one wallet to another",
        schemas.Transfer,
        "transfers",
        scope="transfers:write",
        status=201,
        body=schemas.NewTransfer,
        query=schemas.DryRunQuery,
        dry_run=schemas.DryRun,
        key="required",
        refusals=("rate-limited", "same-wallet", *MOVING_REFUSALS),
    ),
    Operation(
        "POST",
        "/transfers/batch",
        "create_batch",
        create_batch,
        "Post many transfers in one transaction: all or none, or each on its own",
        BatchResult,
        "transfers",
        scope="transfers:write",
        body=NewBatch,
        key="required",
        refusals=("rate-limited", "batch-refused"),
    ),
    Operation(
        "GET",
        "/transfers",
        "list_transfers",
        list_,
        "List a wallet's transfers, newest first",
        schemas.Transfer,
        "transfers",
        scope="wallets:read",
        query=schemas.TransfersQuery,
        is_list=True,
        description="In the order of the wallet's versions, so reading down to the newest transfer"
        " that is known misses none. For the transfers of all wallets take the events of a webhook"
        " or the exchange.",
        refusals=("wallet-not-found",),
    ),
    Operation(
        "GET",
        "/transfers/{id}",
        "read_transfer",
        read,
        "Read a transfer",
        schemas.Transfer,
        "transfers",
        scope="wallets:read",
        refusals=("transfer-not-found",),
    ),
    Operation(
        "POST",
        "/transfers/{id}/reversal",
        "reverse_transfer",
        reverse,
        "Give a transfer back, all of it or a part",
        schemas.Transfer,
        "transfers",
        scope="transfers:write",
        status=201,
        body=schemas.NewReversal,
        key="required",
        refusals=(
            "transfer-not-found",
            "not-reversible",
            "reversal-exceeds-transfer",
            *MOVING_REFUSALS,
        ),
    ),
)
