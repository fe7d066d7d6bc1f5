"""Outcomes of idempotency keys, as PostgreSQL keeps them for ever."""

from collections.abc import Sequence
from typing import NamedTuple

from transferd.domain.key import Key
from transferd.ledger.store.database import Database, Row, Transaction

# How a stored transfer is turned into bytes. A new number gets a new renderer beside the old one.
RENDER_VERSION = 1


class StoredOutcome(NamedTuple):
    """What a key led to: a transfer to render again, or the bytes of anything else."""

    fingerprint: bytes
    status: int
    transfer_id: str | None
    body: bytes | None


def outcomes_of(rows: Sequence[Row]) -> dict[Key, StoredOutcome]:
    """Rows of `outcomes`, by key."""
    return {
        (row["client_id"], row["key"]): StoredOutcome(
            row["fingerprint"], row["status"], row["transfer_id"], row["body"]
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
        "insert_outcome", client_id, text, fingerprint, status, RENDER_VERSION, body
    )
    return bool(rows)
