"""The audit finds nothing in a sound ledger and names every kind of damage, as does its command."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from tests.conftest import Database, Replicas
from tests.support.command import transferd
from tests.support.damage import DAMAGES, make_traffic, set_outcome
from tests.support.servers import Servers
from tests.support.truth import faults_in
from transferd.config import Limits
from transferd.ledger.audit import Check, Finding, Progress
from transferd.ledger.migrate import create_ledger
from transferd.ledger.store import database as store
from transferd.ledger.store.errors import StoreError


def settings_of(database: Database) -> dict[str, str]:
    """Settings of an audit in a process of its own."""
    settings = database.settings()
    return {
        "database_url": settings.required("database_url"),
        "prepared_statements": str(settings.prepared_statements),
    }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def used(servers: Servers) -> AsyncIterator[str]:
    """The name of a database with traffic, to clone from."""
    name, redis_number = await servers.new_database()
    async with AsyncExitStack() as exits:
        database = Database(name, redis_number, servers)
        await make_traffic(await Replicas(database, exits).start())
    yield name
    await servers.drop_database(name)


@pytest.fixture
async def ledger(servers: Servers, used: str) -> AsyncIterator[Database]:
    """A ledger for one test, with traffic in it."""
    name, redis_number = await servers.new_database(template=used)
    yield Database(name, redis_number, servers)
    await servers.drop_database(name)


async def test_a_ledger_without_traffic_is_sound(database: Database) -> None:
    assert await faults_in(database) == []


async def test_a_ledger_after_traffic_is_sound(ledger: Database) -> None:
    assert await faults_in(ledger) == []


@pytest.mark.parametrize("what", DAMAGES)
async def test_damage_is_found_by_its_name(ledger: Database, what: str) -> None:
    planted = DAMAGES[what]
    if planted.unguarded is not None:
        with pytest.raises(Exception, match=planted.unguarded[1]):
            await ledger.fetch(planted.harm)
        await ledger.fetch("ALTER TABLE {} DROP CONSTRAINT {}".format(*planted.unguarded))
    [[subject]] = await ledger.fetch(planted.harm)
    # In chunks of one row, so that the faults are also found at the borders between chunks.
    for limits in (Limits(), Limits(audit_chunk_rows=1)):
        findings = await faults_in(ledger, limits)
        assert (planted.check, subject) in {(each.check, each.subject) for each in findings}
        assert {each.check for each in findings} == {planted.check, *planted.also}


def test_every_check_has_its_damage() -> None:
    # No row is damaged if the role of the service has a right too many.
    assert {planted.check for planted in DAMAGES.values()} == set(Check) - {Check.RIGHTS}


async def test_a_right_to_change_history_is_found(ledger: Database) -> None:
    await ledger.fetch("GRANT UPDATE ON ledger_00.transfers TO transferd")
    findings = await faults_in(ledger)
    assert {each.check for each in findings} == {Check.RIGHTS}
    assert findings[0].subject.startswith("UPDATE on transfers")
    await ledger.fetch("REVOKE UPDATE ON ledger_00.transfers FROM transferd")
    assert await faults_in(ledger) == []


async def test_a_check_that_finds_too_much_says_so(ledger: Database) -> None:
    await ledger.fetch("UPDATE ledger_00.wallets SET updated_at = '2100-01-01Z'")
    findings = await faults_in(ledger, Limits(audit_findings_per_check_max=3))
    assert [finding.check for finding in findings] == [Check.TIMES] * 4
    assert findings[-1] == Finding(Check.TIMES, "more", "only the first 3 are listed")


async def test_a_check_that_finds_exactly_the_limit_says_nothing_of_more(ledger: Database) -> None:
    await ledger.fetch(DAMAGES["a transfer that is older than the previous version"].harm)
    findings = await faults_in(ledger, Limits(audit_findings_per_check_max=2))
    assert len(findings) == 2
    assert "more" not in {finding.subject for finding in findings}


async def test_progress_goes_up_to_the_end_of_every_step(ledger: Database) -> None:
    reported: dict[str, list[tuple[int, int]]] = {}

    def report_progress(step: str, done: int, total: int) -> None:
        reported.setdefault(step, []).append((done, total))

    await faults_in(ledger, Limits(audit_chunk_rows=2), report_progress)
    assert list(reported) == ["currencies", "wallets", "transfers", "holds", "outcomes"]
    assert reported["transfers"] == [(done, 10) for done in range(0, 11, 2)]
    for steps in reported.values():
        assert steps == sorted(steps)
        assert steps[-1][0] == steps[-1][1] > 0


def at_the_first_wallets(act: Callable[[], None]) -> Progress:
    """Does something in the middle of an audit, once."""
    acted = threading.Event()

    def report_progress(step: str, done: int, total: int) -> None:
        if step == "wallets" and done and not acted.is_set():
            acted.set()
            act()

    return report_progress


def meanwhile(database: Database, sql: str) -> Callable[[], None]:
    """Runs the statement in a thread, because the audit's own loop is busy reporting."""

    def act() -> None:
        thread = threading.Thread(target=lambda: asyncio.run(database.fetch(sql)))
        thread.start()
        thread.join()

    return act


# An audit without its snapshot, and one with the time limits of short transactions.
READ_COMMITTED = store.BEGIN_SNAPSHOT.replace("REPEATABLE READ", "READ COMMITTED")
WITH_TIME_LIMITS = store.BEGIN_SNAPSHOT.split(";")[0]


@pytest.mark.parametrize(("begin", "sees"), [(store.BEGIN_SNAPSHOT, False), (READ_COMMITTED, True)])
async def test_an_audit_does_not_see_later_changes(
    ledger: Database, monkeypatch: pytest.MonkeyPatch, begin: str, sees: bool
) -> None:
    monkeypatch.setattr(store, "BEGIN_SNAPSHOT", begin)
    act = meanwhile(ledger, set_outcome("lunch", "render_version = 99"))
    findings = await faults_in(ledger, progress=at_the_first_wallets(act))
    assert bool(findings) is sees
    assert await faults_in(ledger) != []


@pytest.mark.parametrize(
    ("begin", "lives"), [(store.BEGIN_SNAPSHOT, True), (WITH_TIME_LIMITS, False)]
)
async def test_time_limits_of_the_role_do_not_end_an_audit(
    ledger: Database, monkeypatch: pytest.MonkeyPatch, begin: str, lives: bool
) -> None:
    await ledger.fetch(
        f"ALTER ROLE transferd IN DATABASE {ledger.name}"
        " SET idle_in_transaction_session_timeout = '10ms'"
    )
    monkeypatch.setattr(store, "BEGIN_SNAPSHOT", begin)
    wait = meanwhile(ledger, "SELECT pg_sleep(0.05)")
    auditing_it = faults_in(ledger, progress=at_the_first_wallets(wait))
    if lives:
        assert await auditing_it == []
    else:
        with pytest.raises(StoreError):
            await auditing_it


@pytest.mark.needs_configuration("main", why="the database has no other ledger")
async def test_a_database_without_a_schema_is_an_error(servers: Servers) -> None:
    await servers.as_superuser("CREATE DATABASE blank OWNER transferd")
    try:
        ended = await transferd("ledgers", "audit", database_url=servers.database_url("blank"))
        assert ended.complaint.startswith("the database has no ledger yet")
    finally:
        await servers.drop_database("blank")


# The command

_AUDITS_ALL = pytest.mark.needs_configuration("main", why="the command audits all ledgers")


@_AUDITS_ALL
async def test_the_command_prints_the_counts_of_checked_rows(ledger: Database) -> None:
    ended = await transferd("ledgers", "audit", **settings_of(ledger))
    [[wallets]] = await ledger.fetch("SELECT count(*) FROM ledger_00.wallets")
    assert (ended.code, ended.out, ended.err) == (
        0,
        f"main: no findings: {wallets} wallets, 10 transfers, 18 outcomes\n",
        "",
    )


@_AUDITS_ALL
async def test_a_terminal_shows_the_progress_of_each_step(
    ledger: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    await create_ledger(ledger.settings(), Limits(), "shop")
    ended = await transferd("ledgers", "audit", **settings_of(ledger))
    assert ended.code == 0
    for title in ("main (1 of 2): transfers", "shop (2 of 2): outcomes"):
        assert title in ended.err


@_AUDITS_ALL
async def test_the_command_lists_findings_and_exits_with_1(ledger: Database) -> None:
    [[subject]] = await ledger.fetch(DAMAGES["a limit without its change"].harm)
    await ledger.fetch(set_outcome("house", "key = '[/red]', status = 409"))
    ended = await transferd("ledgers", "audit", **settings_of(ledger))
    assert ended.code == 1
    assert ended.out.startswith("main: 2 findings: ")
    [line] = [line for line in ended.out.splitlines() if "wallet-settings" in line]
    assert subject in line
    assert "overdraft limit 501, but 0 and 500 by its history" in line
    assert "client 1, key [/red]" in ended.out

    as_json = await transferd("ledgers", "audit", "--json", **settings_of(ledger))
    assert as_json.code == 1
    printed = json.loads(as_json.out)
    assert (printed["ledger"], printed["transfers"]) == ("main", 10)
    assert [each["check"] for each in printed["findings"]] == ["wallet-settings", "outcome-body"]
    assert printed["findings"][0]["subject"] == subject


@_AUDITS_ALL
async def test_each_ledger_has_an_audit_of_its_own(ledger: Database) -> None:
    settings = settings_of(ledger)
    for name, number in (("shop", 5), ("bank", 6)):
        await create_ledger(ledger.settings(), Limits(), name, number)
    # In the order of their numbers, or in the order of the arguments, each once.
    for names, checked in (((), ["main", "shop", "bank"]), (("bank", "main", "bank"),) * 2):
        ended = await transferd("ledgers", "audit", *names, **settings)
        *lines, last = ended.out.splitlines()
        expected = list(dict.fromkeys(checked))
        assert (ended.code, [line.split(": ")[0] for line in lines]) == (0, expected)
        assert last == f"{len(expected)} of {len(expected)} ledgers without findings"

    await ledger.fetch("UPDATE ledger_05.wallets SET version = version + 1 WHERE currency = 'EUR'")
    ended = await transferd("ledgers", "audit", "--json", **settings)
    found = {
        each["ledger"]: len(each["findings"])
        for each in map(json.loads, ended.out.split("\n")[:-1])
    }
    assert (ended.code, found["main"], found["bank"]) == (1, 0, 0)
    assert found["shop"] > 0
    assert (await transferd("ledgers", "audit", "bank", **settings)).code == 0


@_AUDITS_ALL
async def test_a_ledger_that_cannot_be_read_does_not_stop_the_audit(ledger: Database) -> None:
    for name, number in (("lost", 5), ("shop", 6)):
        await create_ledger(ledger.settings(), Limits(), name, number)
    await ledger.fetch("DROP SCHEMA ledger_05 CASCADE")
    ended = await transferd("ledgers", "audit", **settings_of(ledger))
    assert ended.code == 1
    assert ended.err.startswith("Error: the ledger lost cannot be read: it has no tables (")
    assert ended.err.count("\n") == 1
    assert [line.split(": ")[0] for line in ended.out.splitlines()] == [
        "main",
        "shop",
        "2 of 3 ledgers without findings",
    ]


@pytest.mark.parametrize(("name", "code"), [("nowhere", 1), ("No Name", 2)])
async def test_no_ledger_is_audited_if_one_is_unknown(
    ledger: Database, name: str, code: int
) -> None:
    ended = await transferd("ledgers", "audit", "main", name, **settings_of(ledger))
    assert (ended.code, ended.out) == (code, "")
