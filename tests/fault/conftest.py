"""The fixture that all tests with the chaos topology share."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.fault.chaos.rounds import Stage, stage
from tests.fault.chaos.topology import chaos_topology


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stand(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """One topology for a file, on which rounds are played."""
    async with (
        chaos_topology(tmp_path_factory.mktemp("chaos"), report=lambda _: None) as topology,
        stage(topology) as stand,
    ):
        yield stand
