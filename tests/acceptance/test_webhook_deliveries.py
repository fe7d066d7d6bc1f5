"""The delivery log of a webhook, and redelivery."""

import orjson
import pytest

from tests.conftest import Database
from tests.support.api import Api
from tests.support.contract import UNKNOWN_ID, footprint, time_of
from tests.support.deliveries import logged_delivery, sent_event
from tests.support.pressure import crowd, statuses
from transferd.domain.webhook import DeliveryStatus

_FIELDS = [
    "id",
    "event_id",
    "event_type",
    "status",
    "attempts",
    "response_status",
    "error",
    "response_excerpt",
    "next_attempt_at",
    "created_at",
    "updated_at",
]


@pytest.fixture
async def hook(api: Api) -> str:
    """The id of a webhook."""
    made = await api.post("/webhooks", {"url": "https://example.com/", "events": ["*"]})
    assert made.status == 201
    id: str = made.json["id"]
    return id


async def test_the_delivery_log_shows_the_result_of_each_event(
    api: Api, hook: str, database: Database
) -> None:
    failed = await logged_delivery(database, hook, event_type="wallet.closed")
    done = {"status": "delivered", "attempts": 3, "response_status": 204, "error": None}
    delivered = await logged_delivery(database, hook, **done, response_excerpt=None)
    lost = {"status": "dead", "response_status": None, "error": "no answer in 10 s"}
    dead = await logged_delivery(database, hook, **lost, response_excerpt=None, attempts=5)
    page = (await api.get(f"/webhooks/{hook}/deliveries")).json
    assert (page["has_more"], page["next_cursor"]) == (False, None)
    rows = {row["id"]: row for row in page["data"]}
    assert [row["id"] for row in page["data"]] == sorted(rows, reverse=True)
    assert all(list(row) == _FIELDS for row in page["data"])
    assert {id: list(row.values())[2:8] for id, row in rows.items()} == {
        failed: ["wallet.closed", "retrying", 1, 500, "answered 500", "oh no"],
        delivered: ["transfer.posted", "delivered", 3, 204, None, None],
        dead: ["transfer.posted", "dead", 5, None, "no answer in 10 s", None],
    }
    assert all(row["event_id"] == id for id, row in rows.items())
    assert time_of(rows[failed]["next_attempt_at"]) > time_of(rows[failed]["updated_at"])
    assert rows[dead]["next_attempt_at"] is None


async def test_a_delivery_log_has_one_webhook_and_may_be_filtered_by_status(
    api: Api, hook: str, database: Database
) -> None:
    made = {
        status: await logged_delivery(database, hook, status=status.value)
        for status in DeliveryStatus
    }
    other = (await api.post("/webhooks", {"url": "https://example.com/", "events": ["*"]})).json
    await logged_delivery(database, other["id"])
    path = f"/webhooks/{hook}/deliveries"
    for status, id in made.items():
        [row] = (await api.get(f"{path}?status={status}")).json["data"]
        assert (row["id"], row["status"]) == (id, status)
    whole = (await api.get(path)).json["data"]
    assert {row["id"] for row in whole} == set(made.values())


async def test_a_redelivery_sends_the_same_event_to_this_webhook_only(
    api: Api, hook: str, database: Database
) -> None:
    id = await logged_delivery(database, hook, status="dead")
    await database.fetch("DELETE FROM ledger_00.outbox")
    asked = await api.post(f"/webhooks/{hook}/deliveries/{id.upper()}/redeliver")
    assert asked.status == 202
    assert list(asked.json) == _FIELDS
    assert (asked.json["id"], asked.json["status"]) == (id, "pending")
    # The result of the last attempt stays until the next one.
    assert (asked.json["attempts"], asked.json["response_status"]) == (1, 500)
    assert (await api.get(f"/webhooks/{hook}/deliveries")).json["data"] == [asked.json]
    [row] = await database.fetch("SELECT event_count, events::text FROM ledger_00.outbox")
    assert row["event_count"] == 1
    assert orjson.loads(row["events"]) == [{"endpoint": hook, "event": sent_event(id)}]


async def test_a_delivery_may_be_redelivered_repeatedly(
    api: Api, hook: str, database: Database
) -> None:
    id = await logged_delivery(database, hook, status="delivered")
    await database.fetch("DELETE FROM ledger_00.outbox")
    path = f"/webhooks/{hook}/deliveries/{id}/redeliver"
    assert statuses(await crowd(api.post(path) for _ in range(8))) == {202: 8}
    keyed = await crowd(api.post(path, key="again") for _ in range(8))
    assert statuses(keyed) == {202: 8}
    assert len({reply.body for reply in keyed}) == 1
    [row] = await database.fetch("SELECT count(*), sum(event_count) FROM ledger_00.outbox")
    assert tuple(row) == (9, 9)


async def test_a_redelivery_writes_its_mark_and_its_event_in_one_transaction(
    api: Api, hook: str, database: Database
) -> None:
    id = await logged_delivery(database, hook, status="dead")
    before = await footprint(database)
    path = f"/webhooks/{hook}/deliveries/{id}/redeliver"
    await database.fetch(
        "ALTER TABLE ledger_00.outbox ADD CONSTRAINT no_room CHECK (false) NOT VALID"
    )
    assert (await api.post(path, key="again")).code == "internal-error"
    assert await footprint(database) == before
    [row] = (await api.get(f"/webhooks/{hook}/deliveries")).json["data"]
    assert row["status"] == "dead"
    await database.fetch("ALTER TABLE ledger_00.outbox DROP CONSTRAINT no_room")
    assert (await api.post(path, key="again")).status == 202
    after = {"events": before["events"] + 1, "outcomes": before["outcomes"] + 1}
    assert await footprint(database) == before | after


async def test_nothing_is_sent_to_a_webhook_that_is_disabled(
    api: Api, hook: str, database: Database
) -> None:
    id = await logged_delivery(database, hook)
    path = f"/webhooks/{hook}/deliveries/{id}/redeliver"
    await api.patch(f"/webhooks/{hook}", {"status": "disabled"})
    before = await footprint(database)
    for key in (None, "again"):
        refused = await api.post(path, key=key)
        assert (refused.status, refused.code) == (409, "webhook-disabled")
    assert await footprint(database) == before
    await api.patch(f"/webhooks/{hook}", {"status": "active"})
    # The key is free.
    assert (await api.post(path, key="again")).status == 202


async def test_a_delivery_that_is_not_in_the_log_cannot_be_redelivered(
    api: Api, hook: str, database: Database
) -> None:
    other = (await api.post("/webhooks", {"url": "https://example.com/", "events": ["*"]})).json
    of_other = await logged_delivery(database, other["id"], status="dead")
    unkept = await logged_delivery(database, hook, status="delivered", event=None)
    before = await footprint(database)
    for id in (UNKNOWN_ID, "delivery", of_other, unkept):
        refused = await api.post(f"/webhooks/{hook}/deliveries/{id}/redeliver", key="again")
        assert (refused.status, refused.code) == (404, "delivery-not-found"), id
    assert await footprint(database) == before
    [row] = (await api.get(f"/webhooks/{hook}/deliveries")).json["data"]
    assert (row["id"], row["status"]) == (unkept, "delivered")
