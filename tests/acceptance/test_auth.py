"""API keys: authentication, scopes, and one space of Idempotency-Keys per client."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from tests.conftest import Database, Replicas
from tests.support.api import Api, Reply
from tests.support.contract import ApiWithKey, api_key, footprint, transfer_body
from tests.support.deliveries import logged_delivery
from tests.support.events import following
from tests.support.waiting import SLOWNESS, until
from transferd.config import ConfigurationError, Limits
from transferd.domain.api_key import SCOPES
from transferd.domain.ledger import MAIN
from transferd.ledger.migrate import create_ledger
from transferd.service import open_replica

_SCOPES = ("wallets:read", "wallets:write", "transfers:write", "webhooks:admin", "admin")
assert _SCOPES == SCOPES


def assert_unauthenticated(reply: Reply) -> None:
    """401, which does not say why."""
    assert (reply.status, reply.code) == (401, "unauthenticated")
    assert reply.headers["WWW-Authenticate"] == "Bearer"


async def test_a_call_without_a_valid_key_is_refused(locked: Api, database: Database) -> None:
    now = datetime.now(UTC)
    future = now + timedelta(hours=1)
    good = await api_key(database, "good", "admin", expires_at=future)
    late = await api_key(database, "late", "admin", expires_at=now - timedelta(seconds=1))
    revoked = await api_key(database, "revoked", "admin", revoked_at=now)
    both = await api_key(database, "both", "admin", revoked_at=now, expires_at=future)
    secret = good.removeprefix("td_good_")
    for scheme in ("Bearer", "bearer", "BEARER"):
        reply = await locked.get("/users", {"Authorization": f"{scheme} {good}"})
        assert reply.status == 200
    before = await footprint(database)
    headers = [
        "",
        "Bearer",
        "Bearer ",
        good,
        f"Basic {good}",
        f"Bearer {good[:-1]}",
        f"Bearer {good}x",
        f"Bearer {good} {good}",
        f"Bearer {good.upper()}",
        f"Bearer td_good_{'0' * len(secret)}",
        f"Bearer td_late_{secret}",
        f"Bearer td_nobody_{secret}",
        f"Bearer td__{secret}",
        f"Bearer xx_good_{secret}",
        f"Bearer {secret}",
        f"Bearer {late}",
        f"Bearer {revoked}",
        f"Bearer {both}",
        f"Bearer td_good'--_{secret}",
        f"Bearer td_{'x' * 5_000}_{secret}",
        "Bearer ä",
    ]
    replies = [await locked.get("/users")]
    replies += [await locked.get("/users", {"Authorization": header}) for header in headers]
    replies += [
        await locked.post("/users", {}, headers={"Authorization": header}) for header in headers
    ]
    for reply in replies:
        assert_unauthenticated(reply)
    # No answer shows whether such a key exists.
    texts = {str(reply.json | {"request_id": ""}) for reply in replies}
    assert len(texts) == 1
    assert await footprint(database) == before


async def test_without_keys_requests_are_about_the_ledger_of_the_setting(
    replicas: Replicas, database: Database
) -> None:
    ledger = await create_ledger(database.settings(), Limits(), "bank")
    api = await replicas.start(ledger="bank")
    ada, bob = await api.wallet(5), await api.wallet()
    assert (await api.transfer(ada, bob, 5)).status == 201
    assert {(UUID(id).int >> 64) & 0xFFF for id in (ada, bob)} == {ledger.number}
    assert await database.fetch("SELECT * FROM ledger_00.users") == []
    assert len(await database.fetch(f"SELECT * FROM {ledger.schema}.transfers")) == 2


async def test_a_key_is_valid_in_the_ledger_of_its_client_only(
    locked: Api, database: Database
) -> None:
    ledger = await create_ledger(database.settings(), Limits(), "bank")
    # Their clients were moved, which no command does.
    for name, made_for, moved_to in (("one", MAIN, ledger), ("two", ledger, MAIN)):
        token = await api_key(database, name, "admin", ledger=made_for)
        await database.fetch(
            "UPDATE transferd.clients SET ledger_number = $2 WHERE name = $1", name, moved_to.number
        )
        assert_unauthenticated(await locked.get("/users", {"Authorization": f"Bearer {token}"}))


async def test_a_replica_does_not_start_for_an_unknown_ledger(replicas: Replicas) -> None:
    with pytest.raises(ConfigurationError, match="there is no ledger nowhere"):
        await replicas.start(ledger="nowhere")


async def test_a_revoked_key_is_refused_within_the_time_of_the_cache(
    replicas: Replicas, database: Database
) -> None:
    limits = Limits(api_key_cache_s=0.5)
    user = ApiWithKey(
        await replicas.start(limits, auth="on"), await api_key(database, "user", "wallets:read")
    )
    assert (await user.get("/users")).status == 200
    await database.fetch("UPDATE transferd.api_keys SET revoked_at = now()")
    revoked_at = time.monotonic()

    async def is_turned_away() -> bool:
        asked_at = time.monotonic()
        reply = await user.get("/users")
        # Every later call is refused.
        assert reply.status == 401 or asked_at < revoked_at + limits.api_key_cache_s
        return reply.status == 401

    await until(is_turned_away)


async def test_a_key_in_the_cache_expires_on_time(replicas: Replicas, database: Database) -> None:
    api = await replicas.start(Limits(api_key_cache_s=3600.0), auth="on")
    expires_at = datetime.now(UTC) + timedelta(seconds=SLOWNESS)
    user = ApiWithKey(api, await api_key(database, "user", "wallets:read", expires_at=expires_at))
    assert (await user.get("/users")).status == 200
    # From here on only the cache has the expiry of the key.
    await database.fetch("UPDATE transferd.api_keys SET expires_at = NULL")

    async def has_expired() -> bool:
        asked_at = datetime.now(UTC)
        reply = await user.get("/users")
        if reply.status == 200:
            assert asked_at < expires_at
            return False
        assert datetime.now(UTC) >= expires_at
        assert_unauthenticated(reply)
        return True

    await until(has_expired)


async def test_a_replica_without_a_usable_key_does_not_start(database: Database) -> None:
    now = datetime.now(UTC)
    past, future = now - timedelta(seconds=1), now + timedelta(hours=1)

    async def start(auth: str) -> None:
        async with open_replica(database.settings(auth=auth), Limits(), drain_linger_s=0.0):
            pass

    unusable_keys: list[dict[str, Any]] = [{}, {"revoked_at": now}, {"expires_at": past}]
    for unusable in unusable_keys:
        if unusable:
            await api_key(database, next(iter(unusable)), "admin", **unusable)
        with pytest.raises(ConfigurationError, match="there is no usable API key: make one with"):
            await start("on")
    await start("off")
    await api_key(database, "good", "wallets:read", expires_at=future)
    await start("on")


async def holders_of_scopes(api: Api, database: Database) -> dict[str, ApiWithKey]:
    """A client for each scope, and under "" one without any."""
    holders = {
        scope: ApiWithKey(api, await api_key(database, f"holder{n}", scope))
        for n, scope in enumerate(_SCOPES)
    }
    return {**holders, "": ApiWithKey(api, await api_key(database, "nobody"))}


async def assert_takes_its_scope(
    holders: dict[str, ApiWithKey], method: str, path: str, body: object, scope: str
) -> None:
    """Every client sends the request, each with its own key."""
    for held, holder in holders.items():
        reply = await holder.call(method, path, body, key=f"{path} {held}")
        if held in {scope, "admin"}:
            assert reply.status in {200, 201, 202}, (method, path, held, reply)
        else:
            assert (reply.status, reply.code) == (403, "forbidden"), (method, path, held)
            assert scope in reply.json["detail"]


async def test_each_scope_allows_its_own_operations_only(locked: Api, database: Database) -> None:
    holders = await holders_of_scopes(locked, database)
    boss = holders["admin"]
    ada, bob = await boss.wallet(100), await boss.wallet()
    paid = (await boss.transfer(ada, bob, 5)).json["id"]
    user = await boss.user()
    batch = {"mode": "atomic", "transfers": [transfer_body(ada, bob)]}
    webhook = {"url": "https://example.com/", "events": ["*"]}
    hooks = [(await boss.post("/webhooks", webhook)).json["id"] for _ in range(3)]
    sent = await logged_delivery(database, hooks[0])
    operations = [
        ("GET", "/users", None, "wallets:read"),
        ("GET", f"/users/{user}", None, "wallets:read"),
        ("POST", "/users", {}, "wallets:write"),
        ("PATCH", f"/users/{user}", {}, "wallets:write"),
        ("GET", "/currencies", None, "wallets:read"),
        ("GET", "/wallets", None, "wallets:read"),
        ("GET", f"/wallets/{ada}", None, "wallets:read"),
        ("GET", f"/wallets/{ada}/statement", None, "wallets:read"),
        ("POST", "/wallets", {"user_id": user, "currency": "USD"}, "wallets:write"),
        ("PATCH", f"/wallets/{ada}", {}, "wallets:write"),
        ("POST", f"/wallets/{bob}/freeze", None, "wallets:write"),
        ("POST", f"/wallets/{bob}/unfreeze", None, "wallets:write"),
        ("POST", "/transfers", transfer_body(ada, bob), "transfers:write"),
        ("POST", "/transfers?dry_run=true", transfer_body(ada, bob), "transfers:write"),
        ("POST", "/transfers/batch", batch, "transfers:write"),
        ("POST", f"/transfers/{paid}/reversal", {"amount": 1}, "transfers:write"),
        ("GET", "/transfers?wallet_id=" + ada, None, "wallets:read"),
        ("GET", f"/transfers/{paid}", None, "wallets:read"),
        ("POST", f"/wallets/{await boss.wallet()}/close", None, "wallets:write"),
        ("POST", "/webhooks", webhook, "webhooks:admin"),
        ("GET", "/webhooks", None, "webhooks:admin"),
        ("GET", f"/webhooks/{hooks[0]}", None, "webhooks:admin"),
        ("PATCH", f"/webhooks/{hooks[0]}", {"events": ["user.*"]}, "webhooks:admin"),
        ("POST", f"/webhooks/{hooks[0]}/rotate", None, "webhooks:admin"),
        ("GET", f"/webhooks/{hooks[0]}/deliveries", None, "webhooks:admin"),
        (
            "POST",
            f"/webhooks/{hooks[0]}/deliveries/{sent}/redeliver",
            None,
            "webhooks:admin",
        ),
    ]
    for operation in operations:
        await assert_takes_its_scope(holders, *operation)
    for held, hook in zip(("webhooks:admin", "admin", "wallets:write"), hooks, strict=True):
        deleted = await holders[held].call("DELETE", f"/webhooks/{hook}")
        assert deleted.status == (403 if held == "wallets:write" else 204)
    known = await holders["wallets:read"].get("/idempotency-keys/nothing")
    assert known.code == "not-found"
    assert (await holders["wallets:write"].get("/idempotency-keys/nothing")).code == "forbidden"


async def test_following_a_wallet_needs_the_scope_to_read_it(
    locked: Api, database: Database
) -> None:
    holders = await holders_of_scopes(locked, database)
    ada = await holders["admin"].wallet()
    for held, holder in holders.items():
        if held in {"wallets:read", "admin"}:
            async with following(holder, ada) as stream:
                assert (stream.status, stream.start_version) == (200, 0)
        else:
            assert (await holder.get(f"/wallets/{ada}/events")).code == "forbidden"
    assert_unauthenticated(await locked.get(f"/wallets/{ada}/events"))


async def test_making_money_takes_an_admin(locked: Api, database: Database) -> None:
    boss = ApiWithKey(locked, await api_key(database, "boss", "admin"))
    clerk = ApiWithKey(
        locked, await api_key(database, "clerk", *(each for each in _SCOPES if each != "admin"))
    )
    ada, funding = await boss.wallet(100), await boss.funding_wallet()
    withdrawn = await boss.transfer(ada, funding, 10)
    owner = await clerk.user()
    wallet = {"user_id": owner, "currency": "USD"}
    reversal = f"/transfers/{withdrawn.json['id']}/reversal"
    [deposit] = (await clerk.get(f"/transfers?wallet_id={ada}")).json["data"][-1:]
    transfers = [transfer_body(ada, funding), transfer_body(funding, ada)]
    before = await footprint(database)
    asks: list[tuple[str, str, Any]] = [
        ("POST", "/transfers", transfer_body(funding, ada)),
        ("POST", "/transfers", transfer_body(funding.upper(), ada)),
        ("POST", "/transfers", transfer_body(ada, funding)),
        ("POST", "/transfers?dry_run=true", transfer_body(funding, ada)),
        *(
            ("POST", "/transfers/batch", {"mode": mode, "transfers": transfers})
            for mode in ("atomic", "independent")
        ),
        ("POST", reversal, None),
        ("POST", f"/transfers/{deposit['id']}/reversal", None),
        ("POST", "/wallets", wallet | {"initial_balance": 1}),
        ("POST", "/wallets", wallet | {"overdraft_limit": 1}),
        ("PATCH", f"/wallets/{ada}", {"overdraft_limit": 1}),
        ("PATCH", f"/wallets/{ada}", {"overdraft_limit": 0}),
        ("PATCH", f"/wallets/{funding}", {"metadata": {"owner": "clerk"}}),
        ("PATCH", f"/wallets/{funding.upper()}", {"metadata": {}}),
        ("PATCH", f"/wallets/{funding}", {}),
    ]
    for number, (method, path, body) in enumerate(asks):
        refused = await clerk.call(method, path, body, key=f"ask {number}")
        assert (refused.status, refused.code) == (403, "forbidden"), path
    assert await footprint(database) == before
    assert (await clerk.post("/wallets", wallet)).status == 201
    for number, (method, path, body) in enumerate(asks):
        done = await boss.call(method, path, body, key=f"ask {number}")
        assert done.status in {200, 201}, (path, done)


async def test_keys_belong_to_the_client(locked: Api, database: Database) -> None:
    alice = ApiWithKey(locked, await api_key(database, "alice", "admin"))
    carol = ApiWithKey(locked, await api_key(database, "carol", "admin"))
    second = ApiWithKey(locked, await api_key(database, "alice2", "admin", client="alice"))
    ada, bob = await alice.wallet(100), await alice.wallet()
    hers = await alice.transfer(ada, bob, 5, key="rent")
    assert (await carol.get("/idempotency-keys/rent")).code == "not-found"
    # The same text is another key for another client.
    other = await carol.transfer(ada, bob, 5, key="rent")
    assert other.status == 201
    assert other.json["id"] != hers.json["id"]
    assert "Idempotent-Replayed" not in other.headers
    # A second API key of the same client shares its Idempotency-Keys.
    again = await second.transfer(ada, bob, 5, key="rent")
    assert (again.body, again.headers["Idempotent-Replayed"]) == (hers.body, "true")
    assert (await second.transfer(ada, bob, 6, key="rent")).code == "idempotency-key-reused"
    for client, made in ((alice, hers), (second, hers), (carol, other)):
        known = await client.get("/idempotency-keys/rent")
        assert known.json["answer"] == made.json
    assert await alice.balance(bob) == 10


async def test_a_refused_client_leaves_the_idempotency_key_free(
    locked: Api, database: Database
) -> None:
    boss = ApiWithKey(locked, await api_key(database, "boss", "admin"))
    ada, bob = await boss.wallet(100), await boss.wallet()
    funding = await boss.funding_wallet()
    clerk = ApiWithKey(locked, await api_key(database, "clerk", "transfers:write", client="boss"))
    assert (await clerk.transfer(ada, funding, 5, key="rent")).code == "forbidden"
    reader = ApiWithKey(locked, await api_key(database, "reader", "wallets:read", client="boss"))
    assert (await reader.transfer(ada, bob, 5, key="rent")).code == "forbidden"
    assert (await boss.get("/idempotency-keys/rent")).code == "not-found"
    made = await clerk.transfer(ada, bob, 6, key="rent")
    assert (made.status, "Idempotent-Replayed" in made.headers) == (201, False)


async def test_public_paths_need_no_key(locked: Api) -> None:
    for path in (
        "/healthz",
        "/readyz",
        "/metrics",
        "/openapi.json",
        "/docs",
        "/problems/forbidden",
    ):
        assert (await locked.get(path)).status == 200, path
    assert (await locked.get("/nothing")).code == "not-found"
    assert (await locked.call("DELETE", "/users")).code == "method-not-allowed"


async def test_with_authentication_off_every_call_is_allowed(api: Api, database: Database) -> None:
    ada = await api.wallet(100, overdraft_limit=5)
    assert (await api.transfer(await api.funding_wallet(), ada, 5)).status == 201
    # A key that is sent still has to be valid, and names the client.
    assert_unauthenticated(await api.get("/users", {"Authorization": "Bearer nonsense"}))
    reader = ApiWithKey(api, await api_key(database, "reader", "wallets:read"))
    assert (await reader.get("/users")).status == 200
    assert (await reader.post("/users", {})).code == "forbidden"
