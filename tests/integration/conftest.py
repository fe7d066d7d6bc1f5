"""Fixtures that several files of this folder use."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.conftest import Database, Workers
from tests.support.notifying import Scene
from tests.support.store import open_main
from transferd.config import Limits, Settings
from transferd.ledger.store.database import Database as Store
from transferd.ledger.store.database import LedgerDatabase


@pytest.fixture
async def shared(database: Database) -> AsyncIterator[Store]:
    """The service's tables of no ledger, on the test's database."""
    async with Store(database.settings(), Limits(), 1) as opened:
        yield opened


@pytest.fixture
async def store(database: Database) -> AsyncIterator[LedgerDatabase]:
    """The service's store on the test's database."""
    async with open_main(database.settings()) as opened:
        yield opened


@pytest.fixture
async def redis(database: Database) -> AsyncIterator[Any]:
    """A client of the database in Redis that this test's replicas use."""
    client: Any = Redis.from_url(database.settings().required("redis_url"))
    yield client
    await client.aclose()


@pytest.fixture
async def scene(database: Database, workers: Workers) -> AsyncIterator[Scene]:
    """Workers with RabbitMQ, and receivers."""
    async with AsyncExitStack() as exits:
        yield Scene(database, workers.settings, exits)


@pytest.fixture
async def local_scene(database: Database) -> AsyncIterator[Scene]:
    """Workers without RabbitMQ, and receivers."""

    def settings_with(**changes: object) -> Settings:
        return database.settings(
            worker_port=0,
            webhook_allow_http=True,
            webhook_allow_networks="127.0.0.0/8",
            **changes,
        )

    async with AsyncExitStack() as exits:
        yield Scene(database, settings_with, exits)
