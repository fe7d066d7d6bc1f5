"""Webhooks reach only allowed addresses, and only receivers with a trusted certificate."""

import asyncio
import socket
import ssl
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvloop

from tests.support.waiting import patient_s, until
from tests.support.webhook_sink import (
    HUSH,
    NO_CONNECTION,
    OK,
    PATIENT,
    QUICK,
    Names,
    Request,
    deliver,
    dripping,
    opened,
    receiving,
    saying,
    saying_once,
)
from transferd.notifications.sinks import webhook as webhook_module
from transferd.notifications.sinks.guard import AddressRefused, Guard
from transferd.notifications.sinks.result import SinkResult

TIMEOUT = f"timeout after {PATIENT.webhook_timeout_s:g} s"

# Made for these tests, for receiver.example, until 2120.
CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBhjCCASygAwIBAgIBATAKBggqhkjOPQQDAjAbMRkwFwYDVQQDDBByZWNlaXZl
ci5leGFtcGxlMCAXDTIwMDEwMTAwMDAwMFoYDzIxMjAwMTAxMDAwMDAwWjAbMRkw
FwYDVQQDDBByZWNlaXZlci5leGFtcGxlMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcD
QgAEnyzl6ffv1xk905/LBJQ1yBa+ISEAYs8aBCi83mXCLYebDER25qFpB7A7nAJI
fgXXxNVDomLey9NyptgkuA0sv6NfMF0wGwYDVR0RBBQwEoIQcmVjZWl2ZXIuZXhh
bXBsZTAOBgNVHQ8BAf8EBAMCAoQwDwYDVR0TAQH/BAUwAwEB/zAdBgNVHQ4EFgQU
8b2W1ZzAoWJMwRvy4cEKem0s2UswCgYIKoZIzj0EAwIDSAAwRQIhAK6nhVsfbzmu
G26FIrORZnnRuRCXzymriJ5ZgqIDcCy3AiA2WQAD6yk7SSVF3iNFtbtLLvcyNxIA
CTUmSm9aPqrSIA==
-----END CERTIFICATE-----
"""
KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQga/pXK+Hi+8haKfkR
kfcaDIDVVfTPZq2j0YPr5XfdiZuhRANCAASfLOXp9+/XGT3Tn8sElDXIFr4hIQBi
zxoEKLzeZcIth5sMRHbmoWkHsDucAkh+BdfE1UOiYt7L03Km2CS4DSy/
-----END PRIVATE KEY-----
"""


# Addresses


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/",
        "http://[::ffff:127.0.0.1]:{port}/",
        "http://[::ffff:7f00:1]:{port}/",
        "http://2130706433:{port}/",
        "http://127.1:{port}/",
        "http://0.0.0.0:{port}/",
        "http://[64:ff9b::7f00:1]:{port}/",
    ],
)
async def test_a_private_address_is_refused_before_the_connection(url: str) -> None:
    async with receiving(saying(OK)) as receiver, opened(networks="") as sink:
        result = await deliver(sink, url.format(port=receiver.port))
    assert result.error is not None
    assert result.error.startswith("the URL must")
    assert receiver.accepted == 0


async def test_a_private_address_that_passed_the_check_is_not_connected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(webhook_module, "url_fault", lambda *_, **__: None)
    async with receiving(saying(OK)) as receiver, opened(networks="") as sink:
        for host in ("127.0.0.1", "[::ffff:127.0.0.1]"):
            result = await deliver(sink, f"http://{host}:{receiver.port}/?token={HUSH}")
            address = host.strip("[]")
            assert result == SinkResult(f"address {address} is not allowed")
    assert receiver.accepted == 0


async def test_http_is_refused_unless_it_is_allowed() -> None:
    async with receiving(saying(OK)) as receiver:
        async with opened(http=False) as sink:
            assert (await deliver(sink, receiver.url)).error == "the URL must be https"
        assert receiver.accepted == 0
        async with opened(http=True) as sink:
            assert (await deliver(sink, receiver.url)).error is None


@pytest.mark.parametrize(
    ("addresses", "error"),
    [
        (["127.0.0.1"], "address 127.0.0.1 is not allowed"),
        (["127.0.0.1", "127.0.0.3"], "address 127.0.0.3 is not allowed"),
        (["127.0.0.1", "::1"], "no address of the name is allowed"),
    ],
)
async def test_a_name_that_leads_to_a_private_address_is_refused(
    addresses: list[str], error: str
) -> None:
    names = Names({"rebound.example": addresses})
    async with receiving(saying(OK)) as receiver:
        url = f"http://rebound.example:{receiver.port}/?token={HUSH}"
        async with opened(networks="", resolver=names) as sink:
            assert await deliver(sink, url) == SinkResult(error)
        assert receiver.accepted == 0
        async with opened(resolver=names) as sink:
            assert (await deliver(sink, url)).error is None
        assert receiver.accepted == 1
    assert names.is_closed


async def test_a_name_of_the_local_network_is_looked_up_and_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    look_up = socket.getaddrinfo

    def of_this_machine(_: Any, *arguments: Any, **named: Any) -> Any:
        return look_up("localhost", *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", of_this_machine)
    async with receiving(saying(OK)) as receiver:
        url = f"http://receiver.internal:{receiver.port}/"
        async with opened(networks="") as sink:
            result = await deliver(sink, url)
        assert result.error in {f"address {own} is not allowed" for own in ("127.0.0.1", "::1")}
        assert receiver.accepted == 0
        async with opened() as sink:
            assert (await deliver(sink, url)).error is None


async def test_localhost_is_refused_without_a_look_up(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    look_up = socket.getaddrinfo

    def noted(host: str, *arguments: Any, **named: Any) -> Any:
        asked.append(host)
        return look_up(host, *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", noted)
    async with receiving(saying(OK)) as receiver:
        url = f"http://localhost:{receiver.port}/"
        async with opened(networks="") as sink:
            result = await deliver(sink, url)
        assert result == SinkResult("the URL must not be a private or local address")
        assert (asked, receiver.accepted) == ([], 0)
        async with opened() as sink:
            assert (await deliver(sink, url)).error is None
    assert asked == ["localhost"]


async def test_only_allowed_addresses_of_a_name_are_used() -> None:
    names = Names({"mixed.example": ["127.0.0.1", "10.0.0.7", "127.0.0.2"]})
    async with (
        receiving(saying(OK), host="127.0.0.2") as allowed,
        receiving(saying(OK), port=allowed.port) as private,
        opened(networks="127.0.0.2/32", resolver=names) as sink,
    ):
        for _ in range(3):
            result = await deliver(sink, f"http://mixed.example:{allowed.port}/")
            assert result.error is None
    assert (private.accepted, len(allowed.requests)) == (0, 3)


@pytest.mark.parametrize("lookups_max", [2, 3])
async def test_a_look_up_without_an_answer_occupies_one_thread(
    lookups_max: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    answers = threading.Event()
    look_up = socket.getaddrinfo

    def hanging(host: Any, *arguments: Any, **named: Any) -> Any:
        asked.append(host)
        if host != "localhost":
            answers.wait(patient_s(10))
        return look_up("localhost", *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", hanging)
    limits = replace(PATIENT, webhook_lookups_max=lookups_max)
    async with receiving(saying(OK)) as receiver, opened(limits=limits) as sink:
        try:
            held = [
                asyncio.create_task(deliver(sink, f"http://{name}.example:{receiver.port}/"))
                for name in ("first", "second")
            ]
            await until(lambda: len(asked) == 2)
            result = await deliver(sink, f"http://localhost:{receiver.port}/")
            # The timeout includes the look-up of the name.
            assert [(await each).error for each in held] == [TIMEOUT, TIMEOUT]
        finally:
            answers.set()
    assert result.error == (None if lookups_max == 3 else TIMEOUT)


async def test_an_unknown_host_name_is_a_failure() -> None:
    async with opened(resolver=Names({})) as sink:
        unknown = await deliver(sink, f"http://unknown.example/?token={HUSH}")
    assert unknown.error == "the name cannot be resolved: Name or service not known"


@pytest.mark.parametrize("host", ["127.0.0.1", "rebound.example"])
@pytest.mark.parametrize("is_guarded", [True, False])
async def test_no_socket_is_opened_for_a_private_address(host: str, is_guarded: bool) -> None:
    """The check at connect, without the checks of the URL and the name."""
    guard = Guard(())
    connector = aiohttp.TCPConnector(
        resolver=Names({"rebound.example": ["127.0.0.1"]}),
        socket_factory=guard.open_socket if is_guarded else None,
    )
    async with (
        receiving(saying_once(OK)) as receiver,
        aiohttp.ClientSession(connector=connector) as session,
    ):
        asked = session.get(f"http://{host}:{receiver.port}/", headers={"Content-Length": "0"})
        if is_guarded:
            with pytest.raises(aiohttp.ClientConnectorError) as caught:
                await asked
            assert isinstance(caught.value.os_error, AddressRefused)
        else:
            async with asked as response:
                assert response.status == 200
    assert receiver.accepted == (0 if is_guarded else 1)


@pytest.mark.parametrize("address", ["receiver.example", "127.1", "2130706433", "", "::1%lo"])
def test_an_address_in_an_unusual_spelling_is_refused(address: str) -> None:
    assert not Guard(()).lets_pass(address)
    assert Guard(()).lets_pass("1.1.1.1")


async def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with receiving(saying(OK)) as proxy, receiving(saying(OK)) as receiver:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        async with opened() as sink:
            assert (await deliver(sink, receiver.url)).error is None
    assert (proxy.accepted, receiver.accepted) == (0, 1)


# TLS


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    path = tmp_path / "certificate.pem"
    path.write_text(CERTIFICATE, encoding="utf-8")
    return path


@pytest.fixture
def server_tls(certificate: Path) -> ssl.SSLContext:
    key = certificate.with_name("key.pem")
    key.write_text(KEY, encoding="utf-8")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context


NAMES = {"receiver.example": ["127.0.0.1"], "other.example": ["127.0.0.1"]}


@pytest.mark.parametrize(
    ("trusted", "host", "error"),
    [
        (True, "receiver.example", None),
        (True, "other.example", "the certificate is refused: Hostname mismatch"),
        (False, "receiver.example", "the certificate is refused: self"),
    ],
)
async def test_a_receiver_needs_a_trusted_certificate_for_its_name(
    certificate: Path,
    server_tls: ssl.SSLContext,
    monkeypatch: pytest.MonkeyPatch,
    *,
    trusted: bool,
    host: str,
    error: str | None,
) -> None:
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with (
        receiving(saying(OK), tls=server_tls) as receiver,
        opened(http=False, resolver=Names(NAMES)) as sink,
    ):
        result = await deliver(sink, f"https://{host}:{receiver.port}/?token={HUSH}")
    if error is None:
        assert result == SinkResult(None, 200, "fine")
    else:
        assert result.error is not None
        assert result.error.startswith(error)
    assert len(receiver.requests) == (error is None)


async def test_a_receiver_that_reads_no_close_does_not_delay_its_delivery(
    certificate: Path, server_tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    sockets: list[socket.socket] = []
    open_socket = Guard.open_socket

    def noted(guard: Guard, info: aiohttp.AddrInfoType) -> socket.socket:
        sockets.append(open_socket(guard, info))
        return sockets[-1]

    async def say_and_listen_no_more(_: Request, writer: asyncio.StreamWriter) -> None:
        transport = writer.transport
        assert isinstance(transport, asyncio.ReadTransport)
        transport.pause_reading()
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nx")
        await asyncio.Event().wait()

    monkeypatch.setattr(Guard, "open_socket", noted)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with (
        receiving(say_and_listen_no_more, tls=server_tls) as receiver,
        opened(limits=PATIENT, resolver=Names(NAMES)) as sink,
    ):
        result = await deliver(sink, f"https://receiver.example:{receiver.port}/")
        assert result.error == f"{TIMEOUT}, after an answer 200 had begun"
        await until(lambda: [each.fileno() for each in sockets] == [-1])


async def test_a_receiver_without_tls_is_a_failure() -> None:
    async def complain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(complain, "127.0.0.1", 0)
    async with server, opened() as sink:
        port = server.sockets[0].getsockname()[1]
        result = await deliver(sink, f"https://127.0.0.1:{port}/?token={HUSH}")
    assert result.error is not None
    assert result.error.startswith("no TLS connection: ")


async def test_a_handshake_without_an_answer_is_given_up() -> None:
    async with receiving(saying(OK)) as receiver, opened(limits=QUICK) as sink:
        result = await deliver(sink, receiver.url.replace("http:", "https:"))
    assert result == SinkResult(NO_CONNECTION)


# The loop of the service


def test_the_guard_works_under_uvloop(server_tls: ssl.SSLContext) -> None:
    async def scenario() -> list[SinkResult]:
        names = Names(NAMES | {"private.example": ["127.0.0.3"]})
        async with (
            receiving(saying(OK)) as receiver,
            receiving(saying(OK), tls=server_tls) as secured,
            receiving(dripping(b"HTTP/1.1 200 OK\r\n\r\n", b"x")) as slow,
            opened(networks="127.0.0.1/32", limits=PATIENT, resolver=names) as sink,
        ):
            return [
                await deliver(sink, receiver.url),
                await deliver(sink, f"http://private.example:{receiver.port}/"),
                await deliver(sink, f"http://unknown.example:{receiver.port}/"),
                await deliver(sink, f"https://receiver.example:{secured.port}/"),
                await deliver(sink, slow.url),
            ]

    delivered, private, unknown, untrusted, slow = uvloop.run(scenario())
    assert delivered == SinkResult(None, 200, "fine")
    assert private == SinkResult("address 127.0.0.3 is not allowed")
    assert unknown.error == "the name cannot be resolved: Name or service not known"
    assert untrusted.error is not None
    assert untrusted.error.startswith("the certificate is refused")
    assert slow.error == f"{TIMEOUT}, after an answer 200 had begun"
