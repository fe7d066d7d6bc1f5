"""Clients that disconnect: their request has one effect or none, and the key shows which."""

import asyncio
import socket
import struct
from urllib.parse import urlsplit

import orjson
import pytest

from tests.conftest import Database, Replicas
from tests.support.api import Api
from tests.support.pressure import arrived, held_rows
from tests.support.truth import faults_in, transfers_of
from tests.support.waiting import until


def request_bytes(source: str, destination: str, key: str) -> bytes:
    """A transfer of 1 as it goes over the wire; the key is its reference as well."""
    body = orjson.dumps(
        {
            "source_wallet_id": source,
            "destination_wallet_id": destination,
            "amount": 1,
            "currency": "USD",
            "reference": key,
        }
    )
    head = (
        "POST /transfers HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Idempotency-Key: {key}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def send_and_vanish(api: Api, data: bytes, *, rudely: bool = False) -> None:
    """Write it and close at once; `rudely` resets the connection, so bytes may be lost."""
    address = urlsplit(api.url)
    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.sendall(data)
        if rudely:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.mark.parametrize("rudely", [False, True])
async def test_the_key_shows_the_outcome_after_a_disconnect(
    rudely: bool, replicas: Replicas, database: Database
) -> None:
    api = await replicas.start()
    ada, bob = await api.wallet(100), await api.wallet()
    keys = [f"gone-{n}" for n in range(20)]
    for key in keys:
        send_and_vanish(api, request_bytes(ada, bob, key), rudely=rudely)
    # An answered request shows that the service has looked at all those before it.
    assert (await api.transfer(ada, bob, 1, reference="last", key="last")).status == 201
    await arrived(replicas, 0)
    happened = await transfers_of(database, *keys)
    assert set(happened.values()) <= {1}
    for key in keys:
        known = await api.get(f"/idempotency-keys/{key}")
        assert known.status == (200 if key in happened else 404)
        if key in happened:
            assert known.json["state"] == "succeeded"
        again = await api.transfer(ada, bob, 1, reference=key, key=key)
        assert again.status == 201
        assert ("Idempotent-Replayed" in again.headers) == (key in happened)
    assert await transfers_of(database, *keys) == dict.fromkeys(keys, 1)
    assert await api.balance(ada) == 100 - 21
    assert await faults_in(database) == []


async def test_a_disconnect_cancels_the_wait_and_not_the_commit(
    replicas: Replicas, database: Database
) -> None:
    api = await replicas.start()
    ada, bob = await api.wallet(100), await api.wallet()
    address = urlsplit(api.url)
    async with held_rows(database, ada):
        _, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(request_bytes(ada, bob, "gone"))
        await arrived(replicas, 1)
        assert (await api.get("/idempotency-keys/gone")).json["state"] == "pending"
        writer.transport.abort()
        await writer.wait_closed()
    await arrived(replicas, 0)
    known = await api.get("/idempotency-keys/gone")
    assert known.json["state"] == "succeeded"
    again = await api.transfer(ada, bob, 1, reference="gone", key="gone")
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.json == known.json["answer"]
    assert await transfers_of(database, "gone") == {"gone": 1}


async def test_half_a_request_has_no_effect(replicas: Replicas, database: Database) -> None:
    api = await replicas.start()
    ada, bob = await api.wallet(100), await api.wallet()
    whole = request_bytes(ada, bob, "half")
    for length in (1, 60, whole.index(b"\r\n\r\n") + 4, len(whole) - 1):
        send_and_vanish(api, whole[:length])
        send_and_vanish(api, whole[:length], rudely=True)
    assert (await api.transfer(ada, bob, 1)).status == 201
    assert await transfers_of(database, "half") == {}
    assert (await api.get("/idempotency-keys/half")).code == "not-found"
    errors = replicas.opened[0].context.metrics.exposed()[0]
    assert b'transferd_errors_total{where="RequestFailed"} 0.0' in errors


async def test_requests_in_one_pipeline_are_all_answered_or_done(
    replicas: Replicas, database: Database
) -> None:
    api = await replicas.start()
    ada, bob = await api.wallet(100), await api.wallet()
    keys = [f"pipe-{n}" for n in range(10)]
    address = urlsplit(api.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(b"".join(request_bytes(ada, bob, key) for key in keys))
    for _ in keys:
        assert await reader.readline() == b"HTTP/1.1 201 Created\r\n"
        head = await reader.readuntil(b"\r\n\r\n")
        [length] = [
            int(line.split(b":")[1])
            for line in head.splitlines()
            if line.lower().startswith(b"content-length:")
        ]
        assert (await reader.readexactly(length)).startswith(b'{"id"')
    writer.close()
    await writer.wait_closed()

    async def all_there() -> bool:
        return await transfers_of(database, *keys) == dict.fromkeys(keys, 1)

    await until(all_there)
