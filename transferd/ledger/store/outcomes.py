"""Outcomes of idempotency keys, as PostgreSQL keeps them for ever."""

from collections.abc import Sequence
from typing import NamedTuple

from transferd.domain.key import Key
from transferd.ledger.store.database import Database, Row


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


async def read_outcomes(database: Database, keys: Sequence[Key]) -> dict[Key, StoredOutcome]:
    """The outcomes of those keys that have one."""
    rows = await database.fetch("outcomes", [client for client, _ in keys], [k for _, k in keys])
    return outcomes_of(rows)
