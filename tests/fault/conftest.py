"""Fixtures and limits that several tests of faults use."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.fault.chaos.rounds import ChaosRunner, chaos_runner
from tests.fault.chaos.topology import chaos_deployment
from transferd.config import Limits
from transferd.devstack import RedisServer

# Short timeouts, so that a test reaches them soon, but long enough for an attempt under load.
IMPATIENT = Limits(
    request_deadline_s=2.0,
    mailbox_wait_s=0.4,
    statement_timeout_s=0.3,
    idle_in_transaction_timeout_s=0.2,
    relay_publish_timeout_s=0.1,
    lock_timeout_s=0.1,
    command_timeout_s=1.5,
    # A new connection of a busy PostgreSQL took more than 0.3 s.
    pool_acquire_timeout_s=1.0,
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runner(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ChaosRunner]:
    """One deployment with two ledgers for the rounds of a file."""
    async with (
        chaos_deployment(
            tmp_path_factory.mktemp("chaos"),
            ledgers=2,
            # Each round waits until its expiries are written.
            limits="expiry_sweep_s=0.2",
            report=lambda _: None,
        ) as deployment,
        chaos_runner(deployment) as runner,
    ):
        yield runner


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[RedisServer]:
    """A Redis that only this test uses."""
    server = RedisServer(tmp_path / "redis")
    await server.start()
    yield server
    await server.stop()
