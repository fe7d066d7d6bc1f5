"""What is kept of an outcome under its key, and how that becomes the same answer again."""

from collections.abc import Mapping, Sequence

import orjson

from transferd.commit.answer import Answer
from transferd.commit.envelope import Envelope
from transferd.commit.renderer import Renderer
from transferd.domain.book import BatchPosted, Outcome, Posted
from transferd.domain.errors import Reason, Refused
from transferd.domain.key import Key
from transferd.domain.transfer import PostedTransfer
from transferd.ledger.store.database import Database, Transaction
from transferd.ledger.store.errors import SerializationFailure
from transferd.ledger.store.group import OutcomeRow
from transferd.ledger.store.outcomes import (
    RENDER_BATCH,
    RENDER_SINGLE,
    StoredOutcome,
    read_outcomes,
)
from transferd.ledger.store.transfers import read_transfers


def outcome_row(
    envelope: Envelope, key: Key, outcome: Outcome, answer: Answer, renderer: Renderer
) -> OutcomeRow:
    """A transfer is kept as its id, a batch as the ids of its transfers, all else as its bytes."""
    transfer_id, body, version = None, None, RENDER_SINGLE
    match outcome:
        case Posted(transfer):
            transfer_id = transfer.id
        case BatchPosted(results):
            version = RENDER_BATCH
            body = orjson.dumps(
                [
                    result.transfer.id
                    if isinstance(result, Posted)
                    else orjson.Fragment(renderer.refusal(envelope, result))
                    for result in results
                ]
            )
        case _:
            body = answer.body
    client_id, text = key
    return OutcomeRow(
        client_id, text, envelope.stored_fingerprint, answer.status, version, transfer_id, body
    )


def key_reused() -> Refused:
    """The refusal of a key that was used for another request; it is never stored itself."""
    return Refused(
        Reason.IDEMPOTENCY_KEY_REUSED,
        "This Idempotency-Key was used for a different request. A new key can pay twice: first look"
        " at GET /idempotency-keys/{key}, or repeat that request exactly as it was sent.",
    )


async def assert_no_outcome(
    transaction: Transaction, answers: Sequence[tuple[Envelope, Answer]]
) -> None:
    """Raise SerializationFailure if a decision that is not kept has overlooked its key's outcome.

    The look-up beside the locks sees no outcome whose COMMIT was being waited for. What is stored
    meets that one when it is inserted; what is not stored has to look once more.
    """
    keys = [e.key for e, answer in answers if e.key is not None and not answer.kept]
    if keys and await read_outcomes(transaction, keys):
        raise SerializationFailure("another request with this key was faster")


async def bodies_of(
    stored: Sequence[StoredOutcome], source: Database | Transaction, renderer: Renderer
) -> list[bytes]:
    """The bytes that each was answered with, from one read of all their transfers."""
    batches = [
        orjson.loads(outcome.body or b"[]") if outcome.render_version == RENDER_BATCH else []
        for outcome in stored
    ]
    ids = [outcome.transfer_id for outcome in stored if outcome.transfer_id is not None]
    ids += [item for batch in batches for item in batch if isinstance(item, str)]
    transfers = await read_transfers(source, ids) if ids else {}
    return [
        _body_of(outcome, batch, transfers, renderer)
        for outcome, batch in zip(stored, batches, strict=True)
    ]


def _body_of(
    stored: StoredOutcome,
    batch: list[object],
    transfers: Mapping[str, PostedTransfer],
    renderer: Renderer,
) -> bytes:
    if stored.transfer_id is not None:
        return renderer.transfer(transfers[stored.transfer_id])
    if stored.render_version == RENDER_BATCH:
        return renderer.batch(
            [
                renderer.transfer(transfers[item]) if isinstance(item, str) else orjson.dumps(item)
                for item in batch
            ]
        )
    return stored.body or b""
