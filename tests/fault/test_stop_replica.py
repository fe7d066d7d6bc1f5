"""`transferd serve` as a process is stopped under load."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from tests.conftest import Database
from tests.support.api import Api
from tests.support.command import Command, running
from tests.support.load import Load
from tests.support.truth import faults_in
from tests.support.waiting import until


@asynccontextmanager
async def serving(database: Database) -> AsyncIterator[tuple[Command, Api]]:
    """`transferd serve` as operators run it, and a client of it."""
    async with (
        running("serve", settings=database.variables()) as command,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
    ):
        await command.says('"serving"')
        yield command, Api(session, command.url)


async def test_sigterm_under_load_answers_on_open_connections_and_loses_no_request(
    database: Database,
) -> None:
    async with serving(database) as (replica, api):
        ada, bob = await api.wallet(1_000_000), await api.wallet()
        address = api.url.removeprefix("http://").split(":")
        kept = [await asyncio.open_connection(address[0], int(address[1])) for _ in range(2)]
        for reader, writer in kept:
            writer.write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
            await reader.readuntil(b'{"status":"ready"}')
        load = Load(api, ada, bob)
        load.start(workers=16)
        await load.until_acknowledged(300)
        before = set(load.acknowledged)
        replica.send(signal.SIGTERM)
        await replica.says('"draining"')
        with pytest.raises(aiohttp.ClientConnectorError):
            await until(lambda: _is_closed(address))
        # The connections that were open before are still served.
        requests = [
            (b"GET /readyz HTTP/1.1", b"HTTP/1.1 503 Service Unavailable\r\n"),
            (f"GET /wallets/{ada} HTTP/1.1".encode(), b"HTTP/1.1 200 OK\r\n"),
        ]
        for (reader, writer), (request, status) in zip(kept, requests, strict=True):
            writer.write(request + b"\r\nHost: localhost\r\n\r\n")
            assert await reader.readline() == status
            answer = await reader.read()
            assert b"connection: close\r\n" in answer.lower()
            writer.close()
            await writer.wait_closed()
        await load.stop()
        assert await replica.end() == 0
        assert replica.lines_with('"stopped"')
        assert "Traceback" not in replica.output
    # After the signal some requests were answered, then connections were refused; never a 5xx.
    assert set(load.statuses) == {201}
    assert load.acknowledged > before
    await load.assert_each_once(database)
    [row] = await database.fetch("SELECT balance FROM ledger_00.wallets WHERE id = $1", bob)
    assert row["balance"] == len(load.acknowledged)
    assert await faults_in(database) == []


async def _is_closed(address: list[str]) -> bool:
    async with aiohttp.ClientSession() as session, session.get(f"http://{':'.join(address)}/"):
        return False
