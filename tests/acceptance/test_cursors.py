"""A cursor belongs to the list, the wallet or webhook and the filters that it was made with."""

import base64

import pytest

from tests.acceptance.test_statement_and_lists import history
from tests.conftest import Database
from tests.support.api import Api
from tests.support.contract import UNKNOWN_ID, exactly
from tests.support.deliveries import logged_delivery


def made_up(text: str | bytes) -> str:
    """A cursor as the service would write it."""
    data = text.encode() if isinstance(text, str) else text
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


async def lists(api: Api, database: Database) -> list[str]:
    """Addresses of all lists, of some with each filter: each has a second page of one item."""
    ada, bob, _ids = await history(api)
    user = await api.user()
    for currency in ("USD", "USD", "EUR", "EUR"):
        await api.post("/wallets", {"user_id": user, "currency": currency})
    hook = {"url": "https://example.com/", "events": ["*"]}
    hooks = [(await api.post("/webhooks", hook)).json["id"] for _ in range(2)]
    for each in hooks:
        for status in ("retrying", "retrying", "dead", "dead"):
            await logged_delivery(database, each, status=status)
    return [
        *("/users?", "/webhooks?", "/wallets?"),
        *(f"/wallets?currency={currency}" for currency in ("USD", "EUR")),
        f"/wallets?user_id={user}",
        *(f"/wallets?user_id={user}&currency={currency}" for currency in ("USD", "EUR")),
        *(f"/transfers?wallet_id={wallet}" for wallet in (ada, bob)),
        *(f"/wallets/{wallet}/statement?" for wallet in (ada, bob)),
        *(f"/wallets/{ada}/statement?from={year}-01-01T00:00:00Z" for year in (2020, 2021)),
        *(f"/webhooks/{each}/deliveries?" for each in hooks),
        *(f"/webhooks/{hooks[0]}/deliveries?status={status}" for status in ("retrying", "dead")),
    ]


async def test_a_cursor_of_another_list_and_a_made_up_one_are_refused(
    api: Api, database: Database, subtests: pytest.Subtests
) -> None:
    paths = await lists(api, database)
    cursors = {path: (await api.get(f"{path}&limit=1")).json["next_cursor"] for path in paths}
    for path, right in cursors.items():
        assert (await api.get(f"{path}&cursor={right}")).status == 200, path
        scope, _, _ = base64.urlsafe_b64decode(right + "==").decode().partition(":")
        wrong = [
            *(given for other, given in cursors.items() if other != path),
            *("", "abc", "%00", "%ff", "=", "*", "x" * 3_000, right + "=", right[:-1]),
            *(made_up(f"{scope}:{position}") for position in ("", "-1", "x", "٣", 2**63, "1:1")),
            # As created by an earlier version.
            *(made_up(f"{path.split('?')[0][1:]}:{position}") for position in (UNKNOWN_ID, "1")),
        ]
        with subtests.test(path):
            for each in wrong:
                reply = await exactly(api, "GET", f"{path}&cursor={each}")
                assert (reply.status, reply.code) == (400, "cursor-invalid"), each


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
