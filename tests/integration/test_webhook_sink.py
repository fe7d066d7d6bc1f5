"""Webhooks to receivers whose answers are valid, invalid, slow or endless."""

import asyncio
import gzip
import socket
import time
import tracemalloc
from base64 import b64encode
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from tests.support.waiting import until
from tests.support.webhook_sink import (
    BODY,
    HUSH,
    NO_CONNECTION,
    NOW,
    OK,
    OLD_SECRET,
    QUICK,
    SECRET,
    TRACEPARENT,
    Names,
    Request,
    answering,
    deliver,
    dripping,
    endpoint,
    opened,
    receiving,
    saying,
    saying_once,
)
from transferd import __version__
from transferd.commit.events import CLOUD_EVENT
from transferd.config import Limits
from transferd.domain.webhook import OldSecret
from transferd.notifications.sinks.result import SinkResult

# Requests


async def test_an_event_arrives_unchanged_with_the_headers_of_standard_webhooks() -> None:
    async with receiving(saying(OK)) as receiver, opened() as sink:
        result = await deliver(sink, receiver.url)
    assert result == SinkResult(None, 200, "fine")
    [request] = receiver.requests
    assert request.line == f"POST /hook?token={HUSH} HTTP/1.1"
    assert request.body == BODY
    assert request.headers["content-type"] == CLOUD_EVENT
    assert request.headers["user-agent"] == f"transferd/{__version__}"
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["traceparent"] == TRACEPARENT
    assert request.headers["webhook-id"] == "event-1"
    assert request.headers["webhook-timestamp"] == str(int(NOW.timestamp()))
    assert request.headers["webhook-signature"].startswith("v1,")


async def test_path_and_query_are_sent_as_given() -> None:
    async with receiving(saying(OK)) as receiver, opened() as sink:
        await deliver(sink, f"http://127.0.0.1:{receiver.port}/a/../%41%2Fb;c?d=%2B+%7e&e[]=")
    assert receiver.requests[0].line == "POST /a/../%41%2Fb;c?d=%2B+%7e&e[]= HTTP/1.1"


async def test_an_event_without_a_trace_has_no_traceparent() -> None:
    async with receiving(saying(OK)) as receiver, opened() as sink:
        await sink.deliver(endpoint(receiver.url), "event-1", BODY, None)
    assert "traceparent" not in receiver.requests[0].headers


async def signed_request(old_secrets_until_s: dict[str, float]) -> Request:
    """A request after a rotation; each old secret is valid for this many more seconds."""
    now = datetime.now(UTC)
    old = [
        OldSecret(secret, now + timedelta(seconds=until_s))
        for secret, until_s in old_secrets_until_s.items()
    ]
    async with receiving(saying(OK)) as receiver, opened(clock=lambda: now) as sink:
        webhook = endpoint(receiver.url, *old)
        assert (await sink.deliver(webhook, "event-1", BODY, None)).error is None
    return receiver.requests[0]


async def test_every_secret_verifies_until_its_own_time_is_over() -> None:
    old = {f"whsec_{b64encode(bytes([number])).decode()}": number - 3.0 for number in range(9)}
    request = await signed_request({OLD_SECRET: 1} | old)
    valid = [SECRET, OLD_SECRET, *(secret for secret, until_s in old.items() if until_s > 0)]
    assert len(valid) == 7
    for secret in valid:
        assert Verifier(secret).verify(request.body, request.headers) == {"reference": "für 🎂"}
    for secret in (*(old.keys() - valid), "whsec_b3RoZXI="):
        with pytest.raises(WebhookVerificationError):
            Verifier(secret).verify(request.body, request.headers)


async def test_the_signatures_of_all_secrets_fit_into_a_fifth_of_a_common_header() -> None:
    count = Limits().webhook_secrets_max - 1
    old = {f"whsec_{b64encode(bytes(32) + bytes([n])).decode()}": 60.0 for n in range(count)}
    request = await signed_request(old)
    signatures = request.headers["webhook-signature"]
    assert len(set(signatures.split(" "))) == Limits().webhook_secrets_max
    assert len(f"webhook-signature: {signatures}") <= 8 * 1024 / 5
    Verifier([*old][-1]).verify(request.body, request.headers)


# Answers


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        *((answering(status), SinkResult(None, status, "no")) for status in (200, 202, 299)),
        (b"HTTP/1.1 204 OK\r\n\r\n", SinkResult(None, 204, None)),
        *(
            (answering(status), SinkResult(f"answered {status}", status, "no"))
            for status in (300, 305, 400, 401, 404, 418, 429, 500, 503, 999)
        ),
        (answering(410), SinkResult("answered 410", 410, "no", None, is_gone=True)),
        # A closed connection, and answers that end too early.
        (b"", SinkResult("the connection was closed without an answer")),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfi",
            SinkResult("the answer broke off, after an answer 200 had begun", 200, "fi"),
        ),
        (
            b"HTTP/1.1 429 X\r\nRetry-After: 7\r\nContent-Length: 5\r\n\r\nno",
            SinkResult("answered 429", 429, "no", 7.0),
        ),
    ],
    ids=lambda value: repr(value[:20]) if isinstance(value, bytes) else "",
)
async def test_only_a_complete_2xx_is_success(answer: bytes, result: SinkResult) -> None:
    async with receiving(saying_once(answer)) as receiver, opened() as sink:
        assert await deliver(sink, receiver.url) == result
    assert len(receiver.requests) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(status: int) -> None:
    async with receiving(saying(OK)) as target, opened() as sink:
        async with receiving(saying(answering(status, Location=target.url))) as receiver:
            result = await deliver(sink, receiver.url)
        assert (result.error, result.response_status) == (f"answered {status}", status)
        assert target.accepted == 0
        # The sink may reach the target directly.
        assert (await deliver(sink, target.url)).error is None


@pytest.mark.parametrize(
    ("status", "value", "wait_s"),
    [
        (429, "7", 7.0),
        (503, "0", 0.0),
        (301, "7", 7.0),
        (410, "7", 7.0),
        (429, "999999999", 24 * 3600.0),
        (429, "Wed, 02 Jan 2030 03:05:35 GMT", pytest.approx(90, abs=1)),
        (429, "Wed, 02 Jan 2019 03:05:35 GMT", 0.0),
        (429, "tomorrow", None),
        (429, "-7", None),
        (200, "7", None),
    ],
)
async def test_a_receiver_may_ask_for_a_wait(status: int, value: str, wait_s: float | None) -> None:
    answer = answering(status, **{"Retry-After": value})
    async with receiving(saying(answer)) as receiver, opened() as sink:
        assert (await deliver(sink, receiver.url)).retry_after_s == wait_s


@pytest.mark.parametrize(
    ("body", "excerpt"),
    [
        (b"", None),
        (b" \r\n\t\x00 ", None),
        (b"a\r\nb\x00c\x1b[31md", "a  b c [31md"),
        ("für \u202e\u2028x".encode(), "für   x"),
        (b"\xff\xfeok", "\ufffd\ufffdok"),
        (b"x" * 2_000, "x" * 500),
    ],
)
async def test_the_printable_beginning_of_an_answer_is_kept(
    body: bytes, excerpt: str | None
) -> None:
    answer = b"HTTP/1.1 500 X\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    async with receiving(saying(answer)) as receiver, opened() as sink:
        assert (await deliver(sink, receiver.url)).response_excerpt == excerpt


async def test_a_cookie_is_not_kept() -> None:
    answer = answering(200, **{"Set-Cookie": "id=1; Path=/"})
    names = Names({"receiver.example": ["127.0.0.1"]})
    async with receiving(saying(answer)) as receiver, opened(resolver=names) as sink:
        for _ in range(2):
            await deliver(sink, f"http://receiver.example:{receiver.port}/")
    assert [request.headers.get("cookie") for request in receiver.requests] == [None, None]


# Answers that are not HTTP


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2p1\r\n",
        b"\x15\x03\x01\x00\x02\x02\x28",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA\x00: b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"b" * 10_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 1_000 + b"\r\n",
    ],
    ids=lambda answer: repr(answer[:40]),
)
async def test_an_answer_that_is_not_http_is_a_failure(answer: bytes) -> None:
    async with receiving(saying(answer)) as receiver, opened() as sink:
        result = await deliver(sink, receiver.url)
    assert result == SinkResult("the answer is not HTTP, or its head is too long")


async def test_a_refused_connection_is_a_failure() -> None:
    async with receiving(saying(OK)) as receiver:
        pass
    async with opened() as sink:
        result = await deliver(sink, receiver.url)
    assert result == SinkResult("no connection: connection refused")


# Answers without an end


async def test_a_huge_answer_is_cut_and_judged_by_its_status() -> None:
    chunk = b"x" * 64 * 1024

    async def pour(_: Request, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        with suppress(OSError):
            while not writer.is_closing() and receiver.sent < 1_000_000_000:
                writer.write(chunk)
                await writer.drain()
                receiver.sent += len(chunk)
        receiver.hung_up += 1
        return False

    async with receiving(pour) as receiver, opened() as sink:
        tracemalloc.start()
        try:
            result = await deliver(sink, receiver.url)
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert result == SinkResult(None, 200, "x" * 500)
        await until(lambda: receiver.hung_up == 1)
    # The buffers of the kernel take some MiB, those of the sink nearly nothing.
    assert receiver.sent < 32 * 1024 * 1024
    assert peak_bytes < 2 * 1024 * 1024


async def test_an_answer_of_the_largest_size_is_read_and_its_connection_is_used_again() -> None:
    length = Limits().webhook_response_bytes_max
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length + b"x" * length
    async with receiving(saying(answer)) as receiver, opened() as sink:
        for _ in range(2):
            assert (await deliver(sink, receiver.url)).error is None
    assert (receiver.accepted, len(receiver.requests)) == (1, 2)


async def test_a_compressed_answer_is_not_decompressed() -> None:
    packed = gzip.compress(bytes(10_000_000))
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    async with receiving(saying(head + packed)) as receiver, opened() as sink:
        result = await deliver(sink, receiver.url)
    assert (result.error, result.response_status) == (None, 200)
    # The excerpt contains the compressed bytes.
    assert result.response_excerpt is not None
    assert "\ufffd" in result.response_excerpt


TIMEOUT = f"timeout after {QUICK.webhook_timeout_s:g} s"


@pytest.mark.parametrize(
    ("head", "drop", "error"),
    [
        (b"", b"", TIMEOUT),
        (b"HTTP/1.1 200 OK\r\n", b"", TIMEOUT),
        (b"HTTP/1.1 200 OK\r\n", b"A: b\r\n", TIMEOUT),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n", TIMEOUT),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x", f"{TIMEOUT}, after an answer 200 had begun"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"1\r\nx\r\n",
            f"{TIMEOUT}, after an answer 200 had begun",
        ),
        (b"HTTP/1.1 500 X\r\n\r\n", b"x", "answered 500"),
    ],
    ids=repr,
)
async def test_an_answer_without_an_end_is_cut_at_the_timeout(
    head: bytes, drop: bytes, error: str
) -> None:
    async with receiving(dripping(head, drop)) as receiver, opened(limits=QUICK) as sink:
        started = time.monotonic()
        result = await deliver(sink, receiver.url)
        assert time.monotonic() - started >= QUICK.webhook_timeout_s * 0.9
        assert result.error == error
        await until(lambda: receiver.accepted == 1)
        assert repr(sink) == "<WebhookSink open, 0 under way>"


async def test_a_receiver_that_accepts_no_connection_is_given_up() -> None:
    # A full queue of the kernel drops further connections, as a firewall does.
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listening, socket.socket() as first:
        first.connect(listening.getsockname())
        async with opened(limits=QUICK) as sink:
            url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
            results = await asyncio.gather(*(deliver(sink, url) for _ in range(4)))
    errors = {result.error for result in results}
    assert errors <= {NO_CONNECTION, TIMEOUT}
    assert NO_CONNECTION in errors


async def test_a_cancelled_delivery_stops_at_once() -> None:
    async with receiving(dripping(b"", b"")) as receiver, opened() as sink:
        attempt = asyncio.create_task(deliver(sink, receiver.url))
        await until(lambda: len(receiver.requests) == 1)
        assert repr(sink) == "<WebhookSink open, 1 under way>"
        attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt
    assert repr(sink) == "<WebhookSink closed, 0 under way>"


# Connections that are kept


async def test_a_kept_connection_that_closes_at_the_request_costs_no_attempt() -> None:
    answered: set[asyncio.StreamWriter] = set()

    async def answer_once(_: Request, writer: asyncio.StreamWriter) -> bool:
        if writer in answered:
            return False
        answered.add(writer)
        writer.write(OK)
        return True

    async with receiving(answer_once) as receiver, opened() as sink:
        for _ in range(2):
            assert (await deliver(sink, receiver.url)).error is None
    assert (receiver.accepted, len(receiver.requests)) == (2, 3)


async def test_an_idle_connection_is_closed() -> None:
    limits = replace(Limits(), webhook_keepalive_s=0.05)
    async with receiving(saying(OK)) as receiver, opened(limits=limits) as sink:
        assert (await deliver(sink, receiver.url)).error is None
        await until(lambda: receiver.hung_up == 1)
        assert (await deliver(sink, receiver.url)).error is None
    assert (receiver.accepted, len(receiver.requests)) == (2, 2)


async def test_there_are_at_most_as_many_connections_as_held_deliveries() -> None:
    answers = asyncio.Event()

    async def wait_and_answer(_: Request, writer: asyncio.StreamWriter) -> None:
        await answers.wait()
        writer.write(OK)

    limits = replace(Limits(), notify_held_max=2)
    async with receiving(wait_and_answer) as receiver, opened(limits=limits) as sink:
        attempts = [asyncio.create_task(deliver(sink, receiver.url)) for _ in range(5)]
        await until(lambda: len(receiver.requests) == 2)
        assert repr(sink) == "<WebhookSink open, 5 under way>"
        answers.set()
        assert [result.error for result in await asyncio.gather(*attempts)] == [None] * 5
    assert (receiver.accepted, len(receiver.requests)) == (2, 5)
