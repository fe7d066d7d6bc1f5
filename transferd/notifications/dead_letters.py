"""Dead letters that an operator sends again or deletes."""

from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

import orjson

from transferd.ledger.store.database import LedgerDatabase
from transferd.ledger.store.dead_letters import (
    DeadLetter,
    Filter,
    count_dead_letters,
    delete_dead_letters,
    fold_dead_letters,
    list_dead_letters,
    redrive_dead_letters,
)
from transferd.ledger.store.outbox import insert_outbox

_PAGE = 200

# Called with the number of letters that are done, and of all.
Progress = Callable[[int, int], None]


class Redriven(NamedTuple):
    """How many are sent again; how many stay, because they are not events or have no webhook."""

    sent: int
    kept: int


async def redrive(database: LedgerDatabase, wanted: Filter, progress: Progress) -> Redriven:
    """Let deliveries wait again, and wake the worker up through the outbox. Raises StoreError; then
    the rest stays.

    Both happen in one transaction, so neither a crash nor a second operator loses or doubles one.
    """
    await fold_dead_letters(database)
    total = await count_dead_letters(database, wanted)
    sent = kept = done = 0
    async for page in _pages(database, wanted, total):
        async with database.transaction() as transaction:
            ids = [letter.id for letter in page]
            taken = await redrive_dead_letters(transaction, ids)
            if taken:
                items = [again(each.endpoint_id, each.event) for each in taken]
                await insert_outbox(transaction, items)
        sent += len(taken)
        # Another operator may have taken some of the rest.
        rest = set(ids) - {each.id for each in taken}
        kept += await count_dead_letters(database, wanted._replace(ids=list(rest)))
        done += len(page)
        progress(done, total)
    return Redriven(sent, kept)


async def purge(database: LedgerDatabase, wanted: Filter, progress: Progress) -> int:
    """Delete letters; how many. Raises StoreError."""
    await fold_dead_letters(database)
    total = await count_dead_letters(database, wanted)
    count = 0
    async for page in _pages(database, wanted, total):
        async with database.transaction() as transaction:
            count += await delete_dead_letters(transaction, [letter.id for letter in page])
        progress(count, total)
    return count


def again(endpoint_id: str, event: str) -> bytes:
    """An item of the outbox: an event that is sent again to one endpoint. `event` is JSON."""
    return orjson.dumps({"endpoint": endpoint_id, "event": orjson.Fragment(event)})


async def _pages(
    database: LedgerDatabase, wanted: Filter, total: int
) -> AsyncIterator[list[DeadLetter]]:
    """So many letters, oldest first. Letters that are added meanwhile come behind them: otherwise a
    redrive to an endpoint that is still broken would never end."""
    after_id: str | None = None
    while total > 0 and (
        page := await list_dead_letters(
            database, wanted, after_id=after_id, limit=min(_PAGE, total)
        )
    ):
        after_id = page[-1].id
        total -= len(page)
        yield page
