"""Outcomes of idempotency keys, as PostgreSQL keeps them for ever."""

from collections.abc import Sequence
from typing import NamedTuple

from transferd.domain.key import Key
from transferd.ledger.store.database import Database, Row, Transaction

# How what is stored becomes an answer: as the transfer with `transfer_id` or the bytes of `body`;
# or as a batch, whose transfers `body` names. A new way gets a new number beside the old ones.
RENDER_SINGLE = 1
RENDER_BATCH = 2
RENDER_VERSION_MAX = 2


class StoredOutcome(NamedTuple):
    """What a key led to: a transfer to render again, or the bytes of anything else."""

    fingerprint: bytes
    status: int
    render_version: int
    transfer_id: str | None
    body: bytes | None


def outcomes_of(rows: Sequence[Row]) -> dict[Key, StoredOutcome]:
    """Rows of `outcomes`, by key."""
    return {
        (row["client_id"], row["key"]): StoredOutcome(
            row["fingerprint"],
            row["status"],
            row["render_version"],
            row["transfer_id"],
            row["body"],
        )
        for row in rows
    }


async def read_outcomes(
    source: Database | Transaction, keys: Sequence[Key]
) -> dict[Key, StoredOutcome]:
    """The outcomes of those keys that have one."""
    rows = await source.fetch("outcomes", [client for client, _ in keys], [k for _, k in keys])
    return outcomes_of(rows)


async def insert_outcome(
    transaction: Transaction, key: Key, *, fingerprint: bytes, status: int, body: bytes
) -> bool:
    """Keep the outcome of a key whose request moves no money; False if the key has one by now."""
    client_id, text = key
    rows = await transaction.fetch(
        "insert_outcome", client_id, text, fingerprint, status, RENDER_SINGLE, body
    )
    return bool(rows)
