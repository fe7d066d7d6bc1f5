"""Statements and lists: their order, their pages, and what limits them."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from tests.conftest import Database
from tests.support.api import Api, Reply
from tests.support.contract import exactly, time_of
from tests.support.deliveries import logged_delivery
from tests.support.pressure import crowd, statuses


async def pages(api: Api, path: str) -> AsyncIterator[Reply]:
    """The page at `path` and all that follow it, by their Link headers."""
    while True:
        page = await exactly(api, "GET", path)
        assert page.status == 200, page
        assert list(page.json) == ["data", "has_more", "next_cursor"]
        assert page.json["has_more"] is (page.json["next_cursor"] is not None)
        yield page
        if "Link" not in page.headers:
            assert page.json["has_more"] is False
            return
        target, relation = page.headers["Link"].split("; ")
        assert relation == 'rel="next"'
        assert page.json["next_cursor"] in target
        path = target.strip("<>")


async def all_pages(api: Api, path: str) -> list[list[Any]]:
    """The data of every page."""
    return [page.json["data"] async for page in pages(api, path)]


async def history(api: Api) -> tuple[str, str, list[str]]:
    """A wallet with one change of every kind, its partner, and the transfers in their order."""
    ada, bob = await api.wallet(1_000), await api.wallet()
    sent = await api.transfer(ada, bob, 300, reference="rent", metadata={"month": "June"})
    back = await api.post(f"/transfers/{sent.json['id']}/reversal", {"amount": 100}, key="back")
    await api.post(f"/wallets/{ada}/freeze")
    await api.post(f"/wallets/{ada}/unfreeze")
    await api.patch(f"/wallets/{ada}", {"metadata": {"name": "ada"}})
    rest = await api.transfer(ada, bob, 800)
    await api.post(f"/wallets/{ada}/close")
    return ada, bob, [reply.json["id"] for reply in (sent, back, rest)]


async def test_a_statement_lists_every_change_newest_first(api: Api) -> None:
    ada, bob, (sent, back, rest) = await history(api)
    [entries] = await all_pages(api, f"/wallets/{ada}/statement")
    for limit in (1, 3, 8):
        found = await all_pages(api, f"/wallets/{ada}/statement?limit={limit}")
        assert found == [entries[at : at + limit] for at in range(0, 8, limit)]
    deposit = entries[-1]["transfer_id"]
    funding = await api.funding_wallet()
    assert [list(entry.values())[:7] for entry in entries] == [
        [None, "close", 0, 0, 8, None, None],
        [rest, "transfer", -800, 0, 7, bob, None],
        [None, "update", 0, 800, 6, None, None],
        [None, "unfreeze", 0, 800, 5, None, None],
        [None, "freeze", 0, 800, 4, None, None],
        [back, "reversal", 100, 800, 3, bob, "rent"],
        [sent, "transfer", -300, 700, 2, bob, "rent"],
        [deposit, "transfer", 1_000, 1_000, 1, funding, "initial balance"],
    ]
    assert list(entries[0]) == [
        "transfer_id",
        "kind",
        "amount",
        "balance_after",
        "version",
        "counterparty_wallet_id",
        "reference",
        "hold_id",
        "held_after",
        "created_at",
        "metadata",
    ]
    assert [entry["metadata"] for entry in entries if entry["metadata"]] == [{"month": "June"}]
    times = [time_of(entry["created_at"]) for entry in entries]
    assert times == sorted(times, reverse=True)
    for id in (sent, back, rest, deposit):
        [entry] = [entry for entry in entries if entry["transfer_id"] == id]
        assert (await api.get(f"/transfers/{id}")).json["created_at"] == entry["created_at"]
    [seen_by_bob] = await all_pages(api, f"/wallets/{bob}/statement")
    assert [entry["amount"] for entry in seen_by_bob] == [800, -100, 300]


async def test_a_new_wallet_has_an_empty_statement(api: Api) -> None:
    ada = await api.wallet()
    assert await all_pages(api, f"/wallets/{ada}/statement") == [[]]
    assert await all_pages(api, f"/transfers?wallet_id={ada}") == [[]]


async def test_every_list_has_pages(api: Api, database: Database) -> None:
    owner = await api.user()
    users = [owner, *[await api.user() for _ in range(4)]]
    wallets = [
        (await api.post("/wallets", {"user_id": owner, "currency": "USD"})).json["id"]
        for _ in range(5)
    ]
    rich = await api.wallet(5)
    transfers = [(await api.transfer(rich, wallets[0], 1)).json["id"] for _ in range(5)]
    hook = {"url": "https://example.com/", "events": ["*"]}
    hooks = [(await api.post("/webhooks", hook)).json["id"] for _ in range(5)]
    sent = [await logged_delivery(database, hooks[0]) for _ in range(5)]
    users.append((await api.get(f"/wallets/{rich}")).json["user_id"])
    for path, made in (
        # Users of the same millisecond are in the order of their ids.
        ("/users?limit=2", sorted(users)),
        (f"/wallets?limit=2&user_id={owner}", sorted(wallets)),
        (f"/wallets?currency=USD&limit=2&user_id={owner}", sorted(wallets)),
        (f"/transfers?limit=2&wallet_id={wallets[0]}", transfers),
        ("/webhooks?limit=2", sorted(hooks)),
        (f"/webhooks/{hooks[0]}/deliveries?limit=2", sorted(sent)),
        (f"/webhooks/{hooks[0]}/deliveries?limit=2&status=retrying", sorted(sent)),
    ):
        found = await all_pages(api, path)
        assert [len(page) for page in found[:-1]] == [2] * (len(found) - 1), path
        assert [each["id"] for page in found for each in page] == made[::-1], path


async def test_lists_follow_version_and_not_id(api: Api, database: Database) -> None:
    ada, bob = await api.wallet(100), await api.wallet()
    made = [(await api.transfer(ada, bob, amount)).json["id"] for amount in (1, 2, 3, 4)]
    # As if the clock of the first replica was far ahead.
    late = "0fffffff-ffff-7000-8000-000000000000"
    await database.fetch(
        "UPDATE ledger_00.transfers SET id = $1::uuid WHERE id = $2::uuid", late, made[0]
    )
    expected = [made[3], made[2], made[1], late]
    for path in (f"/transfers?limit=2&wallet_id={bob}", f"/wallets/{bob}/statement?limit=2"):
        found = [each for page in await all_pages(api, path) for each in page]
        assert [each.get("id", each.get("transfer_id")) for each in found] == expected


async def test_a_page_has_50_items_by_default(api: Api) -> None:
    ada = await api.wallet(1_000)
    bob = await api.wallet()
    paid = await crowd((api.transfer(ada, bob, 1) for _ in range(201)), at_once=20)
    assert statuses(paid) == {201: 201}
    for path in (f"/transfers?wallet_id={bob}", f"/wallets/{bob}/statement?"):
        assert [len(page) for page in await all_pages(api, path)] == [50, 50, 50, 50, 1]
        assert [len(page) for page in await all_pages(api, f"{path}&limit=200")] == [200, 1]
    found = await all_pages(api, f"/wallets/{ada}/statement?limit=101")
    assert [entry["version"] for page in found for entry in page] == list(range(202, 0, -1))
    [first, *_] = await all_pages(api, f"/transfers?wallet_id={ada}&limit=200")
    assert [each["source_version"] for each in first] == list(range(202, 2, -1))


async def test_a_statement_may_have_a_window_of_time(api: Api) -> None:
    ada, _, _ = await history(api)
    path = f"/wallets/{ada}/statement?limit=3"
    entries = [entry for page in await all_pages(api, path) for entry in page]
    times = {entry["version"]: time_of(entry["created_at"]) for entry in entries}

    async def versions(first: int | None, last: int | None, nudge_us: int = 0) -> list[int]:
        nudge = timedelta(microseconds=nudge_us)
        query = path
        if first is not None:
            query += f"&from={times[first] - nudge:%Y-%m-%dT%H:%M:%S.%fZ}"
        if last is not None:
            query += f"&to={times[last] + nudge:%Y-%m-%dT%H:%M:%S.%fZ}"
        return [each["version"] for page in await all_pages(api, query) for each in page]

    # A window includes its beginning and excludes its end.
    assert await versions(3, 6) == [5, 4, 3]
    assert await versions(None, 6) == [5, 4, 3, 2, 1]
    assert await versions(3, None) == [8, 7, 6, 5, 4, 3]
    assert await versions(5, 5) == []
    assert await versions(5, 5, 1) == [5]
    assert await versions(3, 6, 1) == [6, 5, 4, 3]
    assert await versions(3, 6, -1) == [5, 4]
    assert await versions(6, 3) == []
    # Windows that meet have each entry once.
    assert [*await versions(6, None), *await versions(3, 6), *await versions(None, 3)] == [
        *range(8, 0, -1)
    ]


async def test_a_window_of_time_may_begin_and_end_before_all_time(api: Api) -> None:
    ada = await api.wallet(10)
    path = f"/wallets/{ada}/statement"
    # The zero time of some languages.
    for bound, count in (("from", 1), ("to", 0)):
        [entries] = await all_pages(api, f"{path}?{bound}=0001-01-01T00:00:00%2B14:00")
        assert len(entries) == count, bound


async def test_the_link_to_the_next_page_stays_on_the_service(api: Api) -> None:
    ada, _, _ = await history(api)
    page = await exactly(
        api, "GET", f"/wallets/{ada}/statement?limit=2&from=2020-01-01T00:00:00%2B01:00"
    )
    address = urlsplit(page.headers["Link"].split(">")[0].removeprefix("<"))
    assert (address.scheme, address.netloc) == ("", "")
    assert address.path == f"/wallets/{ada}/statement"
    # The offset of a time has a plus, which must come back as one.
    assert "%2B01:00" in address.query
    assert "limit=2" in address.query
