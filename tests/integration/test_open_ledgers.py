"""Routes work with the ledger of their client, and with no other one."""

import asyncio
import gc
from typing import Any, NamedTuple
from uuid import UUID

import pytest

from tests.conftest import Database, Replicas
from tests.support.api import Api
from tests.support.contract import ApiWithKey, api_key, transfer_body
from tests.support.events import following
from tests.support.pressure import held_rows
from tests.support.waiting import until
from transferd.actors.ledgers import OpenLedgers
from transferd.config import Limits
from transferd.domain.errors import DatabaseUnavailable
from transferd.domain.ledger import MAIN, Ledger
from transferd.ledger.ids import new_id
from transferd.ledger.migrate import create_ledger, migrate
from transferd.ledger.steps import ledger_migrations
from transferd.observability.facts import Fact, LedgerNotOpened

URL = "https://example.com/"


class Two(NamedTuple):
    """Clients of two ledgers, with the same name and all rights."""

    main: Api
    shop: Api
    ledger: Ledger


@pytest.fixture
async def shop(database: Database) -> Ledger:
    """A second ledger."""
    return await create_ledger(database.settings(), Limits(), "shop")


@pytest.fixture
async def two(replicas: Replicas, database: Database, shop: Ledger) -> Two:
    """Two ledgers in one replica."""
    api = await replicas.start(auth="on")
    tokens = [
        await api_key(database, f"of{ledger.name}", "admin", client="till", ledger=ledger)
        for ledger in (MAIN, shop)
    ]
    return Two(ApiWithKey(api, tokens[0]), ApiWithKey(api, tokens[1]), shop)


@pytest.fixture
async def ledgers(replicas: Replicas, shop: Ledger) -> OpenLedgers:
    """Those of a replica with room for one ledger that is not in use. Main is in use."""
    await replicas.start(Limits(open_ledgers_max=1))
    return replicas.opened[0].context.ledgers


async def test_lists_have_the_rows_of_their_own_ledger(two: Two) -> None:
    await two.main.hold(await two.main.wallet(100), 1)
    await two.main.post("/webhooks", {"url": URL, "events": ["*"]})
    for path in ("/users", "/holds", "/webhooks"):
        assert (await two.main.get(path)).json["data"]
        assert (await two.shop.get(path)).json["data"] == []
    own = {row["funding_wallet_id"] for row in (await two.shop.get("/currencies")).json["data"]}
    assert len(own) > 100
    listed = (await two.shop.get("/wallets?limit=200")).json
    assert ({wallet["id"] for wallet in listed["data"]}, listed["has_more"]) == (own, False)


async def test_new_ids_have_the_number_of_their_ledger(two: Two) -> None:
    for api, ledger in ((two.main, MAIN), (two.shop, two.ledger)):
        made = await api.post("/webhooks", {"url": URL, "events": ["*"]}, key="once")
        again = await api.post("/webhooks", {"url": URL, "events": ["*"]}, key="once")
        assert (made.status, again.body) == (201, made.body)
        assert (UUID(made.json["id"]).int >> 64) & 0xFFF == ledger.number
        listed = (await api.get("/webhooks")).json["data"]
        assert [each["id"] for each in listed] == [made.json["id"]]
        state = (await api.get("/idempotency-keys/once")).json
        assert (state["state"], state["answer"]["id"]) == ("succeeded", made.json["id"])


async def test_a_change_stays_in_its_ledger(two: Two) -> None:
    webhooks = [
        (await api.post("/webhooks", {"url": URL, "events": ["*"]})).json["id"]
        for api in (two.main, two.shop)
    ]
    assert (await two.shop.patch(f"/webhooks/{webhooks[1]}", {"status": "disabled"})).status == 200
    statuses = [
        (await api.get(f"/webhooks/{id}")).json["status"]
        for api, id in zip((two.main, two.shop), webhooks, strict=True)
    ]
    assert statuses == ["active", "disabled"]


async def test_a_funding_wallet_of_another_ledger_is_unknown(two: Two, database: Database) -> None:
    token = await api_key(database, "payer", "transfers:write", client="till", ledger=two.ledger)
    payer = ApiWithKey(two.shop, token)
    answers = []
    for api in (two.shop, two.main):
        body = transfer_body(await api.funding_wallet(), new_id(two.ledger))
        answers.append((await payer.post("/transfers?dry_run=true", body)).code)
    assert answers == ["forbidden", "wallet-not-found"]


# Opening


async def test_a_ledger_that_is_not_migrated_is_503_and_one_log_line(
    two: Two, replicas: Replicas, database: Database
) -> None:
    facts: list[Fact] = []
    replicas.opened[0].context.facts.add_hook(facts.append)
    await database.fetch(f"DELETE FROM {two.ledger.schema}.migrations")
    reply = await two.shop.get("/users")
    assert (reply.status, reply.code) == (503, "database-unavailable")
    assert two.ledger.schema not in reply.body.decode()
    [fact] = [fact for fact in facts if isinstance(fact, LedgerNotOpened)]
    assert fact.ledger == "shop"
    assert fact.reason.startswith(ledger_migrations()[0].name)
    assert (await two.main.get("/users")).status == 200
    rows = [(each.name, each.sha256) for each in ledger_migrations()]
    for name, sha256 in rows:
        await database.fetch(
            f"INSERT INTO {two.ledger.schema}.migrations (name, sha256) VALUES ($1, $2)",
            name,
            sha256,
        )
    assert await migrate(database.settings(), Limits()) == []
    assert (await two.shop.get("/users")).status == 200


async def test_a_ledger_without_a_schema_cannot_be_opened(
    ledgers: OpenLedgers, shop: Ledger, database: Database
) -> None:
    await database.fetch(f"DROP SCHEMA {shop.schema} CASCADE")
    with pytest.raises(DatabaseUnavailable, match="cannot be used now"):
        await ledgers.of(shop)


async def test_a_ledger_is_open_once(ledgers: OpenLedgers, shop: Ledger) -> None:
    assert len({id(each) for each in await asyncio.gather(*[ledgers.of(shop)] * 8)}) == 1
    in_use = await ledgers.of(shop)
    await ledgers.of(MAIN)
    assert repr(ledgers) == "<OpenLedgers 1 of 1>"
    assert await ledgers.of(shop) is in_use


async def test_a_ledger_that_is_neither_recent_nor_in_use_is_opened_again(
    ledgers: OpenLedgers, shop: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []

    async def counted(ledger: Ledger) -> Any:
        read.append(ledger.name)
        return await original(ledger)

    original = ledgers._read
    monkeypatch.setattr(ledgers, "_read", counted)
    for ledger in (shop, shop, MAIN, MAIN, shop):
        await ledgers.of(ledger)
        # The event loop still holds the result; and parts of a ledger refer to each other.
        await asyncio.sleep(0)
        gc.collect()
    assert read == ["shop", "shop"]


async def test_money_moves_in_the_ledger_of_the_client(two: Two, database: Database) -> None:
    wallets = [(await api.wallet(5), await api.wallet()) for api in (two.main, two.shop)]
    # The same key and the same text are two commands.
    moved = await asyncio.gather(
        *(
            api.transfer(*pair, 5, key="rent")
            for api, pair in zip((two.main, two.shop), wallets, strict=True)
        )
    )
    assert [reply.status for reply in moved] == [201, 201]
    assert "Idempotent-Replayed" not in moved[1].headers
    assert moved[0].json["id"] != moved[1].json["id"]
    for schema, (ada, bob) in zip((MAIN.schema, two.ledger.schema), wallets, strict=True):
        rows = await database.fetch(f"SELECT id::text, balance FROM {schema}.wallets")
        balances = {row["id"]: row["balance"] for row in rows}
        assert (balances[ada], balances[bob]) == (0, 5)
    foreign = await two.shop.transfer(wallets[1][1], wallets[0][1], 1)
    assert (foreign.status, foreign.code) == (404, "wallet-not-found")


async def test_a_flooded_wallet_id_of_another_ledger_is_an_actor_of_its_own(
    two: Two, replicas: Replicas, database: Database
) -> None:
    ada, bob = await two.main.wallet(5), await two.main.wallet()
    own, _ = await two.shop.wallet(5), await two.shop.wallet()
    # Ada's row is locked, so her command waits; the same id in the other ledger is unknown.
    async with held_rows(database, ada):
        waiting = asyncio.create_task(two.main.transfer(ada, bob, 1))
        ledgers = replicas.opened[0].context.ledgers
        await until(lambda: sum(ledger.router.live_actors for ledger in ledgers) == 1)
        foreign = await two.shop.transfer(ada, own, 1)
        assert (foreign.status, foreign.code) == (404, "wallet-not-found")
        assert not waiting.done()
    assert (await waiting).status == 201


async def test_while_a_ledger_is_restored_it_gets_503_and_others_go_on(
    two: Two, database: Database
) -> None:
    ada, bob = await two.shop.wallet(5), await two.shop.wallet()
    schema = two.ledger.schema
    await database.fetch(f"ALTER SCHEMA {schema} RENAME TO away")
    for reply in (
        await two.shop.transfer(ada, bob, 1, key="once"),
        await two.shop.get("/wallets"),
        await two.shop.post("/users", {"name": "Ada"}),
    ):
        assert (reply.status, reply.code) == (503, "database-unavailable")
    assert (await two.main.post("/users", {"name": "Ada"})).status == 201
    await database.fetch(f"ALTER SCHEMA away RENAME TO {schema}")
    assert (await two.shop.transfer(ada, bob, 1, key="once")).status == 201


async def test_a_ledger_that_ends_all_its_streams_does_not_end_those_of_others(
    two: Two,
) -> None:
    ada, bob = await two.main.wallet(5), await two.main.wallet()
    own, other = await two.shop.wallet(5), await two.shop.wallet()
    async with following(two.main, ada) as stream:
        async with following(two.shop, own) as second:
            await two.shop.transfer(own, other, 1)
            event = (await second.event()).cloud_event
            assert event["data"]["source_wallet_id"] == own
        await two.main.transfer(ada, bob, 1)
        assert (await stream.event()).cloud_event["data"]["source_wallet_id"] == ada


async def test_holds_of_every_ledger_expire(two: Two, database: Database) -> None:
    for api in (two.main, two.shop):
        await api.hold(await api.wallet(100), 60, expires_in_s=1)

    async def are_written() -> bool:
        rows = [
            await database.fetch(f"SELECT FROM {ledger.schema}.holds WHERE status = 3")
            for ledger in (MAIN, two.ledger)
        ]
        return all(rows)

    await until(are_written)
    for api in (two.main, two.shop):
        [hold] = (await api.get("/holds?status=expired")).json["data"]
        assert hold["released"] == 60
