"""`transferd dev` as a process: it starts its servers and leaves nothing behind."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from standardwebhooks import Webhook as Verifier

from tests.conftest import Database, Workers
from tests.support.api import Api
from tests.support.command import Command, alive, run, running, working_in
from tests.support.pressure import held_rows
from tests.support.readme_walk import README_URL, printed_walk, walk_in, walk_moves_money
from tests.support.receivers import Receiver, receiving
from tests.support.truth import faults_in, row_count
from tests.support.waiting import patient_s, until
from transferd.devstack import find_rabbitmq
from transferd.devstack.ports import free_port
from transferd.devstack.process import Process

READY = "Ctrl-C stops everything."

# As on a machine without RabbitMQ, which is searched for in more places than the PATH.
WITHOUT_RABBITMQ = (
    "from transferd import cli, devstack; devstack.find_rabbitmq = lambda: None; cli.main()"
)


def settings(directory: Path, **changes: str) -> dict[str, str]:
    """An environment with its own data directory and any free port.

    Nothing listens at the AMQP URL, because a private RabbitMQ takes seconds to start.
    """
    return {
        "TRANSFERD_DATA_DIR": str(directory / "data"),
        "TRANSFERD_PORT": "0",
        "TRANSFERD_AMQP_URL": "amqp://127.0.0.1:9/",
    } | changes


def given_servers(database: Database) -> dict[str, str]:
    """The variables that replace private servers by the servers of the test run."""
    given = database.settings()
    return {
        "TRANSFERD_DATABASE_URL": given.required("database_url"),
        "TRANSFERD_REDIS_URL": given.required("redis_url"),
    }


@asynccontextmanager
async def client(command: Command) -> AsyncIterator[Api]:
    async with aiohttp.ClientSession() as session:
        yield Api(session, command.url)


def entries(directory: Path) -> list[Path]:
    return list(directory.iterdir())


async def stopped(command: Command, number: signal.Signals) -> list[Process]:
    """Signal it and check its exit; the processes that it had."""
    processes = command.processes()
    command.send(number)
    assert await command.end() == 0, command.output
    assert command.lines_with("stopping: ") == ["stopping: signal received"]
    assert "Traceback" not in command.output
    return processes


# Start, use and stop


async def test_everything_starts_serves_and_stops(tmp_path: Path, database: Database) -> None:
    environment = settings(tmp_path)
    del environment["TRANSFERD_AMQP_URL"]
    async with running("dev", settings=environment) as command:
        await command.says(READY)
        for server in ("PostgreSQL", "Redis", "RabbitMQ"):
            if server != "RabbitMQ" or find_rabbitmq() is not None:
                assert command.pid_of(server) in {each.pid for each in command.processes()}
        for shown in ("postgresql://", "redis://", f"data           {tmp_path / 'data'}"):
            assert command.lines_with(shown), command.output
        async with client(command) as api:
            for path in ("/readyz", "/docs", "/metrics"):
                assert (await api.get(path)).status == 200
                assert path == "/readyz" or command.lines_with(f"{command.url}{path}")

        walk = printed_walk(command.output)
        assert walk.replace(command.url, README_URL) == walk_in()
        await walk_moves_money(walk)

        # A second run on the same data is one line. Only its Redis would be private.
        given = given_servers(database)
        del given["TRANSFERD_REDIS_URL"]
        code, output = await run("dev", settings=settings(tmp_path, **given))
        assert code == 1
        [line] = output.splitlines()
        assert line.startswith("Error: Redis is already running on ")
        assert f"process {command.pid_of('Redis')}" in line

        processes = await stopped(command, signal.SIGINT)
        assert alive(processes) == []
        assert working_in(tmp_path) == []
        log = tmp_path / "data/postgresql/postgresql.log"
        assert "database system is shut down" in log.read_text()


# Stops at other moments


@pytest.mark.parametrize(
    ("number", "moment"),
    [
        (
            signal.SIGINT,
            lambda directory, _: any(directory.glob("data-*/postgresql/data.unfinished")),
        ),
        (signal.SIGTERM, lambda _, command: "PostgreSQL" in command.output),
        (signal.SIGINT, lambda _, command: "applied" in command.output),
    ],
    ids=["while PostgreSQL is set up", "while it migrates", "while it creates example data"],
)
async def test_a_signal_during_the_start_stops_everything_and_removes_the_data(
    tmp_path: Path, number: signal.Signals, moment: Callable[[Path, Command], bool]
) -> None:
    arguments = ("dev", "--ephemeral", "--demo")
    async with running(*arguments, settings=settings(tmp_path)) as command:
        await until(lambda: moment(tmp_path, command))
        assert alive(await stopped(command, number)) == []
        assert READY not in command.output
    assert working_in(tmp_path) == []
    assert entries(tmp_path) == []


async def test_a_further_ctrl_c_ends_the_command_at_once(
    tmp_path: Path, database: Database
) -> None:
    environment = settings(tmp_path, **given_servers(database))
    # Only another Ctrl-C ends the wait for a transfer in time.
    limits = database.variables()["TRANSFERD_LIMITS"]
    environment["TRANSFERD_LIMITS"] = f"{limits},drain_timeout_s={patient_s(30)}"
    async with running("dev", settings=environment) as command, asyncio.TaskGroup() as group:
        await command.says(READY)
        async with client(command) as api:
            payer, payee = await api.wallet(100), await api.wallet()
            async with held_rows(database, payer):
                transfer = group.create_task(refused_connection(api, payer, payee))

                async def it_waits() -> bool:
                    metrics = (await api.get("/metrics")).body.decode()
                    return "transferd_backlog_envelopes 1.0" in metrics

                await until(it_waits)
                command.send(signal.SIGINT)
                await command.says("stopping: signal received")
                # The command waits for the transfer, which waits for the lock.
                assert command.is_running
                await until(lambda: ended_by_another_ctrl_c(command), within_s=3.0)
                await transfer


def ended_by_another_ctrl_c(command: Command) -> bool:
    if command.is_running:
        command.send(signal.SIGINT)
    return not command.is_running


async def refused_connection(api: Api, payer: str, payee: str) -> None:
    with pytest.raises(aiohttp.ClientError):
        await api.transfer(payer, payee, 1)


async def test_a_server_that_ends_stops_everything(tmp_path: Path) -> None:
    async with running("dev", settings=settings(tmp_path)) as command:
        await command.says(READY)
        processes = command.processes()
        os.kill(command.pid_of("Redis"), signal.SIGKILL)
        assert await command.end() == 1
        [line] = command.lines_with("stopping: ")
        assert line.startswith("stopping: Redis ended by itself with exit code -9 (SIGKILL)")
        assert "Traceback" not in command.output
        assert alive(processes) == []
    assert working_in(tmp_path) == []


# Options


async def test_demo_creates_example_data(tmp_path: Path, database: Database) -> None:
    environment = settings(tmp_path, **given_servers(database))
    async with running("dev", "--demo", settings=environment) as command:
        await command.says(READY)
        assert [len(command.lines_with(f" {step}/{step} ")) for step in (10, 30, 3000)] == [1, 1, 1]
        # The initial balances of the 30 wallets are transfers as well.
        assert await row_count(database, "ledger_00.transfers") == 3_030
        assert await faults_in(database) == []
        await stopped(command, signal.SIGINT)


async def webhook_to(api: Api, receiver: Receiver, wallet: str) -> str:
    """The secret of a new webhook for transfers of a wallet."""
    reply = await api.post(
        "/webhooks", {"url": receiver.url, "events": ["transfer.posted"], "wallet_id": wallet}
    )
    assert reply.status == 201, reply
    secret: str = reply.json["secret"]
    return secret


async def test_given_servers_replace_private_ones_and_the_option_port_the_variable(
    tmp_path: Path, database: Database, workers: Workers
) -> None:
    given = given_servers(database)
    port = free_port()
    environment = settings(tmp_path, **given, TRANSFERD_PORT="1") | {
        "TRANSFERD_AMQP_URL": workers.amqp_url,
        "TRANSFERD_AMQP_PREFIX": workers.settings().amqp_prefix,
    }
    async with (
        receiving() as receiver,
        running("dev", "--port", str(port), settings=environment) as command,
    ):
        await command.says(READY)
        assert command.url == f"http://127.0.0.1:{port}"
        assert [process.pid for process in command.processes()] == [command.pid]
        for shown in (*given.values(), "RabbitMQ       amqp://guest:***@127.0.0.1:"):
            assert command.lines_with(shown)
        async with client(command) as api:
            payer, payee = await api.wallet(100), await api.wallet()
            secret = await webhook_to(api, receiver, payee)
            transfer = (await api.transfer(payer, payee, 40)).json
            await until(lambda: receiver.event_ids() == [transfer["id"]])
        await stopped(command, signal.SIGTERM)
    [request] = receiver.received
    event = Verifier(secret).verify(request.body.decode(), request.headers)
    assert event["type"] == "transfer.posted"
    assert (event["data"]["amount"], event["data"]["destination_wallet_id"]) == (40, payee)
    rows = await database.fetch("SELECT balance FROM ledger_00.wallets WHERE id = $1", payee)
    assert [row["balance"] for row in rows] == [40]
    assert not (tmp_path / "data").exists()


async def test_without_redis_and_rabbitmq_the_command_works_and_reports_it(
    tmp_path: Path, database: Database
) -> None:
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    environment = settings(tmp_path, **given_servers(database), PATH=str(nothing))
    del environment["TRANSFERD_REDIS_URL"]
    del environment["TRANSFERD_AMQP_URL"]
    program = (sys.executable, "-c", WITHOUT_RABBITMQ)
    async with (
        receiving() as receiver,
        running("dev", settings=environment, program=program) as command,
    ):
        await command.says(READY)
        assert (
            len(command.lines_with("RabbitMQ is NOT INSTALLED: events are delivered within this"))
            == 1
        )
        assert command.lines_with("RabbitMQ       none: events are delivered within this process")
        assert command.lines_with("fakeredis")
        async with client(command) as api:
            payer, payee = await api.wallet(100), await api.wallet()
            await webhook_to(api, receiver, payee)
            first = await api.transfer(payer, payee, 40, key="lunch")
            second = await api.transfer(payer, payee, 40, key="lunch")
            assert (second.status, second.body) == (201, first.body)
            assert second.headers["Idempotent-Replayed"] == "true"
            metrics = (await api.get("/metrics")).body.decode()
            assert 'transferd_idempotency_keys_total{state="replayed"} 1.0' in metrics
            assert (await api.get(f"/wallets/{payee}")).headers["X-Cache"] == "hit"
            assert await api.balance(payee) == 40
            await until(lambda: receiver.event_ids() == [first.json["id"]])
        await stopped(command, signal.SIGINT)
    assert working_in(tmp_path) == []
