"""The load test in several ledgers of one service: users, audit and report of each."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from loadtest.ledgers import KeyedLedger, make_ledgers
from tests.conftest import Database
from tests.support.locusts import LEVELS, LoadTest, locust, run_time
from tests.support.servers import Servers
from tests.support.topology import SupervisedReplicas, topology
from tests.support.truth import row_count

# The topology serves all tests of this file.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass(frozen=True)
class Scene:
    """A topology that requires API keys, with three ledgers and a file with their keys."""

    database: Database
    whole: SupervisedReplicas
    ledgers: Sequence[KeyedLedger]
    keys: Path

    async def locust(self, *arguments: str) -> LoadTest:
        """A run with few wallets in each ledger."""
        small = ("--wallets", "40", "--users", "24", "--think", "0.1", *LEVELS)
        keys = ("--keys-file", str(self.keys), "--ledgers", str(len(self.ledgers)))
        return await locust(*small, *keys, *arguments, host=self.whole.nginx.url)

    async def transfers(self) -> list[int]:
        """Transfers in each ledger except those that create money."""
        return [
            await row_count(
                self.database,
                f"{each.ledger.schema}.transfers AS t JOIN {each.ledger.schema}.wallets AS source"
                " ON source.id = t.source_wallet_id WHERE NOT source.funding",
            )
            for each in self.ledgers
        ]

    async def keys_used(self, schema: str) -> set[str]:
        """The idempotency keys of a ledger."""
        return {
            row["key"] for row in await self.database.fetch(f"SELECT key FROM {schema}.outcomes")
        }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    name, redis_number = await servers.new_database()
    database = Database(name, redis_number, servers)
    ledgers = await make_ledgers(database.settings().required("database_url"), "", 3)
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text("".join(f"{each.ledger.name} {each.token}\n" for each in ledgers))
    async with topology(database, 2, auth="on") as whole:
        yield Scene(database, whole, ledgers, keys)
    await servers.drop_database(name)


@pytest.mark.parametrize("processes", [(), ("--processes", "2")], ids=["one", "two"])
async def test_each_ledger_has_users_and_is_audited(
    scene: Scene, processes: tuple[str, ...]
) -> None:
    before = await scene.transfers()
    test = await scene.locust("--scenario", "mixed", *run_time(3), *processes)
    assert test.code == 0, test.output[-5_000:]
    assert test.violations == []
    assert "3 ledgers" in test.line
    made = [now - then for now, then in zip(await scene.transfers(), before, strict=True)]
    # The acknowledged transfers of each ledger are exactly those in its schema.
    rows = test.verdict["ledgers"]
    assert [row["ledger"] for row in rows] == [each.ledger.name for each in scene.ledgers]
    assert [row["audit"]["acknowledged"] for row in rows] == made
    assert all(made)
    assert test.verdict["audit"]["acknowledged"] == sum(made)
    assert all(row["audit"]["complete"] and row["violations"] == 0 for row in rows)
    # The ledgers had the same keys.
    first, *others = [await scene.keys_used(each.ledger.schema) for each in scene.ledgers]
    assert all(len(first & other) > len(first) / 4 for other in others)


async def test_two_keys_of_one_ledger_are_refused(scene: Scene, tmp_path: Path) -> None:
    twice = tmp_path / "keys"
    token = scene.ledgers[0].token
    twice.write_text("".join(f"{name} {token}\n" for name in ("main", "copy", "another")))
    test = await scene.locust("--run-time", "1s", "--keys-file", str(twice))
    assert test.code == 1
    assert "two keys of one ledger" in test.line


async def test_damage_in_one_ledger_is_named_with_it(scene: Scene) -> None:
    schema = scene.ledgers[1].ledger.schema
    await scene.database.fetch(
        f"CREATE FUNCTION {schema}.one_more() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN NEW.balance := NEW.balance + 1; RETURN NEW; END'"
    )
    await scene.database.fetch(
        f"CREATE TRIGGER one_more BEFORE UPDATE ON {schema}.wallets FOR EACH ROW"
        " WHEN (NEW.balance > OLD.balance AND NOT NEW.funding)"
        f" EXECUTE FUNCTION {schema}.one_more()"
    )
    test = await scene.locust("--scenario", "uniform", *run_time(2))
    assert test.code == 3, test.output[-5_000:]
    assert {each["text"].partition(":")[0] for each in test.violations} == {
        f"ledger {scene.ledgers[1].ledger.name}"
    }
    assert [row["violations"] > 0 for row in test.verdict["ledgers"]] == [False, True, False]
