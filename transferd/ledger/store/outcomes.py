"""Outcomes of idempotency keys. They are never deleted."""

from collections.abc import Sequence
from typing import NamedTuple

from transferd.domain.key import Key
from transferd.ledger.store.database import LedgerDatabase, Row, Transaction

# How a stored answer is rendered: 1 is the transfer `transfer_id` or the bytes of `body`, 2 is a
# batch whose transfers `body` names. A new way gets a new number; the old ones stay.
RENDER_SINGLE = 1
RENDER_BATCH = 2
RENDER_VERSION_MAX = 2


class StoredAnswer(NamedTuple):
    """The stored form of a body: the id of a transfer, or the bytes of anything else."""

    render_version: int
    transfer_id: str | None
    body: bytes | None


class StoredOutcome(NamedTuple):
    """What a key led to."""

    fingerprint: bytes
    status: int
    answer: StoredAnswer


def outcome_of(row: Row) -> tuple[Key, StoredOutcome]:
    """A row of `outcomes`."""
    answer = StoredAnswer(row["render_version"], row["transfer_id"], row["body"])
    key = (row["client_id"], row["key"])
    return key, StoredOutcome(row["fingerprint"], row["outcome_status"], answer)


async def read_outcomes(
    source: LedgerDatabase | Transaction, keys: Sequence[Key]
) -> dict[Key, StoredOutcome]:
    """The outcomes of keys; keys without one are missing."""
    rows = await source.fetch("outcomes", [client for client, _ in keys], [k for _, k in keys])
    return dict(map(outcome_of, rows))


async def insert_outcome(
    transaction: Transaction, key: Key, *, fingerprint: bytes, status: int, body: bytes
) -> bool:
    """Store the outcome of a key whose request moves no money; False if the key has one already."""
    client_id, text = key
    rows = await transaction.fetch(
        "insert_outcome", client_id, text, fingerprint, status, RENDER_SINGLE, body
    )
    return bool(rows)
