"""`transferd ledgers`: creates, lists and shows ledgers; forgets what Redis has of one."""

import json
from typing import Any

import pytest

from tests.conftest import Database
from tests.support.api import Api
from tests.support.command import Finished, transferd
from tests.support.contract import time_of
from tests.support.damage import make_traffic
from transferd.config import Limits, Settings
from transferd.domain.ledger import is_ledger_name
from transferd.ledger.migrate import create_ledger
from transferd.ledger.steps import ledger_migrations

EVERYTHING = [each.name for each in ledger_migrations()]


async def command(database: Database, *arguments: str) -> Finished:
    settings = {
        name.removeprefix("TRANSFERD_").lower(): value
        for name, value in database.variables().items()
    }
    return await transferd("ledgers", *arguments, **settings)


async def listed(database: Database) -> dict[str, dict[str, Any]]:
    """The output of `list --json`, by name."""
    ended = await command(database, "list", "--json")
    assert (ended.code, ended.err) == (0, "")
    return {each["name"]: each for each in map(json.loads, ended.out.splitlines())}


async def shown(database: Database, name: str) -> dict[str, Any]:
    """The output of `show`."""
    ended = await command(database, "show", name)
    assert (ended.code, ended.err) == (0, "")
    view: dict[str, Any] = json.loads(ended.out)
    return view


# Names


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        *(("main", True), ("a", True), ("a-1", True), ("a" * 40, True)),
        *(("", False), ("a" * 41, False), ("1a", False), ("-a", False), ("A", False)),
        *(
            ("a.b", False),
            ("a#", False),
            ("a*", False),
            ("a_b", False),
            ("a\n", False),
            ("ä", False),
        ),
    ],
)
async def test_a_name_has_the_same_rule_everywhere(
    database: Database, name: str, fits: bool
) -> None:
    assert is_ledger_name(name) is fits
    if name != "main":
        assert (await command(database, "create", "--", name)).code == (0 if fits else 2)
    try:
        Settings(ledger=name)
    except ValueError:
        assert not fits
    else:
        assert fits
    if not fits:
        with pytest.raises(Exception, match="ledgers_name_check"):
            await database.fetch(
                "INSERT INTO transferd.ledgers (number, name, schema) VALUES (7, $1, 'x')", name
            )


# Create


async def test_a_ledger_is_made_with_its_tables(database: Database) -> None:
    ended = await command(database, "create", "shop")
    [row] = await database.fetch("SELECT number, schema FROM transferd.ledgers WHERE name = 'shop'")
    assert (ended.code, ended.out) == (
        0,
        f"created the ledger shop: number {row['number']}, schema {row['schema']}\n",
    )
    again = await command(database, "create", "shop")
    assert again.complaint == "there is a ledger shop already"
    assert set(await listed(database)) == {"main", "shop"}


# List and show


async def test_list_shows_every_ledger_with_its_clients_keys_and_size(database: Database) -> None:
    await create_ledger(database.settings(), Limits(), "shop", 5)
    await database.fetch(
        "INSERT INTO transferd.clients (name, ledger_number) VALUES ('till', 5), ('web', 5)"
    )
    await database.fetch(
        "INSERT INTO transferd.api_keys (id, client_id, secret_sha256, scopes, revoked_at,"
        " expires_at) SELECT name || ended || expired, id, $1, '{}',"
        " CASE WHEN ended THEN now() END, CASE WHEN expired THEN now() END"
        " FROM transferd.clients, (VALUES (false, false), (true, false), (false, true))"
        " AS k (ended, expired) WHERE ledger_number = 5",
        bytes(32),
    )
    await database.fetch("ANALYZE")
    [[size]] = await database.fetch(
        "SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class"
        " WHERE relnamespace = 'ledger_05'::regnamespace AND relkind = 'r'"
    )
    main, shop = (await listed(database)).values()
    time_of(shop.pop("created_at"))
    assert 0.5 * size < shop.pop("bytes_about") <= size
    assert shop == {
        "name": "shop",
        "number": 5,
        "schema": "ledger_05",
        "clients": 2,
        "usable_keys": 2,
        "missing_migrations": [],
    }
    assert (main["name"], main["clients"], main["usable_keys"]) == ("main", 1, 0)
    ended = await command(database, "list")
    rows = [line.split() for line in ended.out.splitlines() if line.strip()]
    [row] = [row for row in rows if row[0] == "shop"]
    assert row[:8] == ["shop", "5", "ledger_05", "up", "to", "date", "2", "2"]
    assert rows[-1] == ["2", "ledgers"]


async def test_list_names_ledgers_that_lack_migrations_or_tables(database: Database) -> None:
    for name, number in (("late", 5), ("lost", 6), ("good", 7)):
        await create_ledger(database.settings(), Limits(), name, number)
    await database.fetch("DELETE FROM ledger_05.migrations")
    await database.fetch("DROP SCHEMA ledger_06 CASCADE")
    missing = {name: each["missing_migrations"] for name, each in (await listed(database)).items()}
    assert missing == {"main": [], "late": EVERYTHING, "lost": None, "good": []}
    out = (await command(database, "list")).out
    assert f"{len(EVERYTHING)} missing" in out
    assert "unreadable" in out
    lost = await shown(database, "lost")
    assert [lost[name] for name in ("migrations", "waiting", "tables")] == [None, None, []]


async def test_list_reads_the_migrations_of_some_ledgers_at_a_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(3):
        await create_ledger(database.settings(), Limits(), f"shop-{n}", 10 * n + 10)
    monkeypatch.setattr("transferd.ledger.store.migrations._LEDGERS_PER_QUERY", 2)
    missing = {name: each["missing_migrations"] for name, each in (await listed(database)).items()}
    assert missing == {"main": [], "shop-0": [], "shop-1": [], "shop-2": []}


async def test_show_counts_what_waits(database: Database, api: Api) -> None:
    await make_traffic(api)
    await database.fetch("ANALYZE ledger_00.transfers")
    view = await shown(database, "main")
    [[outbox, holds]] = await database.fetch(
        "SELECT (SELECT count(*) FROM ledger_00.outbox),"
        " (SELECT count(*) FROM ledger_00.holds WHERE status = 0)"
    )
    assert outbox > 0 < holds
    assert view["waiting"] == {
        "outbox_rows": outbox,
        "deliveries_waiting": 0,
        "active_holds": holds,
    }
    assert view["migrations"] == EVERYTHING
    assert view["cache_generation"] == 0
    tables = {each["name"]: each for each in view["tables"]}
    assert len(tables) > 10
    assert tables["transfers"]["rows_about"] == 10
    [[size]] = await database.fetch("SELECT pg_total_relation_size('ledger_00.wallets')")
    assert tables["wallets"]["bytes"] == size


async def test_an_unknown_ledger_is_one_line(database: Database) -> None:
    for name in ("show", "forget-cache"):
        ended = await command(database, name, "nowhere")
        assert ended.complaint == (
            "there is no ledger nowhere: make it with `transferd ledgers create nowhere`"
        )


# Forget the cache


async def test_forget_cache_raises_the_generation_of_one_ledger(database: Database) -> None:
    await create_ledger(database.settings(), Limits(), "shop", 5)
    for generation in (1, 2):
        ended = await command(database, "forget-cache", "shop")
        assert ended.code == 0
        assert ended.out.startswith(f"cache generation {generation} of shop: each replica follows")
        assert " within 5 s. " in ended.out
    generations = {
        name: (await shown(database, name))["cache_generation"] for name in ("main", "shop")
    }
    assert generations == {"main": 0, "shop": 2}
