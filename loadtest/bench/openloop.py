"""A load generator that keeps its rate even while the service stalls (an open loop).

The latency of a request counts from the time at which it was due, not from the time at which a
connection was free for it. Otherwise the generator would send fewer requests during a stall and
measure the stall too rarely (coordinated omission,
https://www.scylladb.com/2021/04/22/on-coordinated-omission/).
"""

import asyncio
import json
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import cast
from uuid import uuid4

import uvloop

_LAST_ANSWERS_S = 5.0
# Requests that are due within a tick are sent together. uvloop's timers have a resolution of 1 ms:
# with a shorter tick the loop would never sleep.
_TICK_S = 0.001
_GET = "GET /wallets/{wallet}{query} HTTP/1.1\r\nHost: bench\r\n\r\n"
_POST = (
    "POST /transfers HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
    "Idempotency-Key: {key}\r\n{authorization}Content-Length: {length}\r\n\r\n{body}"
)

# The number of a request -> its bytes.
MakeRequest = Callable[[int], bytes]


class _Connection(asyncio.Protocol):
    """Sends one request at a time and reads its answer, which has a Content-Length."""

    def __init__(self, generator: "_Generator") -> None:
        self._generator = generator
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._due_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transport has the methods of asyncio's, but is not a subclass.
        self._transport = cast(asyncio.Transport, transport)
        self._generator.free(self)

    def send(self, request: bytes, due_at: float) -> None:
        """Send it; its latency counts from `due_at`."""
        assert self._transport is not None
        self._due_at = due_at
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._received[:end].lower()
        start = head.index(b"content-length:") + 15
        length = int(head[start:].split(b"\r\n", 1)[0])
        if len(self._received) < end + 4 + length:
            return
        status = int(self._received[9:12])
        self._received = b""
        self._generator.answered(status, time.perf_counter() - self._due_at)
        self._generator.free(self)


class _Generator:
    def __init__(self, request: MakeRequest) -> None:
        self._request = request
        self._count = 0
        self._idle: deque[_Connection] = deque()
        self._due: deque[float] = deque()
        self._total = -1
        self._all_answered = asyncio.Event()
        self.latencies_s: list[float] = []
        self.statuses: Counter[int] = Counter()

    def free(self, connection: _Connection) -> None:
        """The connection is idle; send an overdue request if there is one."""
        self._idle.append(connection)
        self._send_due()

    def answered(self, status: int, latency_s: float) -> None:
        self.statuses[status] += 1
        self.latencies_s.append(latency_s)
        if len(self.latencies_s) == self._total:
            self._all_answered.set()

    def _send_due(self) -> None:
        while self._due and self._idle:
            self._idle.popleft().send(self._request(self._count), self._due.popleft())
            self._count += 1

    async def run(self, rate: float, seconds: float) -> None:
        """Send at this rate for this time, then wait up to 5 s for the last answers."""
        started = time.perf_counter()
        number, self._total = 0, int(rate * seconds)
        while number < self._total:
            now = time.perf_counter()
            while number < self._total and started + number / rate <= now:
                self._due.append(started + number / rate)
                number += 1
            self._send_due()
            await asyncio.sleep(_TICK_S)
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_ANSWERS_S):
                await self._all_answered.wait()


def _request_of(kind: str, pairs: list[list[str]]) -> MakeRequest:
    """Transfers between the pairs, or reads of both wallets of each pair.

    A pair may have a third member, the token of an API key for its transfer.
    kind: `transfers`, `plain` reads, or reads of an instant: `settled` is the start of the run,
    `now` the time of the request.
    """
    run, started = uuid4().hex[:12], datetime.now(UTC)

    def transfer(number: int) -> bytes:
        source, destination, *token = pairs[number % len(pairs)]
        authorization = f"Authorization: Bearer {token[0]}\r\n" if token else ""
        body = json.dumps(
            {
                "source_wallet_id": source,
                "destination_wallet_id": destination,
                "amount": 1,
                "currency": "USD",
            }
        )
        request = _POST.format(
            key=f"{run}-{number}", authorization=authorization, length=len(body), body=body
        )
        return request.encode()

    def read(number: int) -> bytes:
        wallet = pairs[number // 2 % len(pairs)][number % 2]
        instant = started if kind == "settled" else datetime.now(UTC)
        query = "" if kind == "plain" else f"?at={instant:%Y-%m-%dT%H:%M:%S.%fZ}"
        return _GET.format(wallet=wallet, query=query).encode()

    return transfer if kind == "transfers" else read


async def main(
    port: int, pairs: Path, rate: float, seconds: float, *, kind: str, connections: int
) -> None:
    """Print a JSON object: p50_ms, p99_ms, statuses, and the number of unanswered requests."""
    generator = _Generator(_request_of(kind, [line.split() for line in pairs.open()]))
    loop = asyncio.get_running_loop()
    for _ in range(connections):
        await loop.create_connection(lambda: _Connection(generator), "127.0.0.1", port)
    await generator.run(rate, seconds)
    # Leave out the first half second, in which caches and connections are cold.
    latencies = sorted(generator.latencies_s[int(rate * 0.5) :]) or [0.0]
    found = {
        "p50_ms": latencies[len(latencies) // 2] * 1000,
        "p99_ms": latencies[len(latencies) * 99 // 100] * 1000,
        "statuses": generator.statuses,
        "unanswered": int(rate * seconds) - len(generator.latencies_s),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    _, port, pairs, rate, seconds, kind, connections = sys.argv
    generating = main(
        *(int(port), Path(pairs), float(rate), float(seconds)),
        kind=kind,
        connections=int(connections),
    )
    uvloop.run(generating)
