"""Waits for conditions, and the scale of all deadlines in tests.

Times in tests are for the reference machine, on which the tests were written, without other load.
`SLOWNESS` is the factor by which this machine is slower; every deadline is multiplied by it.
"""

import asyncio
import json
import math
import os
import time
from collections.abc import Awaitable, Callable

_POLL_S = 0.01
# A further factor for deadlines: load may begin after the measurement, and other processes run
# tests too. A deadline that is too long costs time only in a test that fails.
_MARGIN = 4.0
# The time of `_piece` on the reference machine.
_PIECE_S = 0.070
_PIECES = 3
_VARIABLE = "SLOWNESS_OF_TESTS"


async def _piece() -> None:
    """Work that is typical of tests: JSON, and round trips between two tasks over a socket."""
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
    """The time that this machine takes, divided by that of the reference machine; at least 1."""
    started = time.perf_counter()
    for _ in range(_PIECES):
        asyncio.run(_piece())
    return max(1.0, (time.perf_counter() - started) / (_PIECES * _PIECE_S))


# Measured once per run: the processes of pytest-xdist inherit the variable.
if _VARIABLE not in os.environ:
    os.environ[_VARIABLE] = f"{measured_slowness():.2f}"
SLOWNESS = float(os.environ[_VARIABLE])


def patient_s(seconds: float) -> float:
    """The deadline on this machine; a test reaches it only if something is broken."""
    return seconds * SLOWNESS * _MARGIN


async def until(condition: Callable[[], Awaitable[bool] | bool], *, within_s: float = 10.0) -> None:
    """Return as soon as the condition holds; AssertionError if it does not in time.

    The deadline is a number of polls. Polls take longer while this process, or the server that it
    polls, waits for a core, so load that begins during a run extends the deadline.
    """
    for _ in range(math.ceil(patient_s(within_s) / _POLL_S)):
        holds = condition()
        if await holds if isinstance(holds, Awaitable) else holds:
            return
        await asyncio.sleep(_POLL_S)
    raise AssertionError(f"not within {patient_s(within_s):.0f} s: {condition}")
