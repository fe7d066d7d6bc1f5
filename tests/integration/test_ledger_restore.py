"""Backup and restore of one ledger, with the commands of docs/operations.md."""

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

from tests.conftest import Database, Replicas
from tests.support.command import environment, transferd
from tests.support.contract import ApiWithKey
from tests.support.project import ROOT
from tests.support.servers import Servers
from tests.support.truth import row_count
from transferd.config import Limits
from transferd.devstack.postgres import find_postgres_binaries
from transferd.ledger.migrate import create_ledger

PAGE = ROOT / "docs/operations.md"


def documented_blocks() -> list[str]:
    """The shell blocks of the section: dump, rename, forget, restore, copy out, copy in."""
    section = (
        PAGE.read_text(encoding="utf-8").partition("### One ledger\n")[2].partition("\n## ")[0]
    )
    return re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)


DUMP, RENAME, FORGET, RESTORE, COPY_OUT, COPY_IN = documented_blocks()


class Operator:
    """Runs the blocks of the page for one ledger, in a directory."""

    def __init__(self, database: Database, directory: Path, name: str, number: int) -> None:
        self._directory = directory
        self._name = name
        self._number = number
        programs = (find_postgres_binaries()[0], Path(sys.executable).parent)
        self.variables = database.variables() | {
            "PATH": ":".join([*map(str, programs), os.environ["PATH"]])
        }

    async def runs(self, block: str) -> str:
        """Its output; AssertionError if a command fails."""
        # The page has the ledger shop with the number 1234.
        text = block.replace("ledger_1234", f"ledger_{self._number:02d}")
        text = text.replace("1234", str(self._number)).replace("shop", self._name)
        process = await asyncio.create_subprocess_exec(
            *("bash", "-euc", text),
            cwd=self._directory,
            env=environment(self.variables),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()
        return output.decode()


async def key_of(database: Database, *arguments: str) -> str:
    """The token of a new key."""
    ended = await transferd(
        *("keys", "create", "--client", "till", "--scope", "admin", *arguments),
        database_url=database.settings().required("database_url"),
    )
    assert ended.code == 0, ended
    return ended.out.strip()


@pytest.mark.parametrize("forgets", [True, False], ids=["as documented", "with the old cache"])
async def test_a_ledger_is_restored_alone_under_a_running_replica(
    database: Database, replicas: Replicas, tmp_path: Path, forgets: bool
) -> None:
    settings = database.settings()
    shop = await create_ledger(settings, Limits(), "shop", 5)
    await database.fetch(
        "INSERT INTO ledger_05.users VALUES (gen_random_uuid(), 'Ada', '{}', now())"
    )
    # A replica reads the ledger of a key at each request, so it follows at once.
    limits = Limits(api_key_cache_s=1e-9)
    api = ApiWithKey(await replicas.start(limits, auth="on"), await key_of(database))
    payer, receiver = await api.wallet(10_000), await api.wallet()
    assert (await api.transfer(payer, receiver, 100, key="before")).status == 201
    operator = Operator(database, tmp_path, "main", 0)
    await operator.runs(DUMP)
    lost = await api.transfer(payer, receiver, 50, key="after")
    assert await api.balance(receiver) == 150

    await operator.runs(RENAME)
    if forgets:
        await operator.runs(FORGET)
    said = await operator.runs(RESTORE)
    assert "main: no findings" in said
    assert await row_count(database, f"{shop.schema}.users") == 1
    again = await api.transfer(payer, receiver, 50, key="after")
    before = await api.transfer(payer, receiver, 100, key="before")
    assert before.headers["Idempotent-Replayed"] == "true"
    [[balance]] = await database.fetch(
        "SELECT balance FROM ledger_00.wallets WHERE id = $1", receiver
    )
    if forgets:
        # The transfer of after the backup is lost, and its repetition executes it.
        assert (again.status, again.headers.get("Idempotent-Replayed")) == (201, None)
        assert again.json["id"] != lost.json["id"]
        assert await api.balance(receiver) == balance == 150
    else:
        assert again.body == lost.body
        assert balance == 100


async def test_a_restored_ledger_gets_what_this_version_adds(
    database: Database, tmp_path: Path
) -> None:
    await create_ledger(database.settings(), Limits(), "shop", 1234)
    # The dump is of a version that did not have this currency.
    [[code, wallet_id]] = await database.fetch(
        "DELETE FROM ledger_1234.currencies WHERE code = 'CHF' RETURNING code, funding_wallet_id"
    )
    for table, column in (("wallet_changes", "wallet_id"), ("wallets", "id")):
        await database.fetch(f"DELETE FROM ledger_1234.{table} WHERE {column} = $1", wallet_id)
    operator = Operator(database, tmp_path, "shop", 1234)
    for block in (DUMP, RENAME, FORGET):
        await operator.runs(block)
    assert "shop: no findings" in await operator.runs(RESTORE)
    assert await row_count(database, f"ledger_1234.currencies WHERE code = '{code}'") == 1


async def test_a_ledger_is_brought_into_another_database(
    servers: Servers, database: Database, tmp_path: Path
) -> None:
    name, number = await servers.new_database()
    other = Database(name, number, servers)
    try:
        await create_ledger(database.settings(), Limits(), "shop", 1234)
        await key_of(database, "--ledger", "shop")
        operator = Operator(database, tmp_path, "shop", 1234)
        operator.variables["OTHER_DATABASE_URL"] = other.settings().required("database_url")
        for block in (DUMP, COPY_OUT):
            await operator.runs(block)
        assert "shop: no findings" in await operator.runs(COPY_IN)
        for table in ("transferd.api_keys", "ledger_1234.wallets", "ledger_1234.migrations"):
            assert await contents(other, table) == await contents(database, table)
        # The next client gets a free id.
        await key_of(other)
        assert await row_count(other, "transferd.clients") == 3
        # A second copy fails and changes nothing.
        clients = await contents(other, "transferd.clients")
        with pytest.raises(AssertionError, match="already exists"):
            await operator.runs(COPY_IN)
        assert await contents(other, "transferd.clients") == clients
    finally:
        await servers.drop_database(name)


async def contents(database: Database, table: str) -> list[str]:
    """The rows of a table as text, in order."""
    rows = await database.fetch(f"SELECT t::text AS row FROM {table} t ORDER BY 1")
    return [row["row"] for row in rows]
