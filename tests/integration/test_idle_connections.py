"""Ten thousand clients that keep their connections open and ask for nothing."""

import asyncio
import re
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from tests.conftest import Database
from tests.support.api import Api
from tests.support.memory import resident_bytes
from tests.support.pressure import best_s
from tests.support.raw_http import head
from tests.support.topology import topology
from tests.support.waiting import until
from transferd.cli.running import raise_open_files_limit
from transferd.devstack.process import process_tree

_CONNECTIONS = 10_000
# Fewer than listeners queue, so that no SYN is lost and sent again after a second.
_AT_ONCE = 250
# Measured: 9.5 KiB in a replica, 2.5 KiB in Nginx.
_REPLICA_BYTES_MAX = 16 * 1024
_NGINX_BYTES_MAX = 4 * 1024


@pytest.fixture
def many_files() -> Iterator[None]:
    """Room for both ends of the connections; what the test starts inherits it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _CONNECTIONS + 1_000
    assert hard == resource.RLIM_INFINITY or hard >= wanted, "raise the limit: ulimit -Hn 16384"
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def idle_connections(port: int) -> Iterator[None]:
    """Each has sent one request, like a client of a pool, and then nothing."""
    opened: list[socket.socket] = []
    try:
        while len(opened) < _CONNECTIONS:
            fresh = [socket.create_connection(("127.0.0.1", port)) for _ in range(_AT_ONCE)]
            opened += fresh
            for connection in fresh:
                connection.sendall(head("GET", "/healthz"))
            for connection in fresh:
                assert connection.recv(4096).startswith(b"HTTP/1.1 200 OK")
        yield
    finally:
        for connection in opened:
            connection.close()


async def open_connections(api: Api, address: str) -> int:
    """The connections of the replica, except this one."""
    async with api.session.get(f"http://{address}/metrics") as response:
        match = re.search(r"^transferd_connections (\S+)$", await response.text(), re.MULTILINE)
    assert match is not None
    return int(float(match.group(1))) - 1


@pytest.mark.usefixtures("many_files")
async def test_ten_thousand_idle_connections_cost_memory_once_and_slow_no_request(
    database: Database,
) -> None:
    async with topology(database, 1) as whole:
        api, address = whole.api, whole.addresses[0]
        replica = [whole.supervisor.pid]
        assert whole.nginx.process is not None
        nginx = [process.pid for process in process_tree(whole.nginx.process.pid)]
        ada, bob = await api.wallet(10_000), await api.wallet()

        async def pay() -> None:
            assert (await api.transfer(ada, bob, 1)).status == 201

        async def is_as_quick_as_ever() -> bool:
            return await best_s(pay) < 3 * quiet_s

        quiet_s = await best_s(pay)
        direct = int(address.rpartition(":")[2])
        through = urlsplit(api.url).port
        assert through is not None
        peaks: list[int] = []
        for port, pids, bytes_max in (
            (direct, replica, _REPLICA_BYTES_MAX),
            (direct, replica, _REPLICA_BYTES_MAX),
            (through, nginx, _NGINX_BYTES_MAX),
        ):
            before = resident_bytes(*pids)
            opening = idle_connections(port)
            await asyncio.to_thread(opening.__enter__)
            peaks.append(resident_bytes(*pids))
            assert (peaks[-1] - before) / _CONNECTIONS < bytes_max
            if port == direct:
                assert await open_connections(api, address) >= _CONNECTIONS
            # Other clients are as fast as before.
            await until(is_as_quick_as_ever)
            await asyncio.to_thread(opening.__exit__, None, None, None)
            # Nginx keeps a few connections for two seconds.
            await until(lambda: _are_gone(api, address))
        # The second round reuses the memory of the first.
        assert peaks[1] < peaks[0] * 1.1


def test_a_command_raises_its_limit_of_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1_024, hard))
        raise_open_files_limit(2_000)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (2_000, hard)
        # The limit is never lowered, and never set above the hard limit.
        raise_open_files_limit(1_000)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (2_000, hard)
        if hard != resource.RLIM_INFINITY:
            raise_open_files_limit(hard + 1)
            assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def _are_gone(api: Api, address: str) -> bool:
    return await open_connections(api, address) < 100
