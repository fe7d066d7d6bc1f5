"""The command line: an error is one line, and a command that serves stops in order."""

import asyncio
import json
import re
import signal
import socket
from importlib.metadata import version
from pathlib import Path

import aiohttp
import click
import pytest
from click.testing import CliRunner, Result

from tests.conftest import Database
from tests.support.api import Api
from tests.support.command import running, transferd
from tests.support.contract import ApiWithKey
from tests.support.pressure import held_rows
from tests.support.waiting import until
from transferd.cli import main

UNREACHABLE = "postgresql://transferd@127.0.0.1:9/transferd"


def invoke(*arguments: str, **settings: str) -> Result:
    """Run in this process, with these settings and no others of the service."""
    settings = {"port": "0", "worker_port": "0"} | settings
    names = ("DATABASE_URL", "REDIS_URL", "AMQP_URL", "PORT", "WORKER_PORT", "HOST", "AUTH")
    environment = {
        f"TRANSFERD_{name}": settings.get(name.lower()) for name in (*names, "CACHE", "LOG_LEVEL")
    }
    return CliRunner().invoke(main, arguments, env=environment)


# Help


def test_help_lists_every_command_with_a_sentence() -> None:
    result = invoke("--help")
    assert result.exit_code == 0
    for name in main.list_commands(click.Context(main)):
        assert re.search(rf"^  {name} +[A-Z].*", result.output, re.MULTILINE), name
        assert invoke(name, "--help").exit_code == 0
    assert invoke("-h").output == result.output


def test_the_version_is_the_one_of_the_package() -> None:
    assert version("transferd") in invoke("--version").output


@pytest.mark.parametrize("arguments", [["fly"], ["serve", "--prot", "1"], ["dev", "extra"]])
def test_unknown_commands_and_options_are_usage_errors(arguments: list[str]) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert "Usage: " in result.output


# One line


@pytest.mark.parametrize(
    ("arguments", "settings", "line"),
    [
        (["serve"], {"port": "x"}, "TRANSFERD_PORT: Input should be a valid integer"),
        (["serve"], {"port": "65536"}, "TRANSFERD_PORT: Input should be less than or equal to"),
        (["dev"], {"log_level": "LOUD"}, "TRANSFERD_LOG_LEVEL: Input should be 'DEBUG', 'INFO'"),
        (["migrate"], {"database_url": "mysql://x"}, "TRANSFERD_DATABASE_URL: Value error, must"),
        (["serve"], {"redis_url": "memcached://x"}, "TRANSFERD_REDIS_URL: Value error, must"),
        (["serve"], {"port": "x", "auth": "maybe"}, "; TRANSFERD_AUTH: Input should be 'on' or"),
        (["worker"], {"database_url": UNREACHABLE}, "TRANSFERD_AMQP_URL is not set"),
    ],
)
def test_an_invalid_setting_is_one_line(
    arguments: list[str], settings: dict[str, str], line: str
) -> None:
    result = invoke(*arguments, **settings)
    assert result.exit_code == 1
    assert result.output.startswith("Error: ")
    assert line in result.output
    assert result.output.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        "migrate",
        *("ledgers audit", "ledgers create shop", "ledgers list", "ledgers show main"),
        "ledgers forget-cache main",
        "serve",
        *("worker", "worker --only relay", "worker --only notifier"),
        *("keys create --client shop --scope admin", "keys list", "keys revoke one"),
        *("dead-letters list", "dead-letters redrive --all", "dead-letters purge --all --yes"),
        "dead-letters show 00000000-0000-4000-8000-000000000001",
    ],
)
def test_a_command_without_its_database_prints_one_line(
    empty_database: str, arguments: str
) -> None:
    others = {"amqp_url": "amqp://127.0.0.1:9/", "redis_url": "redis://127.0.0.1:9/0"}
    for url, line in (
        ("", "TRANSFERD_DATABASE_URL is not set: set it, or use `transferd dev`"),
        (UNREACHABLE, "PostgreSQL: "),
        (empty_database, "the database has no ledger yet"),
    ):
        if arguments == "migrate" and url == empty_database:
            continue
        given = {"database_url": url} if url else {}
        result = invoke(*arguments.split(), **others, **given)
        assert result.exit_code == 1
        [complaint] = [each for each in result.output.splitlines() if each.startswith("Error: ")]
        # These commands do not look for the ledger first.
        is_query = url == empty_database and arguments.startswith("dead-letters")
        assert complaint.startswith("Error: PostgreSQL: " if is_query else f"Error: {line}")
        assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("missing", "line"),
    [
        ("TRANSFERD_REDIS_URL", "TRANSFERD_REDIS_URL is not set"),
        (
            "TRANSFERD_AUTH",
            "there is no usable API key: make one with `transferd keys create --client NAME"
            " --scope SCOPE`, or set TRANSFERD_AUTH=off",
        ),
    ],
)
def test_serve_names_the_setting_that_it_needs(database: Database, missing: str, line: str) -> None:
    result = CliRunner().invoke(main, ["serve"], env=database.variables() | {missing: None})
    assert result.exit_code == 1
    assert result.output.splitlines()[-1].startswith(f"Error: {line}")
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("arguments", "variable", "remedy"),
    [
        (["serve"], "TRANSFERD_PORT", "set TRANSFERD_PORT"),
        (["worker"], "TRANSFERD_WORKER_PORT", "set TRANSFERD_WORKER_PORT"),
        (["dev"], "TRANSFERD_PORT", "choose another port with --port"),
        (["dev", "--port"], "", "choose another port with --port"),
    ],
)
def test_a_port_in_use_is_one_line_before_any_connection_and_any_server(
    tmp_path: Path, arguments: list[str], variable: str, remedy: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        given = {} if arguments[0] == "dev" else {"TRANSFERD_DATABASE_URL": UNREACHABLE}
        given |= {"TRANSFERD_AMQP_URL": "amqp://127.0.0.1:9/"}
        given |= {"TRANSFERD_DATA_DIR": str(tmp_path / "data")}
        words = arguments if variable else [*arguments, port]
        env = given | ({variable: port} if variable else {})
        result = CliRunner().invoke(main, words, env=env)
    assert result.exit_code == 1
    assert result.output.splitlines() == [
        f"Error: cannot listen on 127.0.0.1:{port} (Address already in use): stop the program that"
        f" uses it, or {remedy}"
    ]
    assert list(tmp_path.iterdir()) == []


async def test_serve_works_without_redis_if_the_cache_is_off(database: Database) -> None:
    settings = database.variables(TRANSFERD_CACHE="false")
    del settings["TRANSFERD_REDIS_URL"]
    async with (
        running("serve", settings=settings) as command,
        aiohttp.ClientSession() as session,
    ):
        await command.says("serving")
        api = Api(session, command.url)
        reply = await api.get(f"/wallets/{await api.wallet(5)}")
    assert (reply.json["balance"], reply.headers["X-Cache"]) == (5, "bypass")


# Serving


async def test_serve_finishes_requests_in_flight_and_stops(database: Database) -> None:
    async with (
        running("serve", settings=database.variables()) as command,
        aiohttp.ClientSession() as session,
        asyncio.TaskGroup() as group,
    ):
        await command.says("serving")
        assert command.lines_with("TRANSFERD_AUTH=off: every caller who reaches this port has all")
        api = Api(session, command.url)
        payer, payee = await api.wallet(100), await api.wallet()
        async with held_rows(database, payer):
            calls = [group.create_task(api.transfer(payer, payee, 1)) for _ in range(50)]

            async def all_are_in_flight() -> bool:
                metrics = (await api.get("/metrics")).body.decode()
                return "transferd_backlog_envelopes 50.0" in metrics

            await until(all_are_in_flight)
            command.send(signal.SIGTERM)
            await command.says('"draining"')
        assert {(await call).status for call in calls} == {201}
        assert await command.end() == 0, command.output
        assert "Traceback" not in command.output
        assert len(command.lines_with('"stopped"')) == 1
    rows = await database.fetch("SELECT balance FROM ledger_00.wallets WHERE id = $1", payee)
    assert rows[0]["balance"] == 50


async def test_serve_answers_requests_with_an_api_key(database: Database) -> None:
    settings = database.variables()
    del settings["TRANSFERD_AUTH"]
    words = ("keys", "create", "--client", "shop", "--scope", "admin", "--json")
    made = await transferd(*words, database_url=settings["TRANSFERD_DATABASE_URL"])
    assert made.code == 0
    token = json.loads(made.out)["token"]
    async with (
        running("serve", settings=settings) as command,
        aiohttp.ClientSession() as session,
    ):
        await command.says("serving")
        assert not command.lines_with("TRANSFERD_AUTH=off")
        api = Api(session, command.url)
        assert (await api.post("/users", {})).code == "unauthenticated"
        assert (await ApiWithKey(api, token).post("/users", {})).status == 201
        # Neither output nor log has the token.
        assert token not in command.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_serve_stops_in_order_while_it_waits_for_postgresql(
    tmp_path: Path, number: signal.Signals
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.setblocking(False)
        port = silent.getsockname()[1]
        settings = {
            "TRANSFERD_DATABASE_URL": f"postgresql://transferd@127.0.0.1:{port}/transferd",
            "TRANSFERD_REDIS_URL": "redis://127.0.0.1:9/0",
        }
        async with running("serve", settings=settings) as command:
            connection, _ = await asyncio.get_running_loop().sock_accept(silent)
            with connection:
                command.send(number)
                assert await command.end() == 0
            assert command.lines_with("stopping: signal received")
            assert "Traceback" not in command.output
