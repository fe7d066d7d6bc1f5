"""What an operator does with dead letters: send them again, or throw them away."""

from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

import orjson

from transferd.ledger.store.database import Database
from transferd.ledger.store.dead_letters import (
    DeadLetter,
    Filter,
    count_dead_letters,
    delete_dead_letters,
    list_dead_letters,
)
from transferd.ledger.store.deliveries import ask_again_for
from transferd.ledger.store.outbox import insert_outbox

_PAGE = 200

# Told how many of how many are done.
Progress = Callable[[int, int], None]


class Redriven(NamedTuple):
    """How many were sent again, and how many are no events and stay."""

    sent: int
    unreadable: int


async def redrive(database: Database, wanted: Filter, progress: Progress) -> Redriven:
    """Send letters again, by way of the outbox. Raises StoreError; then the rest stays.

    The letter goes and the event enters the outbox in one transaction, so neither a crash nor a
    second operator loses or doubles one.
    """
    total = await count_dead_letters(database, wanted)
    sent = unreadable = 0
    async for page in _pages(database, wanted, total):
        events = [letter for letter in page if letter.event_id is not None]
        unreadable += len(page) - len(events)
        if events:
            async with database.transaction() as transaction:
                taken = await delete_dead_letters(transaction, [letter.id for letter in events])
                # Oldest first, as they came.
                taken.sort(key=lambda letter: letter.id)
                await ask_again_for(transaction, _pairs(taken))
                if taken:
                    await insert_outbox(transaction, [_again(letter) for letter in taken])
            sent += len(taken)
        progress(sent + unreadable, total)
    return Redriven(sent, unreadable)


async def purge(database: Database, wanted: Filter, progress: Progress) -> int:
    """Throw letters away; how many. Raises StoreError."""
    total = await count_dead_letters(database, wanted)
    count = 0
    async for page in _pages(database, wanted, total):
        async with database.transaction() as transaction:
            count += len(await delete_dead_letters(transaction, [letter.id for letter in page]))
        progress(count, total)
    return count


async def _pages(database: Database, wanted: Filter, total: int) -> AsyncIterator[list[DeadLetter]]:
    """So many letters, oldest first. Those that die meanwhile come behind them: else whoever sends
    letters to an endpoint that is still broken would never come to an end."""
    after_id: str | None = None
    while total > 0 and (
        page := await list_dead_letters(
            database, wanted, after_id=after_id, limit=min(_PAGE, total)
        )
    ):
        after_id = page[-1].id
        total -= len(page)
        yield page


def _pairs(letters: list[DeadLetter]) -> list[tuple[str, str]]:
    return [
        (letter.event_id, letter.endpoint_id)
        for letter in letters
        if letter.event_id is not None and letter.endpoint_id is not None
    ]


def _again(letter: DeadLetter) -> bytes:
    """An item of the outbox; without an endpoint it is for all who do not have it yet."""
    return orjson.dumps({"endpoint": letter.endpoint_id, "event": orjson.Fragment(letter.body)})
