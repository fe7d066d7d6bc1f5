"""Event streams as connections: their number, their duration and their ends."""

import asyncio
import signal
import socket
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import datetime
from urllib.parse import urlsplit

import aiohttp
import pytest

from tests.conftest import Database, Replicas
from tests.support.api import Api
from tests.support.command import running
from tests.support.events import Event, Stream, following, until_streams, versions
from tests.support.home import fetch_at_home
from tests.support.pressure import counted
from tests.support.waiting import SLOWNESS, patient_s, until
from transferd.config import Limits
from transferd.ledger.store.queries import query
from transferd.service import open_replica

_QUICK = Limits(stream_poll_s=0.02)


async def test_a_silent_stream_has_a_heartbeat(replicas: Replicas) -> None:
    api = await replicas.start(Limits(stream_heartbeat_s=0.05))
    ada, bob = await api.wallet(5), await api.wallet()
    async with following(api, ada) as stream:
        for _ in range(3):
            block = await stream.block()
            assert block is not None
            assert (block.fields, block.comments) == ([], ["heartbeat"])
        await api.transfer(ada, bob, 1)
        assert (await stream.event()).version == 2


async def test_head_of_a_stream_ends(replicas: Replicas) -> None:
    api = await replicas.start()
    ada = await api.wallet()
    async with asyncio.timeout(patient_s(5)):
        head = await api.call("HEAD", f"/wallets/{ada}/events")
    assert (head.status, head.body) == (200, b"")
    async with following(api, ada) as stream:
        own = {"date", "x-request-id", "traceparent", "transfer-encoding", "connection"}
        for name, value in stream.headers.items():
            if name.lower() not in own:
                assert head.headers[name] == value
    assert len(replicas.opened[0].context.streams) <= 1


async def test_streams_above_the_limit_are_refused(replicas: Replicas) -> None:
    api = await replicas.start(Limits(streams_max=2, stream_poll_s=0.02))
    ada, bob = await api.wallet(5), await api.wallet()
    path = f"/wallets/{ada}/events"
    async with following(api, ada), following(api, bob) as second:
        assert counted(replicas, "transferd_event_streams") == 2
        refused = await api.get(path)
        assert (refused.status, refused.code) == (503, "overloaded")
        assert refused.headers["Retry-After"] == "1"
        # Open streams continue, and a HEAD request does not count as a stream.
        assert (await api.call("HEAD", path)).status == 200
        await api.transfer(ada, bob, 1)
        assert (await second.event()).version == 1
    await until_streams(replicas, 0)
    async with following(api, ada) as stream:
        assert stream.status == 200


async def test_a_disconnected_client_frees_its_stream(replicas: Replicas) -> None:
    # Long before the next heartbeat.
    api = await replicas.start(_QUICK)
    ada = await api.wallet()
    async with following(api, ada):
        await until_streams(replicas, 1)
    await until_streams(replicas, 0)


async def test_the_stream_of_a_client_that_does_not_read_is_closed(replicas: Replicas) -> None:
    api = await replicas.start(Limits(stream_poll_s=0.02, stream_send_timeout_s=0.2))
    ada, bob = await api.wallet(10_000), await api.wallet()
    received: list[Event] = []

    async def read(stream: Stream) -> None:
        while True:
            received.append(await stream.event())

    address = urlsplit(api.url)
    assert address.hostname is not None
    with socket.socket() as lazy:
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        lazy.connect((address.hostname, address.port))
        head = f"GET /wallets/{ada}/events HTTP/1.1\r\nHost: x\r\nLast-Event-ID: 0\r\n\r\n"
        lazy.sendall(head.encode())
        async with following(api, ada, last=0) as stream, asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(read(stream))
            await until_streams(replicas, 2)
            thick = {"text": "x" * 4_000}
            # More than the kernel buffers for a connection.
            for _ in range(60):
                await asyncio.gather(
                    *(api.transfer(ada, bob, 1, metadata=thick) for _ in range(50))
                )
                if counted(replicas, "transferd_event_streams") == 1:
                    break
            await until_streams(replicas, 1)
            # The client that reads has received every event.
            last = (await api.get(f"/wallets/{ada}")).json["version"]
            await until(lambda: len(received) >= last)
            reading.cancel()
    assert versions(received) == list(range(1, last + 1))


async def test_a_drain_ends_streams_and_another_replica_resumes_them(
    database: Database, replicas: Replicas
) -> None:
    # A drain that waits for streams would take this long.
    limits = replace(_QUICK, drain_timeout_s=patient_s(30))
    other = await replicas.start(_QUICK)
    ada, bob = await other.wallet(100), await other.wallet()
    async with AsyncExitStack() as exits:
        leaving = await exits.enter_async_context(
            open_replica(database.settings(), database.limits(limits), drain_linger_s=0.0)
        )
        api = Api(other.session, leaving.url)
        async with following(api, ada) as stream, following(api, bob) as silent:
            await other.transfer(ada, bob, 1)
            version = (await stream.event()).version
            assert (await silent.event()).version == 1
            async with asyncio.timeout(limits.drain_timeout_s / 2):
                await exits.aclose()
            # The answer is complete.
            assert await stream.rest() == await silent.rest() == []
    await other.transfer(ada, bob, 1)
    async with following(other, ada, last=version) as stream:
        assert (await stream.event()).version == version + 1


async def test_serve_ends_its_streams_when_it_is_asked_to_stop(database: Database) -> None:
    variables = database.variables()
    variables["TRANSFERD_LIMITS"] += f",nginx_keepalive_s=0.5,drain_linger_s={SLOWNESS}"
    async with (
        running("serve", settings=variables) as command,
        aiohttp.ClientSession() as session,
    ):
        await command.says("http://127.0.0.1:")
        api = Api(session, command.url)
        ada, bob = await api.wallet(100), await api.wallet()
        async with following(api, ada) as stream, following(api, bob):
            await api.transfer(ada, bob, 1)
            assert (await stream.event()).version == 2
            command.send(signal.SIGTERM)
            assert await stream.rest() == []
            # While it still lingers for other connections.
            assert command.is_running
            assert not command.lines_with('"stopped"')
        assert await command.end() == 0
    assert "Traceback" not in command.output
    assert command.lines_with('"stopped"')


async def test_a_draining_replica_opens_no_stream(replicas: Replicas) -> None:
    api = await replicas.start()
    ada = await api.wallet()
    replicas.opened[0].context.streams.close()
    refused = await api.get(f"/wallets/{ada}/events")
    assert (refused.status, refused.code) == (503, "draining")
    assert refused.headers["Retry-After"] == "1"


async def test_streams_survive_an_outage_of_the_database(
    replicas: Replicas, database: Database
) -> None:
    api = await replicas.start(Limits(stream_poll_s=0.02, stream_heartbeat_s=0.1))
    ada, bob = await api.wallet(100), await api.wallet()
    async with following(api, ada) as stream:
        await api.transfer(ada, bob, 1)
        server, name = database.servers, database.name
        await server.as_superuser(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await server.as_superuser(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        )
        events = []
        for _ in range(6):
            block = await stream.block()
            assert block is not None
            events += [block] if block.fields else []
        await server.as_superuser(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        assert (await api.transfer(ada, bob, 1)).status == 201
        events += await stream.until_version(3)
    assert versions(events) == [2, 3]


async def test_the_duration_of_a_stream_request_ends_at_the_first_byte(
    replicas: Replicas,
) -> None:
    api = await replicas.start(Limits(stream_heartbeat_s=0.2))
    ada = await api.wallet()
    name = "http_server_request_duration_seconds"

    def counted_of_stream(sample: str) -> float:
        return counted(
            replicas,
            f"{name}_{sample}",
            http_request_method="GET",
            http_route="/wallets/{id}/events",
            http_response_status_code="200",
        )

    clock = asyncio.get_running_loop().time
    began_s = clock()
    async with following(api, ada) as stream:
        assert counted_of_stream("count") == 1
        for _ in range(3):
            await stream.block()
    took_s = clock() - began_s
    await until_streams(replicas, 0)
    assert counted_of_stream("count") == 1
    # Less than the two heartbeat intervals between the three blocks.
    assert counted_of_stream("sum") < took_s - 0.35


async def last_polls(database: Database) -> list[datetime]:
    """The start times of queries for versions, of sessions whose last query that was."""
    poll = query(database.ledger.schema, "wallet_versions")
    rows = await fetch_at_home(
        database,
        "SELECT query_start FROM pg_stat_activity"
        " WHERE datname = current_database() AND query = $1",
        poll,
    )
    return [row["query_start"] for row in rows]


@pytest.mark.needs_configuration(
    "connections of its own", why="the test reads the last query of each connection"
)
async def test_the_database_is_polled_only_while_a_stream_is_open(
    replicas: Replicas, database: Database
) -> None:
    api = await replicas.start(_QUICK)
    ada = await api.wallet()
    before = await last_polls(database)
    assert before == []

    async def has_polled_again() -> bool:
        return await last_polls(database) != before

    async with following(api, ada):
        for _ in range(3):
            before = await last_polls(database)
            await until(has_polled_again)
    await until_streams(replicas, 0)
    streams = replicas.opened[0].context.streams
    assert repr(streams) == f"<Streams 0 of {_QUICK.streams_all_max}>"

    async def has_stopped_polling() -> bool:
        # For the time of four polls. One query may still be in flight.
        nonlocal before
        before = await last_polls(database)
        await asyncio.sleep(0.09)
        return not await has_polled_again()

    await until(has_stopped_polling)
    assert before != []
