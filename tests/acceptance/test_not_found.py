"""Ids in paths: unknown and malformed ones are not found, and capitals make no difference."""

import pytest

from tests.conftest import Database
from tests.support.api import Api
from tests.support.contract import UNKNOWN_ID, assert_invalid, exactly
from tests.support.truth import row_count

# Each operation about one thing, by the code of its 404: method, path, body.
_OPERATIONS: dict[str, list[tuple[str, str, bytes | None]]] = {
    "user-not-found": [
        ("GET", "/users/{}", None),
        ("PATCH", "/users/{}", b'{"name":"Ada"}'),
    ],
    "wallet-not-found": [
        ("GET", "/wallets/{}", None),
        ("GET", "/wallets/{}/statement", None),
        ("GET", "/wallets/{}/events", None),
        ("PATCH", "/wallets/{}", b"{}"),
        ("POST", "/wallets/{}/freeze", None),
        ("POST", "/wallets/{}/unfreeze", None),
        ("POST", "/wallets/{}/close", None),
    ],
    "transfer-not-found": [
        ("GET", "/transfers/{}", None),
        ("POST", "/transfers/{}/reversal", None),
    ],
    "webhook-not-found": [
        ("GET", "/webhooks/{}", None),
        ("DELETE", "/webhooks/{}", None),
        ("PATCH", "/webhooks/{}", b"{}"),
        ("PATCH", "/webhooks/{}", b'{"events":["*"]}'),
        ("POST", "/webhooks/{}/rotate", None),
        ("GET", "/webhooks/{}/deliveries", None),
        ("POST", f"/webhooks/{{}}/deliveries/{UNKNOWN_ID}/redeliver", None),
    ],
}
_IDS = [UNKNOWN_ID, "ada", "1", "%00", "x" * 300, UNKNOWN_ID.replace("-", "")]


@pytest.mark.parametrize("code", _OPERATIONS)
async def test_an_unknown_id_is_not_found(
    api: Api, database: Database, subtests: pytest.Subtests, code: str
) -> None:
    for method, path, raw in _OPERATIONS[code]:
        for id in _IDS:
            with subtests.test(f"{method} {path}", id=id):
                key = f"{path} {id}"[:255]
                reply = await api.call(method, path.format(id), raw=raw, key=key)
                assert (reply.status, reply.code) == (404, code)
    if code == "webhook-not-found":
        # Webhooks store no refusal.
        assert await row_count(database, "ledger_00.outcomes") == 0
        assert await row_count(database, "ledger_00.outbox") == 0


async def test_transfers_are_listed_only_of_a_known_wallet(api: Api) -> None:
    assert (await api.get(f"/transfers?wallet_id={UNKNOWN_ID}")).code == "wallet-not-found"
    assert_invalid(await api.get("/transfers"), "/wallet_id")


async def test_an_unused_key_is_not_found(api: Api, subtests: pytest.Subtests) -> None:
    for key, code in (
        *((key, "not-found") for key in ("nobody", "%C3%A4", "x" * 256, "a%0Ab", "%ff")),
        *((key, "idempotency-key-invalid") for key in ("%00", "a%00b")),
    ):
        with subtests.test(key=key):
            assert (await exactly(api, "GET", f"/idempotency-keys/{key}")).code == code


async def test_an_id_may_be_written_in_capitals(api: Api) -> None:
    user = await api.user()
    assert (await api.get(f"/users/{user.upper()}")).json["id"] == user
    assert (await api.patch(f"/users/{user.upper()}", {"name": "Ada"})).json["id"] == user
