"""Removes old deliveries. Until then, a repeated event is recognized by its row."""

import asyncio
import time

from transferd.config import Limits
from transferd.ledger.ids import id_at
from transferd.ledger.store import deliveries
from transferd.ledger.store.database import Database, LedgerDatabase
from transferd.ledger.store.errors import StoreError
from transferd.ledger.watch import LedgerList
from transferd.observability.facts import Facts, NotifierFailed

_DAY_S = 24 * 3600


async def prune(
    database: Database, ledgers: LedgerList, limits: Limits, facts: Facts, days: int
) -> None:
    """Remove deliveries of all ledgers that are older than the window, until cancelled."""
    while True:
        try:
            for ledger in await ledgers.all():
                # A ledger that fails stops no other.
                try:
                    await prune_once(database.of(ledger), limits, older_than_s=days * _DAY_S)
                except StoreError as error:
                    facts.emit(NotifierFailed(error))
        except StoreError as error:
            facts.emit(NotifierFailed(error))
        await asyncio.sleep(limits.prune_interval_s)


async def prune_once(database: LedgerDatabase, limits: Limits, *, older_than_s: float) -> int:
    """Remove finished deliveries that began longer ago; how many. Raises StoreError."""
    before_id = id_at(time.time() - older_than_s)
    count = 0
    for endpoint_id in await deliveries.endpoints_with_deliveries(database):
        removed = limits.prune_rows
        # In small steps, so that no statement holds locks for long or meets its time limit.
        while removed == limits.prune_rows:
            removed = await deliveries.prune_deliveries(
                database, endpoint_id, before_id=before_id, limit=limits.prune_rows
            )
            count += removed
    return count
