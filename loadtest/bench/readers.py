"""Readers of wallets in an open loop: each has a connection, and a question now and then."""

import asyncio
import json
import sys
from collections import Counter
from datetime import UTC, datetime

import uvloop

# The first wallet is the hot one; so many others are read as much as it is.
_OTHERS = 100
_KINDS = ("plain", "settled", "now")


def _path(kind: str, wallet: str, started: str) -> str:
    """The question: the wallet as it is, before the readers began, or before this moment."""
    if kind == "plain":
        return f"/wallets/{wallet}"
    return f"/wallets/{wallet}?at={started if kind == 'settled' else _now()}"


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"


class _Readers:
    def __init__(self, port: int, kind: str, wallets: list[str], pause_s: float) -> None:
        self._port = port
        self._kind = kind
        self._wallets = wallets
        self._pause_s = pause_s
        self._started = _now()
        self.statuses: Counter[int] = Counter()
        self.latencies_s: list[float] = []

    async def read(self, number: int, count: int, until_s: float) -> None:
        """One of `count` readers: a question each `pause_s`, or as soon as the last is answered."""
        loop = asyncio.get_running_loop()
        wallet = self._wallets[0 if number % 2 else number // 2 % len(self._wallets)]
        due_s = loop.time() + self._pause_s * number / count
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        while (due_s := max(due_s, loop.time())) < until_s:
            await asyncio.sleep(due_s - loop.time())
            path = _path(self._kind, wallet, self._started)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = head[head.index(b"content-length:") + 15 :].split(b"\r\n", 1)[0]
            await reader.readexactly(int(length))
            self.statuses[int(head[9:12])] += 1
            self.latencies_s.append(loop.time() - due_s)
            due_s += self._pause_s
        writer.close()


async def main(port: int, kind: str, count: int, pause_s: float, seconds: float) -> None:
    """Print a JSON object: statuses, p50_ms and p99_ms."""
    assert kind in _KINDS
    wallets = [f"00000000-0000-7000-8000-{n + 1:012x}" for n in range(_OTHERS + 1)]
    readers = _Readers(port, kind, wallets, pause_s)
    until_s = asyncio.get_running_loop().time() + seconds
    await asyncio.gather(*(readers.read(n, count, until_s) for n in range(count)))
    latencies = sorted(readers.latencies_s)
    found = {
        "statuses": dict(readers.statuses),
        "p50_ms": latencies[len(latencies) // 2] * 1000,
        "p99_ms": latencies[len(latencies) * 99 // 100] * 1000,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    _, port, kind, count, pause_s, seconds = sys.argv
    uvloop.run(main(int(port), kind, int(count), float(pause_s), float(seconds)))
