"""A cursor belongs to the list, the wallet or webhook and the filters that it was made with."""

from typing import Any

import pytest

from tests.acceptance.test_statement_and_lists import history
from tests.conftest import Database
from tests.support.api import Api
from tests.support.contract import exactly
from tests.support.deliveries import logged_delivery


async def statements(api: Api, _: Database) -> list[str]:
    """Addresses of statements: of two wallets, and from two times."""
    ada, bob, _ids = await history(api)
    since = [f"/wallets/{ada}/statement?from={year}-01-01T00:00:00Z" for year in (2020, 2021)]
    return [*(f"/wallets/{wallet}/statement?" for wallet in (ada, bob)), *since]


async def transfers(api: Api, _: Database) -> list[str]:
    """Addresses of the transfers of two wallets."""
    ada, bob, _ids = await history(api)
    return [f"/transfers?wallet_id={wallet}" for wallet in (ada, bob)]


async def wallets(api: Api, _: Database) -> list[str]:
    """Addresses of wallets: all, by currency, by user, and by both."""
    users = [await api.user() for _ in range(2)]
    for user in users:
        for currency in ("USD", "USD", "EUR", "EUR"):
            await api.post("/wallets", {"user_id": user, "currency": currency})
    filters = [f"currency={currency}" for currency in ("USD", "EUR")]
    filters += [f"user_id={user}" for user in users]
    filters += [f"user_id={users[0]}&currency={currency}" for currency in ("USD", "EUR")]
    return ["/wallets?", *(f"/wallets?{each}" for each in filters)]


async def deliveries(api: Api, database: Database) -> list[str]:
    """Addresses of deliveries: of two webhooks, and by status."""
    hook = {"url": "https://example.com/", "events": ["*"]}
    hooks = [(await api.post("/webhooks", hook)).json["id"] for _ in range(2)]
    statuses = ("retrying", "dead")
    for each in hooks:
        for status in (*statuses, *statuses):
            await logged_delivery(database, each, status=status)
    by_status = [f"/webhooks/{hooks[0]}/deliveries?status={status}" for status in statuses]
    return [*(f"/webhooks/{each}/deliveries?" for each in hooks), *by_status]


@pytest.mark.parametrize("addresses", [statements, transfers, wallets, deliveries])
async def test_a_cursor_of_another_list_is_refused(
    addresses: Any, api: Api, database: Database
) -> None:
    paths: list[str] = await addresses(api, database)
    cursors = {path: (await api.get(f"{path}&limit=1")).json["next_cursor"] for path in paths}
    for path in paths:
        for other, given in cursors.items():
            reply = await api.get(f"{path}&cursor={given}")
            if path == other:
                assert reply.status == 200, path
            else:
                assert (reply.status, reply.code) == (400, "cursor-invalid"), (path, other)


async def test_a_cursor_accepts_equal_filters_in_another_spelling_and_another_limit(
    api: Api,
) -> None:
    ada, _, _ = await history(api)
    user = (await api.get(f"/wallets/{ada}")).json["user_id"]
    await api.post("/wallets", {"user_id": user, "currency": "USD"})
    for given, others in (
        (
            f"/wallets/{ada}/statement?from=2020-01-01T00:00:00Z",
            [
                f"/wallets/{ada.upper()}/statement?from=2020-01-01T00:00:00Z&limit=2",
                f"/wallets/{ada}/statement?limit=3&from=2020-01-01t02:00:00.000%2B02:00",
            ],
        ),
        (
            f"/wallets?user_id={user}&currency=USD",
            [f"/wallets?limit=7&currency=USD&user_id={user.upper()}"],
        ),
    ):
        first = (await api.get(f"{given}&limit=1")).json
        for other in others:
            page = (await exactly(api, "GET", f"{other}&cursor={first['next_cursor']}")).json
            assert page["data"], other
            assert first["data"][0] not in page["data"]
