"""Events as signed HTTP requests to endpoints that clients have named: Standard Webhooks.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import asyncio
import base64
import errno
import hashlib
import hmac
import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import SimpleNamespace

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from transferd import __version__
from transferd.commit.events import CLOUD_EVENT
from transferd.config import Limits, Settings
from transferd.domain.webhook import Webhook, url_fault
from transferd.notifications.sinks.guard import AddressRefused, Guard, ThreadsResolver
from transferd.notifications.sinks.result import SinkResult

_SECRET_PREFIX = "whsec_"  # nosec B105
_HTTP_GONE = 410


def sign(secret: str, event_id: str, timestamp_s: int, body: bytes) -> str:
    """The signature of a request, `v1,` and base64. `secret` is `whsec_` and base64."""
    key = base64.b64decode(secret.removeprefix(_SECRET_PREFIX), validate=True)
    signed = f"{event_id}.{timestamp_s}.".encode() + body
    digest = hmac.new(key, signed, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


def retry_after_s(value: str | None, now: datetime, longest_s: float) -> float | None:
    """A Retry-After header (seconds or a date) in seconds from now, in [0, longest_s].

    None if there is none, or it is neither.
    """
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        # A float, because a number of a thousand digits must not be an error.
        return min(float(text), longest_s)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    # Two of the three date formats do not name the zone, which is always UTC.
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return min(max((aware - now).total_seconds(), 0.0), longest_s)


@dataclass(slots=True)
class _Answer:
    """The part of an answer that has come; filled in place, so that it is there if the rest is not.

    `on_kept`: the request went into a connection that was kept open from an earlier one.
    """

    on_kept: bool = False
    status: int | None = None
    retry_after: str | None = None
    body: bytearray = field(default_factory=bytearray)

    def excerpt(self, chars_max: int) -> str | None:
        """The beginning of the body for people to read; None if there is nothing to read."""
        # No character has more than four bytes.
        text = self.body[: 4 * chars_max].decode(errors="replace")
        readable = "".join(char if char.isprintable() else " " for char in text)
        return readable.strip()[:chars_max] or None


class WebhookSink:
    """Delivers to webhooks. Opens with `async with`; `clock` gives UTC.

    An attempt takes no longer than `webhook_timeout_s`, reads no more than
    `webhook_response_bytes_max` of its answer, and connects only to addresses that are public or
    inside the allowed networks. Redirects and proxies of the environment are not followed, and
    cookies are not kept.
    """

    def __init__(
        self,
        settings: Settings,
        limits: Limits,
        clock: Callable[[], datetime],
        resolver: AbstractResolver | None = None,
    ) -> None:
        self._allow_http = settings.webhook_allow_http
        self._networks = settings.webhook_networks
        self._limits = limits
        self._clock = clock
        self._guard = Guard(self._networks)
        self._resolver = resolver or ThreadsResolver(limits.webhook_lookups_max)
        self._session: aiohttp.ClientSession | None = None
        self._under_way = 0

    def __repr__(self) -> str:
        state = "closed" if self._session is None else "open"
        return f"<WebhookSink {state}, {self._under_way} under way>"

    async def __aenter__(self) -> "WebhookSink":
        limits = self._limits
        context = ssl.create_default_context()
        context.set_alpn_protocols(["http/1.1"])
        connector = aiohttp.TCPConnector(
            ssl=context,
            resolver=self._resolver,
            socket_factory=self._guard.open_socket,
            # A notifier holds hardly more than that, so no request waits for a connection.
            limit=limits.notify_held_max,
            keepalive_timeout=limits.webhook_keepalive_s,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            # The whole attempt has one time limit, in `deliver`.
            timeout=aiohttp.ClientTimeout(sock_connect=limits.webhook_connect_timeout_s),
            headers={"User-Agent": f"transferd/{__version__}", "Accept-Encoding": "identity"},
            trace_configs=[_traces()],
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()
        await self._resolver.close()

    async def deliver(
        self, webhook: Webhook, event_id: str, body: bytes, traceparent: str | None
    ) -> SinkResult:
        """Send an event once. Only an answer 2xx that came to its end is success.

        A failure of a receiver is a result. Raises ValueError for a secret that is not base64.
        """
        fault = url_fault(webhook.url, allow_http=self._allow_http, allowed=self._networks)
        if fault is not None:
            return SinkResult(f"the URL {fault}")
        headers = self._headers(webhook, event_id, body, traceparent)
        answer = _Answer()
        self._under_way += 1
        try:
            async with asyncio.timeout(self._limits.webhook_timeout_s):
                while not await self._post(webhook.url, headers, body, answer):
                    pass
        except (aiohttp.ClientError, OSError) as error:
            fault = _fault_of(error, self._limits)
        finally:
            self._under_way -= 1
        return self._result(answer, fault)

    def _headers(
        self, webhook: Webhook, event_id: str, body: bytes, traceparent: str | None
    ) -> dict[str, str]:
        now = self._clock()
        timestamp_s = int(now.timestamp())
        secrets = [webhook.secret, *(old.secret for old in webhook.promised(now))]
        headers = {
            "Content-Type": CLOUD_EVENT,
            "webhook-id": event_id,
            "webhook-timestamp": str(timestamp_s),
            "webhook-signature": " ".join(
                sign(secret, event_id, timestamp_s, body) for secret in secrets
            ),
        }
        if traceparent is not None:
            headers["traceparent"] = traceparent
        return headers

    async def _post(self, url: str, headers: dict[str, str], body: bytes, answer: _Answer) -> bool:
        """One request; fills `answer`. Raises ClientError and OSError.

        False: it went into a kept connection that the receiver had just closed. That is not a
        failure of the receiver, and the request has to be sent again.
        """
        assert self._session is not None, "open the sink first"
        answer.on_kept = False
        try:
            async with self._session.post(
                # As it was given: a signed URL is valid only with each character of path and query.
                URL(url, encoded=True),
                data=body,
                headers=headers,
                allow_redirects=False,
                trace_request_ctx=answer,
            ) as response:
                answer.status = response.status
                answer.retry_after = response.headers.get("Retry-After")
                await self._read(response, answer.body)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            if answer.on_kept and answer.status is None:
                return False
            raise
        return True

    async def _read(self, response: aiohttp.ClientResponse, body: bytearray) -> None:
        bytes_max = self._limits.webhook_response_bytes_max
        try:
            while len(body) < bytes_max:
                chunk = await response.content.read(bytes_max - len(body))
                if not chunk:
                    return
                body += chunk
        finally:
            _cut_off(response)

    def _result(self, answer: _Answer, fault: str | None) -> SinkResult:
        limits = self._limits
        status = answer.status
        if status is None:
            return SinkResult(fault)
        excerpt = answer.excerpt(limits.webhook_excerpt_chars)
        # Some frameworks send the status before the work is done, so an answer that breaks off does
        # not count. A receiver recognizes an event that comes twice by its id.
        error = None if fault is None else f"{fault}, after an answer {status} had begun"
        if not 200 <= status < 300:
            error = f"answered {status}"
        if error is None:
            return SinkResult(None, status, excerpt)
        wait_s = retry_after_s(answer.retry_after, self._clock(), limits.webhook_retry_after_max_s)
        return SinkResult(error, status, excerpt, wait_s, status == _HTTP_GONE)


def _traces() -> aiohttp.TraceConfig:
    """Notes in the `_Answer` of a request that its connection is not a new one."""

    async def note(_: aiohttp.ClientSession, context: SimpleNamespace, __: object) -> None:
        context.trace_request_ctx.on_kept = True

    traces = aiohttp.TraceConfig()
    traces.on_connection_reuseconn.append(note)
    return traces


def _cut_off(response: aiohttp.ClientResponse) -> None:
    """Close the connection of an answer that has not come to its end.

    At once: a TLS connection that is closed in order waits for the other side to take part.
    """
    connection = response.connection
    if connection is not None and connection.transport is not None:
        connection.transport.abort()


def _fault_of(error: Exception, limits: Limits) -> str:
    """The failure in words of this program: the library's quote the URL and the answer."""
    match error:
        case aiohttp.ClientConnectorError():
            return _connect_fault(error)
        case aiohttp.ConnectionTimeoutError():
            return f"no connection within {limits.webhook_connect_timeout_s:g} s"
        case TimeoutError():
            return f"timeout after {limits.webhook_timeout_s:g} s"
        case aiohttp.ServerDisconnectedError():
            return "the connection was closed without an answer"
        case aiohttp.ClientResponseError():
            return "the answer is not HTTP, or its head is too long"
        case aiohttp.ClientPayloadError():
            return "the answer broke off"
        case _:
            return "the connection broke"


def _connect_fault(error: aiohttp.ClientConnectorError) -> str:
    cause = error.os_error
    match error:
        case aiohttp.ClientConnectorCertificateError():
            reason = getattr(cause, "verify_message", "") or "not valid"
            return f"the certificate is refused: {reason}"
        case aiohttp.ClientConnectorSSLError():
            reason = getattr(cause, "reason", None) or "handshake failed"
            return f"no TLS connection: {reason.lower().replace('_', ' ')}"
        case aiohttp.ClientConnectorError(os_error=AddressRefused()):
            return str(cause.strerror)
        case aiohttp.ClientConnectorError(os_error=OSError(errno=errno.EACCES)):
            return "no address of the name is allowed"
        case aiohttp.ClientConnectorDNSError():
            return f"the name cannot be resolved: {cause.strerror}"
        case _:
            reason = os.strerror(cause.errno).lower() if cause.errno else type(cause).__name__
            return f"no connection: {reason}"
