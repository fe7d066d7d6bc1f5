"""Slow, silent and disconnected clients: each connection ends in time and affects no other."""

import asyncio
import re
import time
from contextlib import AsyncExitStack, closing
from dataclasses import replace
from urllib.parse import urlsplit

import aiohttp
import pytest

from loadtest.front import Nginx, running_nginx
from tests.conftest import Replicas
from tests.support.api import Api
from tests.support.pressure import counted
from tests.support.raw_http import Ending, cut, head, open_without_reading, post, until_ended
from tests.support.waiting import SLOWNESS, patient_s, until
from transferd.config import Limits

_BODY = 1_000
_SHORT = replace(
    Limits(),
    head_wait_s=round(0.6 * SLOWNESS, 1),
    body_wait_s=round(0.6 * SLOWNESS, 1),
    linger_s=0.3 * SLOWNESS,
    send_wait_s=1.0 * SLOWNESS,
    idle_connection_s=1.2 * SLOWNESS,
)
# The largest delay after the due time. Connections that are not due end much later.
_LATE_S = patient_s(1.5)
_LONG_S = 4 * _LATE_S


class Payer:
    """Pays continuously over one connection until the block ends; each payment must succeed."""

    def __init__(self, api: Api, source: str, destination: str) -> None:
        self.took_s: list[float] = []
        self._api, self._pair = api, (source, destination)
        self._paying = asyncio.create_task(self._pay())

    async def _pay(self) -> None:
        while True:
            started = time.monotonic()
            assert (await self._api.transfer(*self._pair, 1)).status == 201
            self.took_s.append(time.monotonic() - started)
            await asyncio.sleep(0.02)

    async def stop(self, waited_s: float) -> None:
        """Check that payments passed, and that most took less time than the clients beside them.

        Slow clients cost nothing while they wait; the shortest of their waits was `waited_s`.
        """
        assert not self._paying.done(), self._paying.exception()
        self._paying.cancel()
        assert self.took_s
        assert sorted(self.took_s)[len(self.took_s) // 2] < waited_s, self.took_s


def port_of(api: Api) -> int:
    """The port of a replica."""
    port = urlsplit(api.url).port
    assert port is not None
    return port


def connections(replicas: Replicas) -> int:
    """The client connections that the replica counts."""
    return int(counted(replicas, "transferd_connections"))


async def test_a_replica_ends_each_slow_client_in_its_time(replicas: Replicas) -> None:
    api = await replicas.start(_SHORT)
    port = port_of(api)
    ada, bob = await api.wallet(10_000), await api.wallet()
    tasks, payer = len(asyncio.all_tasks()), Payer(api, ada, bob)
    endless = b"a" * 10_000
    head_s, idle_s, linger_s = _SHORT.head_wait_s, _SHORT.idle_connection_s, _SHORT.linger_s
    body_s = _SHORT.body_wait_s + linger_s
    # The bytes, whether they drip, the due time of the end, and the answer.
    probes = {
        "silent": (b"", b"", idle_s, []),
        "half a head": (b"GET /healthz HT", b"", head_s, []),
        "a head that drips": (b"GET /", endless, head_s, []),
        "empty lines": (b"\r\n", b"\r\n" * 5_000, head_s, []),
        "a header that drips": (b"GET /healthz HTTP/1.1\r\nX-Long: ", endless, head_s, []),
        "no body": (post("/users", _BODY), b"", body_s, [400]),
        "a body that drips": (post("/users", _BODY), b" " * _BODY, body_s, [400]),
        "a batch that drips": (post("/transfers/batch", _BODY), b" " * _BODY, body_s, [400]),
        "chunks that drip": (
            head("POST", "/users", Content_Type="application/json", Transfer_Encoding="chunked"),
            b"1\r\n \r\n" * 1_000,
            body_s,
            [400],
        ),
        "an unexpected body": (
            head("GET", "/healthz", Content_Length=_BODY),
            endless,
            linger_s,
            [200],
        ),
        # Its bytes are no head, so the idle timeout applies.
        "a late body of a refused request": (post("/nothing", 3), b"abc", idle_s, [404]),
        "silent after an answer": (head("GET", "/healthz"), b"", idle_s, [200]),
        "half a head after an answer": (
            head("GET", "/healthz") + b"GET /hea",
            b"",
            # This piece came with the request before it, so the idle timeout applies.
            idle_s,
            [200],
        ),
    }
    endings = await asyncio.gather(
        *(until_ended(port, sent, drip=drip) for sent, drip, _, _ in probes.values())
    )
    for (name, (_, _, due_s, answers)), ending in zip(probes.items(), endings, strict=True):
        assert ending.statuses == answers, (name, ending)
        assert due_s - 0.1 <= ending.took_s <= due_s + _LATE_S, (name, ending)
        if answers == [400]:
            assert ending.code == "malformed-json"
            assert f"did not arrive within {_SHORT.body_wait_s:g} s".encode() in ending.answer
    await payer.stop(linger_s)
    # The connection of the paying client stays open and becomes idle.
    await until(lambda: connections(replicas) == 0)
    await until(lambda: len(asyncio.all_tasks()) <= tasks)
    assert replicas.opened[0].context.ledger.router.backlog == 0


async def test_a_replica_does_not_wait_for_a_client_that_does_not_read(replicas: Replicas) -> None:
    api = await replicas.start(_SHORT)
    ada, bob = await api.wallet(10_000), await api.wallet()
    payer = Payer(api, ada, bob)
    # More pipelined answers than all buffers hold.
    asked = head("GET", "/docs/swagger-ui-bundle.js") * 20
    with (
        closing(open_without_reading(port_of(api), asked)),
        closing(open_without_reading(port_of(api), asked)),
    ):
        await until(lambda: connections(replicas) >= 3)
        started = time.monotonic()
        await until(lambda: connections(replicas) <= 1)
        ended_s = time.monotonic() - started
        assert ended_s < _SHORT.send_wait_s * 2 + _LATE_S
    await payer.stop(ended_s)


@pytest.mark.parametrize("missing", [130, 110, 14, 1, 0])
async def test_a_half_closed_connection_ends_at_once(missing: int, replicas: Replicas) -> None:
    long = replace(Limits(), head_wait_s=_LONG_S, body_wait_s=_LONG_S, linger_s=_LONG_S)
    api = await replicas.start(long)
    body = b'{"name":"Ada"}'
    whole = post("/users", len(body), Idempotency_Key="half") + body
    assert len(whole) == 130
    ending = await until_ended(port_of(api), whole[: len(whole) - missing], then_end=True)
    assert ending.took_s < _LATE_S
    await until(lambda: connections(replicas) == 0)

    async def is_right() -> bool:
        # The request has one effect or none, and the key shows which; it may still be in flight.
        known = await api.get("/idempotency-keys/half")
        shown = known.status, len((await api.get("/users")).json["data"])
        return shown in ({(404, 0)} if missing else {(404, 0), (200, 1)})

    await until(is_right)
    await until(lambda: replicas.opened[0].context.ledger.router.backlog == 0)


async def test_one_connection_too_many_is_closed_and_the_others_are_served(
    replicas: Replicas,
) -> None:
    api = await replicas.start(replace(Limits(), connections_max=8))
    assert (await api.get("/healthz")).status == 200
    opened = [await asyncio.open_connection("127.0.0.1", port_of(api)) for _ in range(7)]
    await until(lambda: connections(replicas) == 8)
    assert (await until_ended(port_of(api), head("GET", "/healthz"))).answer == b""
    assert (await api.get("/healthz")).status == 200
    for _, writer in opened:
        await cut(writer)
    await until(lambda: connections(replicas) == 1)
    async with aiohttp.ClientSession() as session:
        assert (await Api(session, api.url).get("/healthz")).status == 200


async def active(nginx: Nginx, session: aiohttp.ClientSession) -> int:
    """The client connections of Nginx, except this one."""
    async with session.get(f"http://127.0.0.1:{nginx.status_port}/stub_status") as response:
        match = re.match(r"Active connections: (\d+)", await response.text())
    assert match is not None
    return int(match.group(1)) - 1


async def test_requests_of_one_address_above_the_limit_in_flight_are_refused(
    replicas: Replicas,
) -> None:
    api = await replicas.start()
    fewer = ("requests_of_address 4096", "requests_of_address 4")
    async with (
        running_nginx([urlsplit(api.url).netloc], changed=fewer) as nginx,
        aiohttp.ClientSession() as session,
    ):
        through = Api(session, nginx.url)
        opened = []

        async def is_refused() -> bool:
            # One more slow request, until the limit is reached.
            _, writer = await asyncio.open_connection("127.0.0.1", nginx.port)
            writer.write(post("/users", _BODY) + b"{")
            opened.append(writer)
            reply = await through.get("/currencies")
            return reply.status == 503 and reply.code == "overloaded"

        await until(is_refused)
        assert len(opened) >= 4
        for writer in opened:
            await cut(writer)

        async def is_served() -> bool:
            return (await through.get("/currencies")).status == 200

        await until(is_served)


async def test_nginx_ends_each_slow_client_in_its_time(replicas: Replicas) -> None:
    api = await replicas.start()
    async with AsyncExitStack() as exits:
        nginx = await exits.enter_async_context(running_nginx([urlsplit(api.url).netloc]))
        session = await exits.enter_async_context(aiohttp.ClientSession())
        through = Api(session, nginx.url)
        ada, bob = await through.wallet(10_000), await through.wallet()
        payer = Payer(through, ada, bob)
        before = await active(nginx, session)
        endless = b"a" * 10_000
        probes = {
            "silent": (b"", b"", []),
            "half a head": (b"GET /healthz HT", b"", []),
            "a head that drips": (b"GET /", endless, []),
            "a header that drips": (b"GET /healthz HTTP/1.1\r\nX-Long: ", endless, []),
            "no body": (post("/transfers", _BODY, Idempotency_Key="slow"), b"", [400]),
            "half a body": (post("/transfers", _BODY, Idempotency_Key="slow") + b"{", b"", [400]),
            "half a batch": (post("/transfers/batch", _BODY) + b"{", b"", [400]),
        }
        asked = head("GET", "/docs/swagger-ui-bundle.js") * 20
        with closing(open_without_reading(nginx.port, asked)):
            endings: list[Ending] = await asyncio.gather(
                *(until_ended(nginx.port, sent, drip=drip) for sent, drip, _ in probes.values())
            )
            for (name, (_, _, answers)), ending in zip(probes.items(), endings, strict=True):
                # Nginx may answer slow clients, and no replica has seen their requests.
                assert ending.statuses in ([], answers), (name, ending)
                assert 4.9 <= ending.took_s <= 5.0 + _LATE_S, (name, ending)

            async def only_ours() -> bool:
                return await active(nginx, session) <= before

            await until(only_ours, within_s=10)
        await payer.stop(4.9)
        assert (await through.get("/idempotency-keys/slow")).status == 404
    await until(lambda: connections(replicas) <= 1)
