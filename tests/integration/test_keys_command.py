"""`transferd keys`: a token is shown once and stored as a digest; a revoked key is refused."""

import asyncio
import hashlib
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.conftest import Database, Replicas
from tests.support.contract import ApiWithKey, time_of
from transferd.cli import main
from transferd.config import Limits
from transferd.domain.ledger import MAIN
from transferd.ledger.migrate import create_ledger
from transferd.ledger.store.clients import (
    CreatedKey,
    SimilarClient,
    insert_api_key,
    list_api_keys,
)
from transferd.ledger.store.database import Database as Store

_TOKEN = re.compile(r"td_([0-9a-f]{16})_([0-9a-f]{64})")


async def command(database: Database, *arguments: str) -> Result:
    """`transferd keys` with these arguments, beside the loop of the test."""
    environment = database.variables(COLUMNS="80")
    return await asyncio.to_thread(
        CliRunner().invoke, main, ["keys", *arguments], env=environment, input=""
    )


async def created(database: Database, *arguments: str) -> dict[str, Any]:
    """The output of `create --json`."""
    result = await command(database, "create", "--json", *arguments)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    [line] = result.stdout.splitlines()
    shown: dict[str, Any] = json.loads(line)
    return shown


async def listed(database: Database, *arguments: str) -> list[dict[str, Any]]:
    """The output of `list --json`."""
    result = await command(database, "list", "--json", *arguments)
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


async def everything_stored(database: Database) -> str:
    """All rows of keys and clients, as text."""
    rows = await database.fetch(
        "SELECT k::text AS stored FROM transferd.api_keys k"
        " UNION ALL SELECT c::text FROM transferd.clients c"
    )
    return "\n".join(row["stored"] for row in rows)


# Create


async def test_a_key_that_was_made_can_call(database: Database, replicas: Replicas) -> None:
    result = await command(database, "create", "--client", "shop", "--scope", "wallets:write")
    assert result.exit_code == 0
    # Only the token is on stdout, so that a script can read it.
    token = result.stdout.removesuffix("\n")
    match = _TOKEN.fullmatch(token)
    assert match is not None
    new, said = result.stderr.splitlines()
    assert new == "client shop is new in the ledger main"
    assert said.startswith(
        f"key {match[1]} of shop in the ledger main allows wallets:write and never expires; "
    )
    assert match[2] not in result.stderr
    shop = ApiWithKey(await replicas.start(auth="on"), token)
    assert (await shop.post("/users", {})).status == 201
    assert (await shop.get("/users")).code == "forbidden"


async def test_a_token_is_new_and_only_its_digest_is_stored(database: Database) -> None:
    key, other = [await created(database, "--client", "shop", "--scope", "admin") for _ in range(2)]
    secret, digest = (
        key["token"].rpartition("_")[2],
        hashlib.sha256(key["token"].encode()).hexdigest(),
    )
    assert key["id"] != other["id"]
    assert secret != other["token"].rpartition("_")[2]
    stored = await everything_stored(database)
    assert key["id"] in stored
    assert digest in stored
    assert secret not in stored
    for arguments in (["list"], ["list", "--json"]):
        output = (await command(database, *arguments)).output
        assert key["id"] in output
        assert secret not in output
        assert digest not in output


async def test_a_new_key_can_be_printed_as_json(database: Database) -> None:
    scopes = ["--scope", "transfers:write", "--scope", "wallets:read", "--scope", "wallets:read"]
    key = await created(database, "--client", "The Shop", *scopes)
    match = _TOKEN.fullmatch(key.pop("token"))
    assert match is not None
    time_of(key.pop("created_at"))
    assert key == {
        "id": match[1],
        "client": "The Shop",
        "scopes": ["wallets:read", "transfers:write"],
        "expires_at": None,
        "last_used_at": None,
        "revoked_at": None,
        "ledger": "main",
        "client_is_new": True,
    }
    del key["client_is_new"]
    assert await listed(database, "--client", "The Shop") == [
        key | {"created_at": (await listed(database))[0]["created_at"]}
    ]


async def created_at_once(store: Store, *clients: str) -> list[CreatedKey | SimilarClient]:
    """Create keys for all of these clients at the same time; the results."""
    return await asyncio.gather(
        *(
            insert_api_key(
                store,
                ledger=MAIN,
                id=f"key{number}",
                client=client,
                secret_sha256=bytes(32),
                scopes=["admin"],
                expires_at=None,
            )
            for number, client in enumerate(clients)
        )
    )


@pytest.mark.parametrize(
    "names",
    [["shop"] * 8, ["Shop", "shop", "SHOP", "ｓｈｏｐ", "sHop", "shoP", "ＳＨＯＰ", "SHop"]],  # noqa: RUF001
    ids=["one spelling", "eight spellings"],
)
async def test_concurrent_creations_make_one_client(database: Database, names: list[str]) -> None:
    async with Store(database.settings(), Limits(), connections=4) as store:
        results = await created_at_once(store, *names)
        keys = await list_api_keys(store, ledger=MAIN, client=None)
    assert len(keys) == (8 if len(set(names)) == 1 else 1)
    assert {key.client for key in keys} == {keys[0].client}
    made = [result for result in results if isinstance(result, CreatedKey)]
    assert len(made) == len(keys)
    assert [result.client_is_new for result in made].count(True) == 1
    refused = [result for result in results if isinstance(result, SimilarClient)]
    assert refused == [SimilarClient(keys[0].client)] * (8 - len(keys))


@pytest.mark.parametrize(
    ("there", "given"),
    [
        ("shop", "Shop"),
        ("Straße", "STRASSE"),
        ("Café", "Cafe\u0301"),
        ("shop 1", "ｓｈｏｐ １"),  # noqa: RUF001
        ("ﬁsh", "FISH"),
        ("ΟΔΟΣ", "οδος"),
        ("shop", "shop\ufe0f"),
        ("shop", "sh\u3164op"),
    ],
)
async def test_another_spelling_of_a_clients_name_is_refused(
    database: Database, there: str, given: str
) -> None:
    key = await created(database, "--client", there, "--scope", "admin")
    before = await everything_stored(database)
    for more in ([], ["--json"]):
        result = await command(database, "create", "--client", given, "--scope", "admin", *more)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith(f"Error: there is a client {there!a} already, which ")
        assert result.stderr.count("\n") == 1
    assert await everything_stored(database) == before
    # The exact name is still accepted, and so is a name that only looks alike.
    again = await created(database, "--client", there, "--scope", "admin")
    assert again["id"] != key["id"]
    assert (await created(database, "--client", "shор", "--scope", "admin"))["client_is_new"]  # noqa: RUF001


async def test_existing_clients_with_similar_names_both_get_keys(database: Database) -> None:
    await database.fetch("INSERT INTO transferd.clients (name) VALUES ('Shop'), ('shop')")
    for name in ("Shop", "shop"):
        key = await created(database, "--client", name, "--scope", "admin")
        assert (key["client"], key["client_is_new"]) == (name, False)
    third = await command(database, "create", "--client", "SHOP", "--scope", "admin")
    assert "there is a client 'Shop' already" in third.stderr


async def test_keys_of_one_client_share_its_idempotency_keys(
    database: Database, replicas: Replicas
) -> None:
    tokens = [
        (await created(database, "--client", name, "--scope", "admin"))["token"]
        for name in ("shop", "shop", "bank")
    ]
    api = await replicas.start(auth="on")
    till, office, bank = (ApiWithKey(api, token) for token in tokens)
    made = await till.post("/users", {"name": "Ada"}, key="once")
    again = await office.post("/users", {"name": "Ada"}, key="once")
    assert (again.body, again.headers["Idempotent-Replayed"]) == (made.body, "true")
    other = await bank.post("/users", {"name": "Ada"}, key="once")
    assert other.json["id"] != made.json["id"]


async def test_a_key_expires_in_days_or_at_a_time(database: Database) -> None:
    before = datetime.now(UTC)
    arguments = ("--client", "shop", "--scope", "admin")
    in_days = await created(database, *arguments, "--expires-in-days", "30")
    expires_at = time_of(in_days["expires_at"])
    thirty_days = timedelta(days=30)
    assert before + thirty_days <= expires_at <= datetime.now(UTC) + thirty_days
    at = await created(database, *arguments, "--expires-at", "2099-12-31T23:00:00-02:00")
    assert at["expires_at"] == "2100-01-01T01:00:00.000000Z"
    assert [key["expires_at"] for key in await listed(database)] == [
        in_days["expires_at"],
        at["expires_at"],
    ]
    result = await command(database, "create", *arguments, "--expires-at", "2099-01-01T00:00:00Z")
    assert " and expires 2099-01-01T00:00:00.000000Z; " in result.stderr


async def test_invalid_arguments_create_no_key(
    database: Database, subtests: pytest.Subtests
) -> None:
    for arguments in (
        [],
        ["--client", "shop"],
        ["--scope", "admin"],
        ["--client", "", "--scope", "admin"],
        ["--client", " shop", "--scope", "admin"],
        ["--client", "shop ", "--scope", "admin"],
        ["--client", "shop\n", "--scope", "admin"],
        ["--client", "sh\top", "--scope", "admin"],
        ["--client", "sh\u00a0op", "--scope", "admin"],
        ["--client", "sh\u200bop", "--scope", "admin"],
        ["--client", "sh\u200dop", "--scope", "admin"],
        ["--client", "sh\u00adop", "--scope", "admin"],
        ["--client", "sh\u202eop", "--scope", "admin"],
        ["--client", "\ufeffshop", "--scope", "admin"],
        ["--client", "sh\udcffop", "--scope", "admin"],
        ["--client", "\u3164", "--scope", "admin"],
        ["--client", "\ufe0f\u034f", "--scope", "admin"],
        ["--client", "sh\x1b[31mop", "--scope", "admin"],
        ["--client", "s" * 141, "--scope", "admin"],
        ["--client", "shop", "--scope", "wallets:steal"],
        ["--client", "shop", "--scope", "Admin"],
        ["--client", "shop", "--scope", "admin", "--expires-in-days", "0"],
        ["--client", "shop", "--scope", "admin", "--expires-in-days", "99999"],
        ["--client", "shop", "--scope", "admin", "--expires-in-days", "1.5"],
        ["--client", "shop", "--scope", "admin", "--expires-at", "tomorrow"],
        ["--client", "shop", "--scope", "admin", "--expires-at", "2099-01-01"],
        ["--client", "shop", "--scope", "admin", "--expires-at", "2099-01-01T00:00:00"],
        ["--client", "shop", "--scope", "admin", "--expires-at", "2099-02-30T00:00:00Z"],
        ["--client", "shop", "--scope", "admin", "--expires-at", "2001-01-01T00:00:00Z"],
        [
            *("--client", "shop", "--scope", "admin"),
            *("--expires-at", "2099-01-01T00:00:00Z", "--expires-in-days", "1"),
        ],
    ):
        with subtests.test(arguments=arguments):
            before = await everything_stored(database)
            result = await command(database, "create", *arguments)
            assert result.exit_code == 2
            assert result.output.startswith("Usage: ")
            assert await everything_stored(database) == before


# Ledgers


async def test_a_key_belongs_to_a_client_of_its_ledger(database: Database) -> None:
    await create_ledger(database.settings(), Limits(), "shop")
    arguments = ("--client", "till", "--scope", "admin")
    in_main = await created(database, *arguments)
    in_shop = await created(database, *arguments, "--ledger", "shop")
    # Also another spelling of a name that only main has.
    loud = await created(database, "--client", "TILL 2", "--scope", "admin", "--ledger", "shop")
    await created(database, "--client", "Till 2", "--scope", "admin")
    assert all(key["client_is_new"] for key in (in_main, in_shop, loud))
    assert in_main["id"] in {key["id"] for key in await listed(database)}
    assert [in_main["ledger"], in_shop["ledger"]] == ["main", "shop"]
    of_shop = [in_shop["id"], loud["id"]]
    assert {key["ledger"] for key in await listed(database, "--ledger", "shop")} == {"shop"}
    assert [key["id"] for key in await listed(database, "--ledger", "shop")] == of_shop
    assert [
        key["id"] for key in await listed(database, "--ledger", "shop", "--client", "till")
    ] == [in_shop["id"]]
    rows = await database.fetch(
        "SELECT ledgers.name FROM transferd.api_keys"
        " JOIN transferd.clients ON clients.id = client_id"
        " JOIN transferd.ledgers ON number = ledger_number ORDER BY api_keys.created_at"
    )
    assert [row["name"] for row in rows] == ["main", "shop", "shop", "main"]


async def test_a_setting_names_the_ledger_of_keys(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create_ledger(database.settings(), Limits(), "shop")
    monkeypatch.setenv("TRANSFERD_LEDGER", "shop")
    arguments = ("--client", "till", "--scope", "admin")
    in_shop = await created(database, *arguments)
    in_main = await created(database, *arguments, "--ledger", "main")
    assert [key["id"] for key in await listed(database)] == [in_shop["id"]]
    assert [key["id"] for key in await listed(database, "--ledger", "main")] == [in_main["id"]]


@pytest.mark.parametrize(
    ("name", "error"),
    [
        (
            "nowhere",
            "there is no ledger nowhere: make it with `transferd ledgers create nowhere`\n",
        ),
        ("No Name", "TRANSFERD_LEDGER: "),
    ],
)
async def test_an_unknown_ledger_is_one_line(database: Database, name: str, error: str) -> None:
    for arguments in (["create", "--client", "till", "--scope", "admin"], ["list"]):
        result = await command(database, *arguments, "--ledger", name)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith(f"Error: {error}")
        assert result.stderr.count("\n") == 1


async def test_the_version_before_refuses_keys_of_other_ledgers(database: Database) -> None:
    await create_ledger(database.settings(), Limits(), "shop")
    key = await created(database, "--client", "till", "--scope", "admin", "--ledger", "shop")
    [row] = await database.fetch(
        "SELECT secret_sha256 FROM transferd.api_keys WHERE id = $1", key["id"]
    )
    # It compares with this digest, and knows no other ledger than main.
    assert row["secret_sha256"] != hashlib.sha256(key["token"].encode()).digest()


# List


async def test_list_shows_the_oldest_first_and_how_many_there_are(database: Database) -> None:
    result = await command(database, "list")
    assert (result.exit_code, result.output) == (
        0,
        "0 API keys in the ledger main; times are UTC\n",
    )
    first = await created(database, "--client", "[red]shop", "--scope", "admin")
    second = await created(
        database, "--client", "bank", "--scope", "wallets:read", "--expires-in-days", "1"
    )
    await command(database, "revoke", second["id"])
    result = await command(database, "list")
    assert result.exit_code == 0
    rows = [line.split() for line in result.stdout.splitlines() if line.strip()]
    made = [
        time_of(key["created_at"]).strftime("%Y-%m-%d %H:%M").split() for key in (first, second)
    ]
    assert [row for row in rows if row[0] == first["id"]] == [
        [first["id"], "[red]shop", "admin", *made[0], "-", "-", "-"]
    ]
    [of_bank] = [row for row in rows if row[0] == second["id"]]
    assert of_bank[:5] == [second["id"], "bank", "wallets:read", *made[1]]
    assert [of_bank[7], len(of_bank)] == ["-", 10]
    assert result.stdout.index(first["id"]) < result.stdout.index(second["id"])
    assert result.stdout.splitlines()[-1] == "2 API keys in the ledger main; times are UTC"
    result = await command(database, "list", "--client", "bank")
    assert result.stdout.splitlines()[-1] == "1 API key in the ledger main; times are UTC"
    assert first["id"] not in result.stdout


# Revoke


async def test_a_revoked_key_is_refused(database: Database, replicas: Replicas) -> None:
    several = [await created(database, "--client", "shop", "--scope", "admin") for _ in range(3)]
    ids = [key["id"] for key in several]
    api = await replicas.start(Limits(api_key_cache_s=0.0), auth="on")
    holders = [ApiWithKey(api, key["token"]) for key in several]
    assert [(await each.get("/users")).status for each in holders] == [200, 200, 200]
    result = await command(database, "revoke", ids[0], ids[1], ids[0])
    assert result.exit_code == 0
    assert result.output == "".join(
        f"{id} is revoked; each replica rejects it within 5 s\n" for id in ids[:2]
    )
    assert [(await each.get("/users")).status for each in holders] == [401, 401, 200]


async def test_a_second_revocation_keeps_the_first_time(database: Database) -> None:
    id = (await created(database, "--client", "shop", "--scope", "admin"))["id"]
    first = await command(database, "revoke", id)
    [before] = await listed(database)
    time_of(before["revoked_at"])
    again = await command(database, "revoke", id)
    assert (again.exit_code, again.output) == (0, first.output)
    assert await listed(database) == [before]


async def test_keys_are_revoked_by_id_or_token_and_unknown_ids_are_one_line(
    database: Database,
) -> None:
    first, second, third = [
        await created(database, "--client", "shop", "--scope", "admin") for _ in range(3)
    ]
    result = await command(database, "revoke", "no1", first["id"], second["token"], "no2", "%")
    assert result.exit_code == 1
    assert result.stderr == "Error: there is no API key no1, no2, %\n"
    assert result.stdout.startswith(f"{first['id']} is revoked")
    assert second["token"] not in result.output
    assert [key["id"] for key in await listed(database) if key["revoked_at"] is None] == [
        third["id"]
    ]
    assert (await command(database, "revoke")).exit_code == 2
