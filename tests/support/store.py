"""The store of a ledger, without a replica."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from transferd.config import Limits, Settings
from transferd.domain.ledger import MAIN, Ledger
from transferd.ledger.store.database import Database, LedgerDatabase
from transferd.ledger.store.ledgers import read_ledger


@asynccontextmanager
async def open_main(
    settings: Settings, limits: Limits | None = None, connections: int = 1
) -> AsyncIterator[LedgerDatabase]:
    """The ledger of the settings: main, unless the configuration has another one."""
    async with open_ledger(settings, MAIN, limits, connections) as opened:
        yield opened


@asynccontextmanager
async def open_ledger(
    settings: Settings, ledger: Ledger, limits: Limits | None = None, connections: int = 1
) -> AsyncIterator[LedgerDatabase]:
    """Any ledger; main stands for the one of the settings."""
    async with Database(settings, limits or Limits(), connections) as database:
        if ledger == MAIN:
            ledger = await read_ledger(database, settings.ledger)
        yield database.of(ledger)
