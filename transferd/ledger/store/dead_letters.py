"""Dead letters: deliveries that were given up, and messages that are not events.

A delivery that was given up is a row of `deliveries` with a reason. A message that is not an event
has a row in `dead_letters`. Both stay until an operator decides.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from transferd.ledger.ids import new_id
from transferd.ledger.store.database import LedgerDatabase, Transaction
from transferd.ledger.store.deliveries import LOG

_DETAIL_CHARS_MAX = 500


class DeadLetter(NamedTuple):
    """`body` is the event. Without endpoint and event it is a message that is not an event."""

    id: str
    endpoint_id: str | None
    event_id: str | None
    event_type: str | None
    reason: str
    detail: str
    attempts: int
    body: bytes
    died_at: datetime


class Redriven(NamedTuple):
    """A delivery that waits again; `event` is JSON."""

    id: str
    endpoint_id: str
    event: str


class Filter(NamedTuple):
    """Which letters; None admits everything. `died_before` is a time in UTC."""

    endpoint_id: str | None = None
    event_type: str | None = None
    reason: str | None = None
    died_before: datetime | None = None
    ids: list[str] | None = None


async def insert_dead_letters(transaction: Transaction, bodies: Mapping[bytes, str]) -> None:
    """Keep messages that are not events, each with the reason; known ones stay."""
    await transaction.fetch(
        "insert_dead_letters",
        [new_id(transaction.ledger) for _ in bodies],
        # PostgreSQL's text has no NUL, and a reason may quote what came.
        [reason.replace("\0", "")[:_DETAIL_CHARS_MAX] for reason in bodies.values()],
        list(bodies),
    )


async def fold_dead_letters(database: LedgerDatabase) -> None:
    """Move the letters of a worker of the version before into the rows of their deliveries."""
    async with database.transaction() as transaction:
        await transaction.fetch("fold_dead_letters")


async def take_unaddressed_letters(transaction: Transaction) -> list[tuple[bytes, str]]:
    """Remove the letters of the version before that name no endpoint: the event and the reason."""
    return [(row[0], row[1]) for row in await transaction.fetch("take_unaddressed_letters")]


async def list_dead_letters(
    database: LedgerDatabase, wanted: Filter, *, after_id: str | None, limit: int
) -> list[DeadLetter]:
    """Oldest first, those with an id above `after_id`."""
    rows = await database.fetch("list_dead_letters", *wanted, after_id, limit)
    return [DeadLetter(**dict(row)) for row in rows]


async def count_dead_letters(database: LedgerDatabase, wanted: Filter) -> int:
    """How many there are."""
    [row] = await database.fetch("count_dead_letters", *wanted)
    count: int = row["count"]
    return count


async def redrive_dead_letters(transaction: Transaction, ids: Sequence[str]) -> list[Redriven]:
    """Let deliveries that were given up wait again.

    Messages that are not events, and deliveries to an endpoint that was deleted, stay dead.
    """
    rows = await transaction.fetch("redrive_dead_letters", list(ids), LOG)
    return [Redriven(*row) for row in rows]


async def delete_dead_letters(transaction: Transaction, ids: Sequence[str]) -> int:
    """Remove them; how many were still there."""
    [row] = await transaction.fetch("delete_dead_letters", list(ids))
    count: int = row["count"]
    return count
