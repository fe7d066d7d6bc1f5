"""Fixtures of the tests of the HTTP contract."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.conftest import Database, Replicas
from tests.support.api import Api
from tests.support.contract import Target, footprint


@pytest.fixture
async def target(api: Api, database: Database) -> AsyncIterator[Target]:
    """Wallets and a transfer for invalid requests; checks after the test that nothing changed."""
    user, ada, bob = await api.user(), await api.wallet(100), await api.wallet()
    paid = (await api.transfer(ada, bob, 5)).json["id"]
    target = Target(api, database, user, ada, bob, paid, await footprint(database))
    yield target
    assert await footprint(database) == target.before
    # The key of the invalid requests is still free, and the service works.
    made = await api.post("/transfers", target.body(), key="bad")
    assert (made.status, "Idempotent-Replayed" in made.headers) == (201, False)


@pytest.fixture
async def document(api: Api) -> Any:
    """The OpenAPI document."""
    return (await api.get("/openapi.json")).json


@pytest.fixture
async def locked(replicas: Replicas) -> Api:
    """A client without an API key, of a replica that requires one."""
    return await replicas.start(auth="on")
