"""A webhook sink, and receivers that answer with raw bytes, valid HTTP or not."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from aiohttp.abc import AbstractResolver, ResolveResult

from tests.support.waiting import SLOWNESS
from transferd.config import Limits, Settings
from transferd.domain.webhook import OldSecret, Webhook, WebhookStatus
from transferd.notifications.sinks.result import SinkResult
from transferd.notifications.sinks.webhook import WebhookSink

NOW = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OLD_SECRET = "whsec_" + "b2xk" * 8
BODY = '{"reference":"für 🎂"}'.encode()
TRACEPARENT = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
HUSH = "hush-this-is-a-token"
# Short timeouts, for answers that do not arrive or do not end.
QUICK = replace(
    Limits(), webhook_timeout_s=round(0.5 * SLOWNESS, 1), webhook_connect_timeout_s=0.4 * SLOWNESS
)
NO_CONNECTION = f"no connection within {QUICK.webhook_connect_timeout_s:g} s"
PATIENT = replace(Limits(), webhook_timeout_s=SLOWNESS, webhook_connect_timeout_s=SLOWNESS)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfine\n"
LOOPBACK = "127.0.0.0/8"


@dataclass
class Request:
    """A request to a receiver."""

    line: str
    headers: dict[str, str]
    body: bytes


Answer = Callable[[Request, asyncio.StreamWriter], Awaitable[bool | None]]


@dataclass
class Receiver:
    """A receiver on a port of loopback, with all its requests."""

    port: int
    accepted: int = 0
    requests: list[Request] = field(default_factory=list)
    # The number of written bytes, and of connections that the client ended.
    sent: int = 0
    hung_up: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?token={HUSH}"


def saying(answer: bytes) -> Answer:
    """Answer each request of a connection with these bytes."""

    async def answer_it(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()

    return answer_it


def saying_once(answer: bytes) -> Answer:
    """Answer a request with these bytes and close the connection."""

    async def answer_it(_: Request, writer: asyncio.StreamWriter) -> bool:
        writer.write(answer)
        await writer.drain()
        return False

    return answer_it


async def read_request(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    line, *fields = head.rstrip().split("\r\n")
    headers = {name.lower(): value for name, value in (each.split(": ", 1) for each in fields)}
    return Request(line, headers, await reader.readexactly(int(headers["content-length"])))


@asynccontextmanager
async def receiving(
    answer: Answer,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Receiver]:
    """A receiver that answers each request with `answer`; False closes the connection."""
    links: dict[asyncio.Task[None], None] = {}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        receiver.accepted += 1
        try:
            while True:
                request = await read_request(reader)
                receiver.requests.append(request)
                if await answer(request, writer) is False:
                    break
        except (asyncio.IncompleteReadError, OSError):
            receiver.hung_up += 1
        except asyncio.CancelledError:
            writer.transport.abort()
            raise
        finally:
            writer.transport.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.get_running_loop().create_task(serve(reader, writer))
        links[link] = None
        link.add_done_callback(links.pop)

    server = await asyncio.start_server(accept, host, port, ssl=tls)
    receiver = Receiver(server.sockets[0].getsockname()[1])
    try:
        yield receiver
    finally:
        server.close()
        for link in links:
            link.cancel()
        await asyncio.gather(*links, return_exceptions=True)


def answering(status: int, **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "Content-Length: 2", "", "no"]).encode()


def dripping(head: bytes, drop: bytes) -> Answer:
    async def drip(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while not writer.is_closing():
            writer.write(drop)
            await writer.drain()
            await asyncio.sleep(0.02 * SLOWNESS)

    return drip


class Names(AbstractResolver):
    """A resolver with these addresses, by host name."""

    def __init__(self, addresses: Mapping[str, list[str]]) -> None:
        self._addresses = addresses
        self.is_closed = False

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        if host not in self._addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)
            for address in self._addresses[host]
        ]

    async def close(self) -> None:
        self.is_closed = True


def opened(
    *,
    networks: str = LOOPBACK,
    http: bool = True,
    limits: Limits | None = None,
    clock: Callable[[], datetime] = lambda: NOW,
    resolver: AbstractResolver | None = None,
) -> WebhookSink:
    settings = Settings(webhook_allow_http=http, webhook_allow_networks=networks)
    return WebhookSink(settings, limits or Limits(), clock, resolver)


def endpoint(url: str, *old_secrets: OldSecret) -> Webhook:
    return Webhook(
        id="hook",
        url=url,
        events=("*",),
        wallet_id=None,
        status=WebhookStatus.ACTIVE,
        disabled_reason=None,
        secret=SECRET,
        old_secrets=old_secrets,
        created_at=NOW,
        updated_at=NOW,
    )


async def deliver(sink: WebhookSink, url: str) -> SinkResult:
    """Make one attempt. AssertionError if its error is not one line or contains a secret."""
    result = await sink.deliver(endpoint(url), "event-1", BODY, TRACEPARENT)
    if result.error is not None:
        assert result.error.isprintable()
        assert HUSH not in result.error
        assert SECRET.removeprefix("whsec_") not in result.error
        assert not result.error.startswith(" ")
    return result
