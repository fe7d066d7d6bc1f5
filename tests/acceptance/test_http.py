"""HTTP itself: versions, connections that stay open, bodies that come later, HEAD."""

import asyncio
import re
from contextlib import closing
from urllib.parse import urlsplit

import pytest

from tests.support.api import Api
from tests.support.raw_http import Ending, head, post, until_ended
from tests.support.waiting import patient_s

_USER = b'{"name":"Ada"}'


def port_of(api: Api) -> int:
    port = urlsplit(api.url).port
    assert port is not None
    return port


async def exchange(port: int, sent: bytes, expected: bytes, then: bytes = b"") -> bytes:
    """Everything that comes until `expected` is in it; then send `then` and read to the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with closing(writer):
        writer.write(sent)
        received = b""
        async with asyncio.timeout(patient_s(5)):
            while expected not in received:
                part = await reader.read(65_536)
                assert part, received
                received += part
            if then:
                writer.write(then)
                received += await reader.read()
    return received


@pytest.mark.parametrize("path", ["/currencies", "/healthz", "/docs/index.html", "/nothing"])
async def test_head_is_get_without_the_body(api: Api, path: str) -> None:
    port = port_of(api)
    with_body = await until_ended(port, head("GET", path, Connection="close"))
    without = await until_ended(port, head("HEAD", path, Connection="close"))
    headers, _, body = with_body.answer.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in headers
    assert without.answer.endswith(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}\r\n".encode() in without.answer
    assert without.statuses == with_body.statuses


async def test_http_1_0_ends_the_connection_unless_it_asks_for_more(api: Api) -> None:
    port = port_of(api)
    ending = await until_ended(port, b"GET /healthz HTTP/1.0\r\n\r\n")
    assert ending.statuses == [200]
    kept = b"GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    received = await exchange(port, kept, b'{"status":"ok"}', then=b"GET /healthz HTTP/1.0\r\n\r\n")
    assert received.count(b'{"status":"ok"}') == 2
    assert received.lower().count(b"connection: keep-alive") == 1


async def test_a_stream_of_http_1_0_is_not_chunked(api: Api) -> None:
    wallet = await api.wallet()
    asked = f"GET /wallets/{wallet}/events HTTP/1.0\r\n\r\n".encode()
    received = await exchange(port_of(api), asked, b"\n\n")
    assert b"chunked" not in received.lower()
    assert received.partition(b"\r\n\r\n")[2].startswith(b": the wallet is at version 0\n")


async def test_a_body_is_asked_for_when_it_is_read(api: Api) -> None:
    asking = post("/users", len(_USER), Expect="100-continue", Connection="close")
    received = await exchange(port_of(api), asking, b"100 Continue\r\n\r\n", then=_USER)
    assert received.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\n")


@pytest.mark.parametrize(
    ("asking", "status"),
    [
        (post("/users", 40_000, Expect="100-continue"), b"413"),
        (post("/nothing", 10, Expect="100-continue"), b"404"),
        (head("POST", "/users", Content_Length=10, Expect="100-continue"), b"415"),
    ],
)
async def test_no_body_is_asked_for_if_the_request_is_refused_without_it(
    api: Api, asking: bytes, status: bytes
) -> None:
    received = await exchange(port_of(api), asking, b"}")
    assert received.startswith(b"HTTP/1.1 " + status)


async def test_a_client_of_http_1_0_is_not_told_to_continue(api: Api) -> None:
    asking = post("/users", len(_USER), Expect="100-continue").replace(b"HTTP/1.1", b"HTTP/1.0")
    ending = await until_ended(port_of(api), asking + _USER)
    assert ending.statuses == [201]


async def test_a_body_may_come_in_pieces_and_in_chunks(api: Api) -> None:
    port = port_of(api)
    pieces = post("/users", len(_USER), Connection="close") + _USER
    assert (await until_ended(port, pieces[:-5], drip=pieces[-5:])).statuses == [201]
    chunked = head(
        "POST",
        "/users",
        Content_Type="application/json",
        Transfer_Encoding="chunked",
        Connection="close",
    )
    sent = chunked + b"6\r\n" + _USER[:6] + b"\r\n"
    rest = b"8\r\n" + _USER[6:] + b"\r\n0\r\n\r\n"
    assert (await until_ended(port, sent + rest)).statuses == [201]
    assert (await until_ended(port, sent, drip=rest)).statuses == [201]


def statuses(ending: Ending) -> list[int]:
    """The status of each answer; bodies do not end with a line feed."""
    return [int(status) for status in re.findall(rb"HTTP/1.1 (\d+) ", ending.answer)]


async def test_pipelined_requests_are_answered_in_their_order(api: Api) -> None:
    asked = head("GET", "/healthz") + head("GET", "/nothing") + head("GET", "/currencies")
    ending = await until_ended(port_of(api), asked + head("GET", "/healthz", Connection="close"))
    assert statuses(ending) == [200, 404, 200, 200]


async def test_more_requests_than_may_wait_are_all_answered(api: Api) -> None:
    asked = head("GET", "/healthz") * 99 + head("GET", "/nothing", Connection="close")
    assert statuses(await until_ended(port_of(api), asked)) == [200] * 99 + [404]


@pytest.mark.parametrize("protocol", ["h2c", "websocket"])
async def test_a_request_for_another_protocol_is_the_last_of_its_connection(
    api: Api, protocol: str
) -> None:
    asked = head("GET", "/healthz", Connection="Upgrade", Upgrade=protocol)
    ending = await until_ended(port_of(api), asked + head("GET", "/currencies"))
    assert statuses(ending) == [200]
    assert b"Connection: close\r\n" in ending.answer


async def test_a_malformed_chunk_is_answered_without_waiting_for_the_body(api: Api) -> None:
    kinds = {"Content_Type": "application/json", "Transfer_Encoding": "chunked"}
    begun = head("POST", "/users", **kinds) + b"6\r\n" + _USER[:6] + b"\r\n"
    ending = await until_ended(port_of(api), begun, drip=b"zz\r\n")
    assert (ending.statuses, ending.code) == ([400], "malformed-json")
    assert b"its chunks are malformed" in ending.answer


async def test_requests_that_cannot_be_parsed_are_counted(api: Api) -> None:
    assert (await until_ended(port_of(api), b"hello\r\n\r\n")).code == "malformed-request"
    metrics = (await api.get("/metrics")).body.decode()
    name = "http_server_request_duration_seconds_count"
    labels = 'http_request_method="other",http_response_status_code="400",http_route="unmatched"'
    assert f"{name}{{{labels}}} 1.0" in metrics, metrics


async def test_an_empty_body_may_end_later_than_the_head(api: Api) -> None:
    ada, bob = await api.wallet(100), await api.wallet()
    paid = (await api.transfer(ada, bob, 10)).json["id"]
    asked = head(
        "POST",
        f"/transfers/{paid}/reversal",
        Idempotency_Key="back",
        Transfer_Encoding="chunked",
        Connection="close",
    )
    assert (await until_ended(port_of(api), asked, drip=b"0\r\n\r\n")).statuses == [201]


async def test_a_length_may_have_any_number_of_zeros(api: Api) -> None:
    sent = post("/users", "0" * 5_000 + "14", Connection="close") + _USER
    assert (await until_ended(port_of(api), sent)).statuses == [201]


async def test_the_length_of_a_stream_is_not_said(api: Api) -> None:
    wallet = await api.wallet()
    ending = await until_ended(
        port_of(api), head("HEAD", f"/wallets/{wallet}/events", Connection="close")
    )
    assert ending.statuses == [200]
    assert b"content-length" not in ending.answer.lower()


async def test_a_link_to_the_next_page_has_no_fragment(api: Api) -> None:
    for _ in range(2):
        await api.user()
    ending = await until_ended(port_of(api), head("GET", "/users?limit=1#a>b", Connection="close"))
    [link] = re.findall(rb"Link: (.*)\r\n", ending.answer)
    assert re.fullmatch(rb'</users\?limit=1&cursor=[\w-]+>; rel="next"', link)
