"""The store of a ledger, without a replica."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from transferd.config import Limits, Settings
from transferd.domain.ledger import MAIN, Ledger
from transferd.ledger.store.database import Database, LedgerDatabase


@asynccontextmanager
async def open_main(
    settings: Settings, limits: Limits | None = None, connections: int = 1
) -> AsyncIterator[LedgerDatabase]:
    """The main ledger."""
    async with open_ledger(settings, MAIN, limits, connections) as opened:
        yield opened


@asynccontextmanager
async def open_ledger(
    settings: Settings, ledger: Ledger, limits: Limits | None = None, connections: int = 1
) -> AsyncIterator[LedgerDatabase]:
    """Any ledger."""
    async with Database(settings, limits or Limits(), connections) as database:
        yield database.of(ledger)
