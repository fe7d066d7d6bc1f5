"""The command line: what cannot run says why in one line; what serves stops in order."""

import asyncio
import json
import re
import signal
import socket
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import aiohttp
import pytest
from click.testing import CliRunner, Result

from tests.conftest import Database
from tests.support.api import Api
from tests.support.command import run, running
from tests.support.contract import ApiWithKey
from tests.support.pressure import held_rows
from tests.support.servers import Servers
from tests.support.waiting import until
from transferd.cli import main

NOBODY = "postgresql://transferd@127.0.0.1:9/transferd"


def invoke(*arguments: str, **settings: str) -> Result:
    """Run in this process, with these settings and no others of the service."""
    settings = {"port": "0"} | settings
    names = ("DATABASE_URL", "REDIS_URL", "AMQP_URL", "PORT", "HOST", "AUTH", "CACHE", "LOG_LEVEL")
    environment = {f"TRANSFERD_{name}": settings.get(name.lower()) for name in names}
    return CliRunner().invoke(main, arguments, env=environment)


def settings_of(database: Database, **changes: str) -> dict[str, str]:
    return database.variables(**changes)


# Help


def test_help_lists_every_command_with_a_sentence() -> None:
    result = invoke("--help")
    assert result.exit_code == 0
    for name in main.commands:
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
        (["serve"], {"auth": "maybe"}, "TRANSFERD_AUTH: Input should be 'on' or 'off'"),
        (["migrate"], {"database_url": "mysql://x"}, "TRANSFERD_DATABASE_URL: Value error, must"),
        (["serve"], {"redis_url": "memcached://x"}, "TRANSFERD_REDIS_URL: Value error, must"),
        (["serve"], {}, "TRANSFERD_DATABASE_URL is not set: set it, or use `transferd dev`"),
        (["migrate"], {}, "TRANSFERD_DATABASE_URL is not set: set it, or use `transferd dev`"),
        (["serve"], {"database_url": NOBODY}, "PostgreSQL: "),
        (["migrate"], {"database_url": NOBODY}, "PostgreSQL: "),
    ],
)
def test_what_is_wrong_is_one_line(
    arguments: list[str], settings: dict[str, str], line: str
) -> None:
    result = invoke(*arguments, **settings)
    assert result.exit_code == 1
    assert result.output.startswith(f"Error: {line}")
    assert result.output.count("\n") == 1


def test_two_invalid_settings_are_listed_together() -> None:
    result = invoke("serve", port="x", auth="maybe")
    assert result.output.count("\n") == 1
    assert "TRANSFERD_PORT: " in result.output
    assert "; TRANSFERD_AUTH: " in result.output


@pytest.fixture
def empty_database(servers: Servers) -> Iterator[dict[str, str]]:
    """Settings with a database without migrations."""
    name, number = asyncio.run(servers.new_database(template="template1"))
    settings = servers.settings(name, number)
    yield {
        "database_url": settings.required("database_url"),
        "redis_url": settings.required("redis_url"),
        "port": "0",
    }
    asyncio.run(servers.drop_database(name))


def test_serve_without_a_ledger_names_the_command_that_makes_one(
    empty_database: dict[str, str],
) -> None:
    result = invoke("serve", **empty_database)
    assert result.exit_code == 1
    assert result.output.startswith("Error: the database has no ledger yet")
    assert result.output.endswith("run `transferd migrate`\n")
    assert result.output.count("\n") == 1


async def test_serve_without_redis_says_so_unless_it_is_turned_off(database: Database) -> None:
    settings = settings_of(database)
    del settings["TRANSFERD_REDIS_URL"]
    code, output = await run("serve", settings=settings)
    assert code == 1
    assert output.splitlines()[-1].startswith("Error: TRANSFERD_REDIS_URL is not set")
    async with running("serve", settings=settings | {"TRANSFERD_CACHE": "false"}) as command:
        await command.says("serving")
        async with aiohttp.ClientSession() as session:
            api = Api(session, command.url)
            reply = await api.get(f"/wallets/{await api.wallet(5)}")
        assert (reply.json["balance"], reply.headers["X-Cache"]) == (5, "bypass")


async def test_a_port_in_use_is_one_line_before_any_server_is_asked() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        settings = {"TRANSFERD_PORT": port, "TRANSFERD_DATABASE_URL": NOBODY}
        code, output = await run("serve", settings=settings)
    assert code == 1
    assert output.splitlines()[-1] == (
        f"Error: cannot listen on 127.0.0.1:{port} (Address already in use): stop what listens"
        " there, or set TRANSFERD_PORT"
    )
    assert "Traceback" not in output


# Serving


async def test_serve_finishes_requests_in_flight_and_stops(database: Database) -> None:
    async with (
        running("serve", settings=settings_of(database)) as command,
        aiohttp.ClientSession() as session,
        asyncio.TaskGroup() as group,
    ):
        await command.says("serving")
        assert command.lines_with("TRANSFERD_AUTH=off: every caller who reaches this port may do")
        api = Api(session, command.url)
        payer, payee = await api.wallet(100), await api.wallet()
        async with held_rows(database, payer):
            calls = [group.create_task(api.transfer(payer, payee, 1)) for _ in range(50)]

            async def all_are_on_their_way() -> bool:
                metrics = (await api.get("/metrics")).body.decode()
                return "transferd_backlog_envelopes 50.0" in metrics

            await until(all_are_on_their_way)
            command.send(signal.SIGTERM)
            await command.says('"draining"')
        assert {(await call).status for call in calls} == {201}
        assert await command.end() == 0, command.output
        assert "Traceback" not in command.output
        assert len(command.lines_with('"stopped"')) == 1
    rows = await database.fetch("SELECT balance FROM ledger_00.wallets WHERE id = $1", payee)
    assert rows[0]["balance"] == 50


async def test_serve_wants_api_keys_unless_that_is_turned_off(database: Database) -> None:
    settings = settings_of(database)
    del settings["TRANSFERD_AUTH"]
    code, output = await run("serve", settings=settings)
    assert code == 1
    assert output.splitlines()[-1] == (
        "Error: there is no usable API key: make one with `transferd keys create --client NAME"
        " --scope SCOPE`, or set TRANSFERD_AUTH=off"
    )
    assert "Traceback" not in output
    words = ("keys", "create", "--client", "shop", "--scope", "admin", "--json")
    code, output = await run(*words, settings=settings)
    assert code == 0
    token = json.loads(output)["token"]
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
async def test_a_stop_while_serve_waits_for_postgresql_is_in_order(
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
            assert command.lines_with("stopping: asked to")
            assert "Traceback" not in command.output
