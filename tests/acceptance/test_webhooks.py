"""Webhooks by the API: their fields, their URLs, and when their secret is shown."""

import base64
from datetime import timedelta
from typing import Any

import pytest

from tests.conftest import Database, Replicas
from tests.support.api import Api
from tests.support.contract import (
    UNKNOWN_ID,
    ApiWithKey,
    api_key,
    assert_invalid,
    assert_is_id,
    time_of,
)
from tests.support.deliveries import logged_delivery
from tests.support.truth import row_count
from transferd.config import Limits
from transferd.domain.webhook import EVENT_FILTERS

_URL = "https://example.com/hooks/transferd?tenant=7"
_FIELDS = [
    "id",
    "url",
    "events",
    "wallet_id",
    "status",
    "disabled_reason",
    "previous_secret_until",
    "created_at",
    "updated_at",
]


async def webhook(api: Api, **changes: object) -> Any:
    """A new one, as its maker sees it."""
    made = await api.post("/webhooks", {"url": _URL, "events": ["*"], **changes})
    assert made.status == 201, made
    return made.json


async def changes_of(database: Database) -> int:
    """The number by which notifiers see that webhooks have changed."""
    [row] = await database.fetch("SELECT version FROM ledger_00.webhooks_version")
    version: int = row["version"]
    return version


def assert_is_secret(text: str) -> None:
    """As Standard Webhooks wants it: 32 random bytes."""
    prefix, _, key = text.partition("_")
    assert prefix == "whsec"
    assert len(base64.b64decode(key, validate=True)) == 32


async def test_a_new_webhook_is_shown_as_it_is_read_but_for_its_secret(api: Api) -> None:
    ada = await api.wallet()
    body = {"url": _URL, "events": ["transfer.*", "wallet.closed"], "wallet_id": ada.upper()}
    made = await api.post("/webhooks", body)
    assert made.status == 201
    assert list(made.json) == [*_FIELDS, "secret"]
    assert_is_id(made.json["id"])
    assert_is_secret(made.json["secret"])
    assert time_of(made.json["created_at"]) == time_of(made.json["updated_at"])
    assert {name: made.json[name] for name in _FIELDS[1:7]} == {
        "url": _URL,
        "events": ["transfer.*", "wallet.closed"],
        "wallet_id": ada,
        "status": "active",
        "disabled_reason": None,
        "previous_secret_until": None,
    }
    assert made.headers["Location"] == f"/webhooks/{made.json['id']}"
    read = await api.get(made.headers["Location"])
    assert read.json == {name: made.json[name] for name in _FIELDS}


async def test_a_secret_is_shown_only_in_the_answer_to_its_creation(
    replicas: Replicas, database: Database
) -> None:
    api = await replicas.start(auth="on")
    boss = ApiWithKey(api, await api_key(database, "boss", "admin"))
    reader = ApiWithKey(api, await api_key(database, "reader", "wallets:read", client="boss"))
    made = await boss.post("/webhooks", {"url": _URL, "events": ["*"]}, key="hook")
    path = f"/webhooks/{made.json['id']}"
    rotated = await boss.post(f"{path}/rotate", key="rotation")
    secrets = {reply.json["secret"].encode() for reply in (made, rotated)}
    assert len(secrets) == 2
    await logged_delivery(database, made.json["id"])
    others = [
        await boss.get(path),
        await boss.get("/webhooks"),
        await boss.get(f"{path}/deliveries"),
        await boss.patch(path, {"events": ["user.*"]}),
        await boss.get("/metrics"),
        # The outcome of a key can be read with a lesser scope.
        await boss.get("/idempotency-keys/hook"),
        await reader.get("/idempotency-keys/hook"),
        await reader.get("/idempotency-keys/rotation"),
    ]
    for reply in others:
        assert reply.status == 200
        assert not any(secret in reply.body for secret in secrets)
        assert b"whsec" not in reply.body
    known = (await reader.get("/idempotency-keys/hook")).json
    assert known["answer"] == {name: made.json[name] for name in _FIELDS}


async def test_a_webhook_leads_to_a_public_address_over_https(
    api: Api, database: Database, subtests: pytest.Subtests
) -> None:
    good = await webhook(api)
    before = await changes_of(database)
    for url, why in (
        # All rules of URLs are in unit/test_webhook_domain.py.
        ("http://example.com/", "must be https"),
        ("example.com/hook", "must be an absolute https URL"),
        ("https://127.0.0.1/", "private or local"),
        ("https://user:pass@example.com/", "user or a password"),
        ("https://example.com/\u0000", "must"),
    ):
        with subtests.test(url=url):
            for refused in (
                await api.post("/webhooks", {"url": url, "events": ["*"]}, key="hook"),
                await api.patch(f"/webhooks/{good['id']}", {"url": url}),
            ):
                assert_invalid(refused, "/url")
                assert why in refused.json["errors"][0]["message"]
                # A URL may hold a password.
                assert url not in refused.json["errors"][0]["message"]
            assert await changes_of(database) == before
            assert (await api.get("/idempotency-keys/hook")).code == "not-found"


async def test_an_operator_may_allow_private_addresses(replicas: Replicas) -> None:
    api = await replicas.start(webhook_allow_http=True, webhook_allow_networks="127.0.0.1/32")
    assert (await webhook(api, url="http://127.0.0.1:8080/"))["status"] == "active"
    wrong = {"url": "http://127.0.0.2/", "events": ["*"]}
    assert_invalid(await api.post("/webhooks", wrong), "/url")


async def test_the_fields_of_a_webhook_have_their_shapes(api: Api) -> None:
    longest = "https://example.com/".ljust(2048, "x")
    assert (await webhook(api, url=longest))["url"] == longest
    assert (await webhook(api, events=list(EVENT_FILTERS)))["events"] == list(EVENT_FILTERS)
    hook = f"/webhooks/{(await webhook(api))['id']}"
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"url": longest + "x"}, "/url"),
        ({"url": None}, "/url"),
        ({"url": 5}, "/url"),
        ({"events": []}, "/events"),
        ({"events": None}, "/events"),
        ({"events": "*"}, "/events"),
        ({"events": ["*", "*"]}, "/events"),
        ({"events": [*EVENT_FILTERS, *EVENT_FILTERS]}, "/events"),
        ({"events": ["*", "transfer.lost"]}, "/events/1"),
        ({"events": ["Transfer.posted"]}, "/events/0"),
        ({"events": [None]}, "/events/0"),
        ({"secret": "whsec_eA=="}, "/secret"),
    ]
    for changes, pointer in wrong:
        assert_invalid(
            await api.post("/webhooks", {"url": _URL, "events": ["*"]} | changes), pointer
        )
        assert_invalid(await api.patch(hook, changes), pointer)
    for name, value in (("wallet_id", "ada"), ("status", "disabled")):
        body = {"url": _URL, "events": ["*"], name: value}
        assert_invalid(await api.post("/webhooks", body), f"/{name}")
    for name, changed in (("status", "paused"), ("status", None), ("wallet_id", UNKNOWN_ID)):
        assert_invalid(await api.patch(hook, {name: changed}), f"/{name}")


async def test_a_webhook_of_one_wallet_needs_one_that_exists(api: Api, database: Database) -> None:
    body = {"url": _URL, "events": ["*"], "wallet_id": UNKNOWN_ID}
    refused = await api.post("/webhooks", body, key="hook")
    assert (refused.status, refused.code) == (404, "wallet-not-found")
    assert UNKNOWN_ID in refused.json["detail"]
    # It has no effect, and the key stays free.
    assert (await api.get("/idempotency-keys/hook")).code == "not-found"
    assert await row_count(database, "ledger_00.webhooks") == 0
    assert (await api.post("/webhooks", body | {"wallet_id": None}, key="hook")).status == 201


async def test_a_patch_changes_only_the_fields_that_it_names(api: Api, database: Database) -> None:
    made = await webhook(api, events=["user.created"])
    path, state = f"/webhooks/{made['id']}", {name: made[name] for name in _FIELDS}
    for patch, changed in (
        ({"url": "https://example.org/"}, {}),
        ({"events": ["*", "user.*"]}, {}),
        ({"status": "disabled"}, {"disabled_reason": "a client asked for it"}),
        ({"url": _URL}, {}),
        ({"status": "active"}, {"disabled_reason": None}),
        (
            {"url": "https://example.net/", "events": ["*"], "status": "disabled"},
            {"disabled_reason": "a client asked for it"},
        ),
    ):
        before = await changes_of(database)
        reply = await api.patch(path, patch)
        assert reply.status == 200
        state |= patch | changed
        assert reply.json | {"updated_at": ""} == state | {"updated_at": ""}
        assert time_of(reply.json["updated_at"]) > time_of(state["updated_at"])
        state["updated_at"] = reply.json["updated_at"]
        assert (await api.get(path)).json == state
        assert await changes_of(database) == before + 1
    before = await changes_of(database)
    assert (await api.patch(path, {})).json == state
    assert await changes_of(database) == before


async def test_a_webhook_that_a_notifier_has_disabled_can_be_enabled_again(
    api: Api, database: Database
) -> None:
    id = (await webhook(api))["id"]
    await database.fetch(
        "UPDATE ledger_00.webhooks SET status = 1, disabled_reason = 'it answered 410 Gone'"
    )
    read = (await api.get(f"/webhooks/{id}")).json
    assert (read["status"], read["disabled_reason"]) == ("disabled", "it answered 410 Gone")
    again = (await api.patch(f"/webhooks/{id}", {"status": "active"})).json
    assert (again["status"], again["disabled_reason"]) == ("active", None)


async def test_a_rotated_secret_stays_valid_for_its_grace_period(
    replicas: Replicas, database: Database
) -> None:
    api = await replicas.start(Limits(webhook_secret_overlap_s=3600.0))
    made = await webhook(api)
    rotated = await api.post(f"/webhooks/{made['id']}/rotate")
    assert rotated.status == 200
    assert list(rotated.json) == [*_FIELDS, "secret"]
    assert_is_secret(rotated.json["secret"])
    assert rotated.json["secret"] != made["secret"]
    until = time_of(rotated.json["previous_secret_until"])
    assert until - time_of(rotated.json["updated_at"]) == timedelta(hours=1)
    read = (await api.get(f"/webhooks/{made['id']}")).json
    assert read == {name: rotated.json[name] for name in _FIELDS}
    [row] = await database.fetch("SELECT secret, previous_secret FROM ledger_00.webhooks")
    assert tuple(row) == (rotated.json["secret"], made["secret"])
    assert await changes_of(database) == 2


async def test_a_deleted_webhook_is_gone_with_its_log(api: Api, database: Database) -> None:
    gone, kept = (await webhook(api))["id"], (await webhook(api))["id"]
    for id in (gone, kept):
        await logged_delivery(database, id)
    deleted = await api.call("DELETE", f"/webhooks/{gone}")
    assert (deleted.status, deleted.body) == (204, b"")
    again = await api.call("DELETE", f"/webhooks/{gone}")
    assert (again.status, again.code) == (404, "webhook-not-found")
    [row] = await database.fetch("SELECT endpoint_id::text FROM ledger_00.deliveries")
    assert row["endpoint_id"] == kept
    assert [each["id"] for each in (await api.get("/webhooks")).json["data"]] == [kept]
    assert (await api.get(f"/webhooks/{kept}")).status == 200
