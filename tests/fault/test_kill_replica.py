"""`transferd serve` as a process of its own: killed under load, and stopped in order under load."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import orjson
import pytest

from tests.conftest import Database
from tests.support.api import Api
from tests.support.load import Load
from tests.support.truth import faults_in
from tests.support.waiting import until

_COMMAND = [sys.executable, "-c", "from transferd.cli import main; main()", "serve"]


class Serving:
    """A running `transferd serve`; its lines go to `log`."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, session: aiohttp.ClientSession):
        self.process = process
        self.log = log
        self._session = session

    def said(self, event: str) -> dict[str, str] | None:
        """The first line of its log about that event."""
        for line in self.log.read_bytes().splitlines():
            if line.startswith(b"{") and orjson.loads(line).get("event") == event:
                fields: dict[str, str] = orjson.loads(line)
                return fields
        return None

    async def api(self) -> Api:
        """A client of it, as soon as it serves."""
        await until(lambda: self.said("serving") is not None or self.process.poll() is not None)
        serving = self.said("serving")
        assert serving is not None, self.log.read_text()
        return Api(self._session, serving["url"])

    async def exit_code(self) -> int:
        """Wait until it has ended."""
        await until(lambda: self.process.poll() is not None, within_s=30)
        return self.process.wait()


def _started(environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(_COMMAND, env=environment, stdout=output, stderr=output)


@asynccontextmanager
async def serving(database: Database, log: Path) -> AsyncIterator[Serving]:
    """Start it with the environment of an operator; kill it at the end if it still runs."""
    process = _started(os.environ | database.variables(), log)
    try:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            yield Serving(process, log, session)
    finally:
        process.kill()
        process.wait()


async def test_a_replica_that_is_killed_under_load_loses_nothing_it_has_acknowledged(
    database: Database, tmp_path: Path
) -> None:
    async with serving(database, tmp_path / "first.log") as first:
        api = await first.api()
        ada, bob = await api.wallet(1_000_000), await api.wallet()
        load = Load(api, ada, bob)
        load.start(workers=16)
        await load.until_acknowledged(300)
        first.process.kill()
        assert await first.exit_code() == -signal.SIGKILL
        await load.stop()
    assert set(load.statuses) == {201}
    # Each worker was cut off in the middle.
    assert len(load.unknown) >= 16
    await load.assert_each_once(database)
    async with serving(database, tmp_path / "second.log") as second:
        api = await second.api()
        # Claims that the killed replica left in Redis only delay.
        await load.settle(api)
        assert load.unknown == set()
        await load.assert_each_once(database)
        assert await api.balance(bob) == len(load.acknowledged)
    assert await faults_in(database) == []


async def test_sigterm_under_load_answers_every_request_and_exits_with_0(
    database: Database, tmp_path: Path
) -> None:
    async with serving(database, tmp_path / "replica.log") as replica:
        api = await replica.api()
        ada, bob = await api.wallet(1_000_000), await api.wallet()
        load = Load(api, ada, bob)
        load.start(workers=16)
        await load.until_acknowledged(300)
        before = set(load.acknowledged)
        replica.process.send_signal(signal.SIGTERM)
        assert await replica.exit_code() == 0
        await load.stop()
        assert replica.said("draining") is not None
        assert replica.said("stopped") is not None
        assert b"Traceback" not in replica.log.read_bytes()
    # After the signal: answers, then refused connections, never a 5xx.
    assert set(load.statuses) == {201}
    assert load.acknowledged > before
    await load.assert_each_once(database)
    [row] = await database.fetch("SELECT balance FROM ledger_00.wallets WHERE id = $1", bob)
    assert row["balance"] == len(load.acknowledged)
    assert await faults_in(database) == []


async def test_a_draining_replica_still_answers_on_open_connections(
    database: Database, tmp_path: Path
) -> None:
    async with serving(database, tmp_path / "replica.log") as replica:
        api = await replica.api()
        wallet = await api.wallet(100)
        address = api.url.removeprefix("http://").split(":")
        kept = [await asyncio.open_connection(address[0], int(address[1])) for _ in range(2)]
        for reader, writer in kept:
            writer.write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
            await reader.readuntil(b'{"status":"ready"}')
        replica.process.send_signal(signal.SIGTERM)
        await until(lambda: replica.said("draining") is not None)
        with pytest.raises(aiohttp.ClientConnectorError):
            await until(lambda: _is_closed(address))
        requests = [
            (b"GET /readyz HTTP/1.1", b"HTTP/1.1 503 Service Unavailable\r\n"),
            (f"GET /wallets/{wallet} HTTP/1.1".encode(), b"HTTP/1.1 200 OK\r\n"),
        ]
        for (reader, writer), (request, status) in zip(kept, requests, strict=True):
            writer.write(request + b"\r\nHost: localhost\r\n\r\n")
            assert await reader.readline() == status
            answer = await reader.read()
            assert b"connection: close\r\n" in answer.lower()
            writer.close()
            await writer.wait_closed()
        assert await replica.exit_code() == 0


async def _is_closed(address: list[str]) -> bool:
    async with aiohttp.ClientSession() as session, session.get(f"http://{':'.join(address)}/"):
        return False
