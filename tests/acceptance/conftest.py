"""Fixtures of the tests of the HTTP contract."""

from collections.abc import AsyncIterator

import orjson
import pytest

from tests.conftest import Database
from tests.support.api import Api
from tests.support.contract import Target, footprint


@pytest.fixture
async def target(api: Api, database: Database) -> AsyncIterator[Target]:
    """What the bad requests are aimed at; checked to be unharmed at the end."""
    user, ada, bob = await api.user(), await api.wallet(100), await api.wallet()
    paid = (await api.transfer(ada, bob, 5)).json["id"]
    target = Target(api, database, user, ada, bob, paid, await footprint(database))
    yield target
    assert await footprint(database) == target.before
    # The key is free, and the service works.
    made = await target.transfer(orjson.dumps(target.body()))
    assert (made.status, "Idempotent-Replayed" in made.headers) == (201, False)
