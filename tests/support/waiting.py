"""Waiting for conditions instead of sleeping; the only place that decides how long tests wait.

A time in a test is meant for the machine that the tests were written on, while nothing else runs.
`SLOWNESS` is the factor by which this run is slower, and every deadline is longer by it.
"""

import asyncio
import json
import math
import os
import time
from collections.abc import Awaitable, Callable

_POLL_S = 0.01
# Other load may begin after the speed was measured, and the tests of other processes are load too.
# A deadline that is too long costs time only in a test that fails.
_ROOM = 4.0
# The time of one piece of work there: JSON, and exchanges between two tasks over a socket.
_PIECE_S = 0.070
_PIECES = 3
_VARIABLE = "SLOWNESS_OF_TESTS"


async def _piece() -> None:
    """Work that is typical of tests."""
    for number in range(20_000):
        json.dumps({"number": number, "text": "x" * 20})

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while byte := await reader.read(1):
            writer.write(byte)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        for _ in range(500):
            writer.write(b"x")
            await reader.readexactly(1)
        writer.close()
        await writer.wait_closed()


def measured_slowness() -> float:
    """How many times longer this machine takes than the one that the tests were written on."""
    started = time.perf_counter()
    for _ in range(_PIECES):
        asyncio.run(_piece())
    return max(1.0, (time.perf_counter() - started) / (_PIECES * _PIECE_S))


# Measured once in a run: the processes of pytest-xdist inherit the variable from their parent.
if _VARIABLE not in os.environ:
    os.environ[_VARIABLE] = f"{measured_slowness():.2f}"
SLOWNESS = float(os.environ[_VARIABLE])


def patient_s(seconds: float) -> float:
    """A deadline that a test reaches only if something is broken, on this machine."""
    return seconds * SLOWNESS * _ROOM


async def until(condition: Callable[[], Awaitable[bool] | bool], *, within_s: float = 10.0) -> None:
    """Return as soon as the condition holds; AssertionError if it does not in time.

    The time is counted in polls. Each takes longer where this process, or the server that it asks,
    has to wait for a core, so load that begins in the middle of a run extends the deadline.
    """
    for _ in range(math.ceil(patient_s(within_s) / _POLL_S)):
        holds = condition()
        if await holds if isinstance(holds, Awaitable) else holds:
            return
        await asyncio.sleep(_POLL_S)
    raise AssertionError(f"not within {patient_s(within_s):.0f} s: {condition}")
