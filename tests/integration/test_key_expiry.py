"""API keys that expire at the limits of time: refused, or valid until then, and never an error."""

from datetime import UTC, datetime

import pytest

from tests.conftest import Database, Replicas
from tests.integration.test_keys_command import command, created, listed
from tests.support.contract import ApiWithKey, api_key, time_of

_ARGUMENTS = ("--client", "shop", "--scope", "wallets:read")


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59.000000Z"),
        ("9999-12-31T23:59:59+14:00", "9999-12-31T09:59:59.000000Z"),
        ("9999-12-31t23:59:58.9999999z", "9999-12-31T23:59:58.999999Z"),
    ],
)
async def test_a_key_may_expire_at_the_last_second_of_the_range(
    given: str, shown: str, database: Database, replicas: Replicas
) -> None:
    key = await created(database, *_ARGUMENTS, "--expires-at", given)
    assert key["expires_at"] == shown
    [row] = await listed(database)
    assert row["expires_at"] == shown
    shop = ApiWithKey(await replicas.start(auth="on"), key["token"])
    assert (await shop.get("/users")).status == 200


async def test_a_time_out_of_range_makes_no_key(
    database: Database, subtests: pytest.Subtests
) -> None:
    for given in (
        "9999-12-31T23:59:59.999999Z",
        "9999-12-31T23:59:59.9999999Z",
        "9999-12-31T23:59:59.000001Z",
        "9999-12-31T23:59:59-12:00",
        "9999-12-31T23:59:59-23:59",
        "0001-01-01T00:00:00Z",
        "0001-01-01T00:00:00+12:00",
        "infinity",
        "2099-12-31T23:59:60Z",
    ):
        with subtests.test(given=given):
            result = await command(database, "create", *_ARGUMENTS, "--expires-at", given)
            assert result.exit_code == 2
            assert "Invalid value for --expires-at: " in result.output
            if given.startswith("9999"):
                assert "to 9999-12-31T23:59:59Z" in result.output
            assert await listed(database) == []


# An earlier version stored infinity for the largest time; an operator may write the others.
@pytest.mark.parametrize(
    ("stored", "is_good", "shown"),
    [
        ("infinity", True, None),
        ("10000-01-01T00:00:00Z", True, None),
        ("294276-01-01T00:00:00Z", True, None),
        ("9999-12-31T23:59:59.999998Z", True, "9999-12-31T23:59:59.999998Z"),
        ("-infinity", False, "0001-01-02T00:00:00.000000Z"),
        ("4713-01-01 BC", False, "0001-01-02T00:00:00.000000Z"),
        ("2001-01-01T00:00:00Z", False, "2001-01-01T00:00:00.000000Z"),
    ],
)
async def test_a_key_with_any_expiry_in_the_database_can_be_read(
    stored: str, is_good: bool, shown: str | None, database: Database, replicas: Replicas
) -> None:
    end = datetime(2001, 1, 1, tzinfo=UTC)
    token = await api_key(database, "shop", "wallets:read", expires_at=end)
    await database.fetch(f"UPDATE transferd.api_keys SET expires_at = '{stored}'")
    shop = ApiWithKey(await replicas.start(auth="on"), token)
    assert (await shop.get("/users")).status == (200 if is_good else 401)
    [row] = [key for key in await listed(database) if key["id"] == "shop"]
    assert row["expires_at"] == shown
    time_of(row["created_at"])
    assert (await command(database, "list")).exit_code == 0
