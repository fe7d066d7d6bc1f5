"""If-Match while the connection is cut at the COMMIT: no change is denied that was made."""

from collections.abc import AsyncIterator

import pytest

from tests.conftest import Database, Replicas
from tests.support.api import Api, Reply
from tests.support.proxy import Cut, Proxy
from tests.support.truth import faults_in, row_count

_CHANGES = "ledger_00.wallet_changes"


@pytest.fixture
async def proxy(database: Database) -> AsyncIterator[Proxy]:
    """Between the replicas and PostgreSQL."""
    async with Proxy(database.settings().required("database_url")) as proxy:
        yield proxy


async def freeze(api: Api, wallet: str, key: str | None = None) -> Reply:
    """Freeze it at the version that it was made with."""
    return await api.post(f"/wallets/{wallet}/freeze", key=key, headers={"If-Match": '"w0"'})


@pytest.mark.parametrize("cut", Cut, ids=[cut.name for cut in Cut])
async def test_with_a_key_the_change_is_made_once_and_found_again(
    cut: Cut, replicas: Replicas, database: Database, proxy: Proxy
) -> None:
    api = await replicas.start(database_url=proxy.url)
    ada = await api.wallet()
    before = await row_count(database, _CHANGES)
    proxy.arm(cut)
    done = await freeze(api, ada, key="stop")
    assert (proxy.cuts, done.status, done.json["version"]) == (1, 200, 1)
    assert "Idempotent-Replayed" not in done.headers
    again = await freeze(api, ada, key="stop")
    assert (again.body, again.headers["Idempotent-Replayed"]) == (done.body, "true")
    assert await row_count(database, _CHANGES) == before + 1
    assert await faults_in(database) == []


@pytest.mark.parametrize("cut", Cut, ids=[cut.name for cut in Cut])
async def test_without_a_key_a_change_in_doubt_is_a_504_and_never_a_412(
    cut: Cut, replicas: Replicas, database: Database, proxy: Proxy
) -> None:
    api = await replicas.start(database_url=proxy.url)
    ada = await api.wallet()
    before = await row_count(database, _CHANGES)
    proxy.arm(cut)
    reply = await freeze(api, ada)
    assert proxy.cuts == 1
    assert await row_count(database, _CHANGES) == before + 1
    if reply.status == 200:
        # The first attempt was rolled back, and the second one made the change.
        assert (reply.json["status"], reply.json["version"]) == ("frozen", 1)
    else:
        # The first attempt made the change. The second cannot know that and must not answer 412.
        assert (reply.status, reply.code) == (504, "deadline-exceeded")
    assert (reply.status == 200) == (cut is Cut.BEFORE)
    assert (await api.get(f"/wallets/{ada}")).json["status"] == "frozen"
    assert await faults_in(database) == []
