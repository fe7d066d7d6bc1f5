"""The last use of a key: written in the background, and no request waits for it."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest

from tests.conftest import Database, Replicas
from tests.support.api import Api
from tests.support.contract import ApiWithKey, api_key
from tests.support.pressure import held, until_sessions_wait
from tests.support.waiting import until
from transferd.config import Limits
from transferd.ledger.store.clients import record_key_uses, revoke_api_keys
from transferd.ledger.store.database import Database as Store
from transferd.observability.facts import Fact, Facts, KeyUsesFailed
from transferd.service import open_replica
from transferd.web.key_uses import KeyUses

_NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
_QUICK = Limits(key_uses_interval_s=0.01)
# Counts statements, not rows.
_COUNTED = """
CREATE TABLE updates (at timestamptz);
CREATE FUNCTION count_update() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
    INSERT INTO updates VALUES (now());
    RETURN NULL;
END $$;
CREATE TRIGGER counted AFTER UPDATE ON transferd.api_keys
FOR EACH STATEMENT EXECUTE FUNCTION count_update();
"""
_HOLD_FIRST = "SELECT 1 FROM transferd.api_keys WHERE id = 'first' FOR UPDATE"
_HOLD_KEYS = "SELECT 1 FROM transferd.api_keys ORDER BY id FOR UPDATE"


async def last_uses(database: Database) -> dict[str, datetime | None]:
    """The stored time of the last use of each key."""
    rows = await database.fetch("SELECT id, last_used_at FROM transferd.api_keys ORDER BY id")
    return {row["id"]: row["last_used_at"] for row in rows}


async def statements(database: Database) -> int:
    """How many statements have changed keys since the last count."""
    return len(await database.fetch("SELECT FROM updates"))


async def until_used(database: Database, id: str) -> datetime:
    """When the key was used last, once that is stored."""

    async def is_stored() -> bool:
        return (await last_uses(database))[id] is not None

    await until(is_stored)
    used_at = (await last_uses(database))[id]
    assert used_at is not None
    return used_at


async def test_a_use_is_stored_a_moment_later(database: Database, replicas: Replicas) -> None:
    used = await api_key(database, "used", "wallets:read")
    refused = await api_key(database, "refused")
    await api_key(database, "idle", "admin")
    revoked = await api_key(database, "revoked", "admin", revoked_at=_NOW)
    api = await replicas.start(_QUICK, auth="on")
    before = datetime.now(UTC)
    # A call without the scope uses the key; a call with a wrong secret does not.
    assert (await api.get("/users", {"Authorization": f"Bearer td_idle_{used[8:]}"})).status == 401
    assert (await ApiWithKey(api, revoked).get("/users")).status == 401
    assert (await ApiWithKey(api, refused).get("/users")).status == 403
    assert (await ApiWithKey(api, used).get("/users")).status == 200
    assert before <= await until_used(database, "refused") <= await until_used(database, "used")
    assert (await last_uses(database))["used"] < datetime.now(UTC)  # type: ignore[operator]
    stored = await last_uses(database)
    assert (stored["idle"], stored["revoked"], stored["unknown-secret"]) == (None, None, None)


async def test_many_uses_of_many_keys_are_one_statement(database: Database, shared: Store) -> None:
    await database.servers.as_superuser(_COUNTED, database=database.name)
    names = [f"key{number}" for number in range(20)]
    for name in names:
        await api_key(database, name, "admin")
    uses = KeyUses(shared, Limits(), Facts())
    for second in range(10):
        for name in names:
            uses.note(name, _NOW + timedelta(seconds=second))
    assert repr(uses) == "<KeyUses 20 of 10000>"
    assert await uses.write_once() == 20
    assert await statements(database) == 1
    assert await last_uses(database) == dict.fromkeys(sorted(names), _NOW + timedelta(seconds=9))
    # Without uses nothing is written.
    assert await uses.write_once() == 0
    assert await statements(database) == 1


async def test_a_replica_writes_once_a_minute_and_when_it_stops(database: Database) -> None:
    await database.servers.as_superuser(_COUNTED, database=database.name)
    token = await api_key(database, "used", "wallets:read")
    assert Limits().key_uses_interval_s == 60.0
    async with (
        open_replica(database.settings(auth="on"), Limits(), drain_linger_s=0.0) as replica,
        aiohttp.ClientSession() as session,
    ):
        user = ApiWithKey(Api(session, replica.url), token)
        for _ in range(20):
            assert (await user.get("/users")).status == 200
        assert await statements(database) == 0
    assert await statements(database) == 1
    assert (await last_uses(database))["used"] is not None


async def test_the_latest_use_stays_in_any_order_of_writers(
    database: Database, shared: Store
) -> None:
    await api_key(database, "used", "admin")
    for at in (_NOW, _NOW - timedelta(hours=1)):
        # As from another replica.
        uses = KeyUses(shared, Limits(), Facts())
        uses.note("used", at)
        await uses.write_once()
    assert await last_uses(database) == {"used": _NOW}
    ahead = KeyUses(shared, Limits(), Facts())
    ahead.note("used", datetime.now(UTC) + timedelta(days=1))
    await ahead.write_once()
    stored = (await last_uses(database))["used"]
    assert stored is not None
    assert _NOW < stored < datetime.now(UTC) + timedelta(hours=1)


async def test_above_the_limit_uses_of_further_keys_are_not_recorded(
    database: Database, shared: Store
) -> None:
    for name in ("one", "three", "two"):
        await api_key(database, name, "admin")
    uses = KeyUses(shared, Limits(key_uses_max=2), Facts())
    for name in ("one", "two", "three"):
        uses.note(name, _NOW)
    uses.note("one", _NOW + timedelta(seconds=1))
    assert await uses.write_once() == 2
    stored = await last_uses(database)
    assert stored == {"one": _NOW + timedelta(seconds=1), "three": None, "two": _NOW}
    uses.note("three", _NOW)
    assert await uses.write_once() == 1


async def test_a_use_during_a_write_is_for_the_next_one(database: Database, shared: Store) -> None:
    await api_key(database, "used", "admin")
    uses = KeyUses(shared, Limits(), Facts())
    uses.note("used", _NOW)
    async with held(database, _HOLD_KEYS):
        writing = asyncio.create_task(uses.write_once())
        await until_sessions_wait(database, 1)
        uses.note("used", _NOW + timedelta(seconds=1))
    assert await writing == 1
    assert await last_uses(database) == {"used": _NOW}
    assert await uses.write_once() == 1
    assert await last_uses(database) == {"used": _NOW + timedelta(seconds=1)}


async def record_uses(shared: Store, *names: str) -> None:
    await record_key_uses(shared, dict.fromkeys(names, _NOW))


async def revoke(shared: Store, *names: str) -> None:
    await revoke_api_keys(shared, names)


@pytest.mark.parametrize("change", [record_uses, revoke])
async def test_a_writer_that_waits_for_a_key_locks_no_later_one(
    database: Database, shared: Store, change: Callable[..., Coroutine[None, None, None]]
) -> None:
    # Rows are locked in this order; otherwise two writers could deadlock.
    for name in ("later", "first"):
        await api_key(database, name, "admin")
    async with held(database, _HOLD_FIRST):
        changing = asyncio.create_task(change(shared, "later", "first"))
        await until_sessions_wait(database, 1)
        free = await database.fetch(
            "SELECT id FROM transferd.api_keys WHERE id = 'later' FOR UPDATE NOWAIT"
        )
        assert [row["id"] for row in free] == ["later"]
    await changing


async def test_requests_do_not_wait_for_the_write_of_uses(
    database: Database, replicas: Replicas
) -> None:
    token = await api_key(database, "used", "wallets:read")
    user = ApiWithKey(await replicas.start(_QUICK, auth="on"), token)
    async with held(database, _HOLD_KEYS):
        assert (await user.get("/users")).status == 200
        await until_sessions_wait(database, 1)
        assert (await user.get("/users")).status == 200
        assert (await last_uses(database))["used"] is None
    await until_used(database, "used")


async def test_uses_that_cannot_be_written_fail_no_request_and_are_kept(
    database: Database, replicas: Replicas
) -> None:
    token = await api_key(database, "used", "wallets:read")
    api = await replicas.start(_QUICK, auth="on")
    user = ApiWithKey(api, token)
    rename = "ALTER TABLE transferd.api_keys RENAME COLUMN {} TO {}"
    await database.fetch(rename.format("last_used_at", "mislaid"))
    assert (await user.get("/users")).status == 200

    async def has_failed() -> bool:
        metrics = (await api.get("/metrics")).body.decode()
        return 'transferd_errors_total{where="KeyUsesFailed"}' in metrics

    await until(has_failed)
    assert (await user.get("/users")).status == 200
    await database.fetch(rename.format("mislaid", "last_used_at"))
    await until_used(database, "used")


async def test_a_replica_that_stops_bounds_its_wait_for_the_last_write(
    database: Database, shared: Store
) -> None:
    await api_key(database, "used", "admin")
    facts: list[Fact] = []
    uses = KeyUses(shared, Limits(key_uses_last_write_s=0.05), Facts(facts.append))
    running = asyncio.create_task(uses.run())
    uses.note("used", _NOW)
    # A task that has not begun would be cancelled before its first line.
    await asyncio.sleep(0)
    async with held(database, _HOLD_KEYS):
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    [failed] = facts
    assert isinstance(failed, KeyUsesFailed)
    assert isinstance(failed.error, TimeoutError)
