"""Dead letters: messages that were given up, kept with the reason until somebody decides."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from transferd.ledger.store.database import Database, Row, Transaction

_DETAIL_CHARS_MAX = 500


class DeadLetter(NamedTuple):
    """`body` is the message. No endpoint: it had not come that far; no event: unreadable."""

    id: str
    endpoint_id: str | None
    event_id: str | None
    event_type: str | None
    reason: str
    detail: str
    attempts: int
    body: bytes
    died_at: datetime | None = None


class Filter(NamedTuple):
    """Which letters; None admits everything. `died_before` is a time in UTC."""

    endpoint_id: str | None = None
    event_type: str | None = None
    reason: str | None = None
    died_before: datetime | None = None
    ids: Sequence[str] | None = None


async def insert_dead_letters(transaction: Transaction, letters: Sequence[DeadLetter]) -> None:
    """Keep them; one that is there already stays as it is."""
    await transaction.fetch(
        "insert_dead_letters",
        [letter.id for letter in letters],
        [letter.endpoint_id for letter in letters],
        [letter.event_id for letter in letters],
        [letter.event_type for letter in letters],
        [letter.reason for letter in letters],
        # PostgreSQL's text has no NUL, and a detail may quote whatever came.
        [letter.detail.replace("\0", "")[:_DETAIL_CHARS_MAX] for letter in letters],
        [letter.attempts for letter in letters],
        [letter.body for letter in letters],
    )


async def list_dead_letters(
    database: Database, wanted: Filter, *, after_id: str | None, limit: int
) -> list[DeadLetter]:
    """Oldest first, those with an id above `after_id`."""
    ids = None if wanted.ids is None else list(wanted.ids)
    rows = await database.fetch(
        "list_dead_letters",
        after_id,
        wanted.endpoint_id,
        wanted.event_type,
        wanted.reason,
        wanted.died_before,
        ids,
        limit,
    )
    return [_letter_of(row) for row in rows]


async def count_dead_letters(database: Database, wanted: Filter) -> int:
    """How many there are."""
    ids = None if wanted.ids is None else list(wanted.ids)
    [row] = await database.fetch(
        "count_dead_letters",
        wanted.endpoint_id,
        wanted.event_type,
        wanted.reason,
        wanted.died_before,
        ids,
    )
    count: int = row["count"]
    return count


async def delete_dead_letters(transaction: Transaction, ids: Sequence[str]) -> list[DeadLetter]:
    """Remove them; those that were still there."""
    return [_letter_of(row) for row in await transaction.fetch("delete_dead_letters", list(ids))]


def _letter_of(row: Row) -> DeadLetter:
    return DeadLetter(**dict(row))
