"""Replicas die, restart and change in number behind Nginx under load: no client gets an error."""

import os
import signal
from collections.abc import AsyncIterator
from functools import partial

import pytest
import pytest_asyncio

from tests.conftest import Database
from tests.support.command import alive, run, running
from tests.support.load import Load
from tests.support.servers import Servers
from tests.support.topology import SupervisedReplicas, settings_of, topology
from tests.support.truth import faults_in
from tests.support.waiting import patient_s, until
from transferd.devstack.ports import free_ports

# Tests that share two replicas run on the loop of this file.
shared = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def common(servers: Servers) -> AsyncIterator[Database]:
    """The database of the shared replicas."""
    name, redis_number = await servers.new_database()
    yield Database(name, redis_number, servers)
    await servers.drop_database(name)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def whole(common: Database) -> AsyncIterator[SupervisedReplicas]:
    """Two replicas behind Nginx. Each test but the last one leaves them ready."""
    async with topology(common, 2) as whole:
        yield whole


async def loads(whole: SupervisedReplicas, count: int = 6, *, repeats: bool = False) -> list[Load]:
    """Load from several wallets, which belong to different replicas."""
    bob = await whole.api.wallet()
    found = []
    for _ in range(count):
        ada = await whole.api.wallet(1_000_000)
        load = Load(whole.api, ada, bob, name=ada, repeats=repeats)
        load.start(workers=3)
        found.append(load)
    return found


def has_restarted(whole: SupervisedReplicas, kills: int) -> bool:
    """Whether the supervisor has noticed this many kills."""
    return len(whole.supervisor.lines_with("SIGKILL): starting it again")) == kills


async def more(all_loads: list[Load], transfers: int) -> None:
    """Wait until each has that many more acknowledged."""
    for load in all_loads:
        await load.until_acknowledged(transfers)


async def assert_all_posted_once(all_loads: list[Load], database: Database) -> None:
    """Every answer was a 201, and every transfer is in the ledger once."""
    for load in all_loads:
        await load.stop()
    assert [dict(load.statuses) for load in all_loads] == [
        {201: len(load.acknowledged)} for load in all_loads
    ]
    assert not any(load.unknown for load in all_loads)
    for load in all_loads:
        await load.assert_each_once(database)
    assert await faults_in(database) == []


@shared
async def test_the_wallets_of_a_killed_replica_move_and_no_client_gets_an_error(
    whole: SupervisedReplicas, common: Database
) -> None:
    under_load = await loads(whole)
    await more(under_load, 20)
    for number in (1, 2):
        os.kill(whole.pids()[0], signal.SIGKILL)
        await more(under_load, 20)
        await until(partial(has_restarted, whole, number))
        await whole.until_all_ready()
    await more(under_load, 20)
    await assert_all_posted_once(under_load, common)


@shared
async def test_replicas_restart_one_after_the_other_and_no_client_gets_an_error(
    whole: SupervisedReplicas, common: Database
) -> None:
    before = set(whole.pids())
    under_load = await loads(whole)
    await more(under_load, 20)
    whole.supervisor.send(signal.SIGHUP)
    await whole.supervisor.says("all replicas were restarted")
    assert before.isdisjoint(whole.pids())
    await more(under_load, 20)
    await assert_all_posted_once(under_load, common)


@shared
async def test_replicas_come_and_go_and_no_client_gets_an_error(
    whole: SupervisedReplicas, common: Database
) -> None:
    # An Nginx worker that exits closes its connections, possibly under a request: a client that
    # keeps connections open has to send it again.
    under_load = await loads(whole, repeats=True)
    await more(under_load, 20)
    for count in (1, 2, 1, 2):
        await whole.nginx.reload(whole.addresses[:count])
        await more(under_load, 30)
    # These requests name no wallet, so they reach all replicas; the load may reach only one.
    for _ in range(40):
        assert (await whole.api.get("/currencies")).status == 200
    asked = {row["replica"] for row in whole.nginx.access_log()}
    assert set(whole.addresses) <= asked
    await assert_all_posted_once(under_load, common)


# The supervisor


@shared
async def test_sigterm_stops_all_replicas_in_order(whole: SupervisedReplicas) -> None:
    # The last test of the shared replicas.
    processes = whole.supervisor.processes()
    assert len(processes) == 3
    before = len(whole.supervisor.lines_with('"stopped"'))
    whole.supervisor.send(signal.SIGTERM)
    assert await whole.supervisor.end() == 0
    assert alive(processes) == []
    assert len(whole.supervisor.lines_with('"stopped"')) == before + 2


@pytest.mark.needs_configuration(
    "connections of its own", why="PgBouncer has open connections for a replica that starts"
)
async def test_a_restart_that_fails_leaves_the_other_replicas_alone(database: Database) -> None:
    # The replica that cannot start is tried again often, so that it is ready soon.
    limits = "replica_start_s=1,replica_restart_max_s=0.3"
    async with topology(database, 2, limits=limits) as whole:
        bob = await whole.api.wallet()
        ada = await whole.api.wallet(100)
        # Open connections stay open; a replica that starts cannot connect.
        alter = f"ALTER DATABASE {database.name} ALLOW_CONNECTIONS"
        await database.servers.as_superuser(f"{alter} false")
        whole.supervisor.send(signal.SIGHUP)
        await whole.supervisor.says("is not ready again: the others are not restarted")
        assert (await whole.api.transfer(ada, bob, 1)).status == 201
        await database.servers.as_superuser(f"{alter} true")
        await whole.until_all_ready()


async def test_replicas_do_not_outlive_their_supervisor(database: Database) -> None:
    settings = settings_of(database, free_ports(2))
    async with running("serve", "--processes", "2", settings=settings) as supervisor:
        await until(lambda: len(supervisor.lines_with('"serving"')) == 2, within_s=30)
        processes = supervisor.processes()
        assert len(processes) == 3
        await supervisor.kill()
        await until(lambda: alive(processes) == [], within_s=30)


async def test_a_replica_that_cannot_run_at_all_ends_the_supervisor(database: Database) -> None:
    settings = settings_of(database, free_ports(2)) | {
        "TRANSFERD_DATABASE_URL": "postgresql://nobody@127.0.0.1:9/nothing"
    }
    # Also on a machine on which it takes long to fail.
    settings["TRANSFERD_LIMITS"] += f",replica_stable_s=0.1,replica_start_s={patient_s(30)}"
    code, output = await run("serve", "--processes", "2", settings=settings)
    assert code == 1
    assert "PostgreSQL:" in output
    assert "starting it again" not in output


async def test_processes_need_ports_to_count_up_from(database: Database) -> None:
    code, output = await run("serve", "--processes", "2", settings=settings_of(database, 0))
    assert (code, output.count("\n")) == (1, 1)
    assert "TRANSFERD_PORT" in output
