"""An address is bound at once and served later."""

import asyncio
import socket

import aiohttp
import pytest

from transferd.config import ConfigurationError, Limits
from transferd.web.calls import origin_of
from transferd.web.listener import Listener
from transferd.web.replies import Reply
from transferd.web.request import Request

REMEDY = "choose another one"


def listener(host: str = "127.0.0.1", port: int = 0) -> Listener:
    return Listener(host, port, Limits(), remedy=REMEDY)


def port_of(taken: Listener) -> int:
    return int(taken.url.rpartition(":")[2])


async def hello(request: Request) -> Reply:
    reply = Reply(200, b"hello", "text/plain")
    reply.compose(request, origin_of(request))
    return reply


async def test_clients_are_refused_until_it_serves_and_after_that() -> None:
    taken = listener()
    port = port_of(taken)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    async with (
        taken.serving(hello),
        aiohttp.ClientSession() as session,
        session.get(taken.url) as response,
    ):
        assert await response.text() == "hello"
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


def test_a_port_in_use_is_an_error_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigurationError) as caught:
            listener(port=port)
    assert str(caught.value) == (
        f"cannot listen on 127.0.0.1:{port} (Address already in use): {REMEDY}"
    )


async def test_a_port_in_use_since_it_was_bound_is_an_error_too() -> None:
    taken = listener()
    # It may be bound twice, as long as no socket listens.
    with (
        socket.create_server(("127.0.0.1", port_of(taken))),
        pytest.raises(ConfigurationError) as caught,
    ):
        async with taken.serving(hello):
            pass
    taken.close()
    assert "(Address already in use): choose" in str(caught.value)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:"),
        ("localhost", "http://127.0.0.1:"),
        ("", "http://0.0.0.0:"),
        ("0.0.0.0", "http://0.0.0.0:"),
    ],
)
def test_a_host_may_be_a_name_or_every_address(host: str, url: str) -> None:
    taken = listener(host)
    assert taken.url.startswith(url)
    assert repr(taken) == f"<Listener {taken.url}>"
    taken.close()


async def test_it_serves_ipv6_as_well() -> None:
    taken = listener("::1")
    assert taken.url.startswith("http://[::1]:")
    async with (
        taken.serving(hello),
        aiohttp.ClientSession() as session,
        session.get(taken.url) as response,
    ):
        assert response.status == 200


def test_a_host_that_does_not_exist_is_one_line() -> None:
    with pytest.raises(
        ConfigurationError, match=rf"cannot listen on nowhere\.invalid:0 .+{REMEDY}"
    ):
        listener("nowhere.invalid")
