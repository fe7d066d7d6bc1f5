"""A load generator that keeps its rate whatever the service does (an open loop).

A request's latency counts from when it was due, not from when a connection was free for it: else a
service that stalls would be asked less just then, and its stall would be seen by few (coordinated
omission, https://www.scylladb.com/2021/04/22/on-coordinated-omission/).
"""

import asyncio
import json
import sys
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import cast
from uuid import uuid4

import uvloop

_CONNECTIONS = 128
_LAST_ANSWERS_S = 5.0
# What is due within a tick goes out together. A shorter one keeps a core busy: uvloop's timers have
# milliseconds.
_TICK_S = 0.001
_HEAD = (
    "POST /transfers HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
    "Idempotency-Key: {key}\r\nContent-Length: {length}\r\n\r\n"
)


class _Connection(asyncio.Protocol):
    """Sends one request at a time and reads its answer, which has a Content-Length."""

    def __init__(self, generator: "_Generator") -> None:
        self._generator = generator
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._due_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transport is none of asyncio's classes, though it does all that they do.
        self._transport = cast(asyncio.Transport, transport)
        self._generator.free(self)

    def send(self, request: bytes, due_at: float) -> None:
        """Send it; the answer is timed from `due_at`."""
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

    def connection_lost(self, error: Exception | None) -> None:
        self._generator.lost += 1


class _Generator:
    def __init__(self, pairs: list[str]) -> None:
        self._bodies = [
            json.dumps(
                {
                    "source_wallet_id": pair.split()[0],
                    "destination_wallet_id": pair.split()[1],
                    "amount": 1,
                    "currency": "USD",
                }
            )
            for pair in pairs
        ]
        self._run = uuid4().hex[:12]
        self._count = 0
        self._idle: deque[_Connection] = deque()
        self._due: deque[float] = deque()
        self._total = -1
        self._all_answered = asyncio.Event()
        self.latencies_s: list[float] = []
        self.statuses: dict[int, int] = {}
        self.lost = 0

    def free(self, connection: _Connection) -> None:
        """This one can send: whatever is overdue goes first."""
        if self._due:
            connection.send(self._request(), self._due.popleft())
        else:
            self._idle.append(connection)

    def answered(self, status: int, latency_s: float) -> None:
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self.latencies_s.append(latency_s)
        if len(self.latencies_s) == self._total:
            self._all_answered.set()

    def _request(self) -> bytes:
        body = self._bodies[self._count % len(self._bodies)]
        self._count += 1
        head = _HEAD.format(key=f"{self._run}-{self._count}", length=len(body))
        return (head + body).encode()

    async def run(self, rate: float, seconds: float) -> None:
        """Send at that rate, evenly, for so long; then wait for what is on its way."""
        started = time.perf_counter()
        sent, total = 0, int(rate * seconds)
        self._total = total
        while sent < total:
            now = time.perf_counter()
            while sent < total and started + sent / rate <= now:
                due_at = started + sent / rate
                sent += 1
                if self._idle:
                    self._idle.popleft().send(self._request(), due_at)
                else:
                    self._due.append(due_at)
            await asyncio.sleep(_TICK_S)
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_ANSWERS_S):
                await self._all_answered.wait()


async def main(port: int, pairs: list[str], rate: float, seconds: float) -> None:
    """Print a JSON object: p50_ms, p99_ms, statuses, and what was left without an answer."""
    generator = _Generator(pairs)
    loop = asyncio.get_running_loop()
    for _ in range(_CONNECTIONS):
        await loop.create_connection(lambda: _Connection(generator), "127.0.0.1", port)
    await generator.run(rate, seconds)
    # The first moments are those of cold caches and connections.
    latencies = sorted(generator.latencies_s[int(rate * 0.5) :]) or [0.0]
    found = {
        "p50_ms": latencies[len(latencies) // 2] * 1000,
        "p99_ms": latencies[len(latencies) * 99 // 100] * 1000,
        "statuses": generator.statuses,
        "unanswered": int(rate * seconds) - len(generator.latencies_s),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    lines = Path(sys.argv[2]).read_text().splitlines()
    uvloop.run(main(int(sys.argv[1]), lines, float(sys.argv[3]), float(sys.argv[4])))
