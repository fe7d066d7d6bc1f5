"""How the loops of a worker go on when PostgreSQL or the broker fails."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from transferd.config import Limits
from transferd.ledger.store.errors import StoreError
from transferd.notifications.broker import TransportFailure


async def run_forever(
    step: Callable[[], Awaitable[object]],
    limits: Limits,
    note: Callable[[Exception | None], None],
) -> None:
    """Run a step until cancelled. `note` gets the failure of each step, or None.

    After a failure the next step waits, and twice as long after each further one, up to a maximum.
    """
    wait_s = 0.0
    while True:
        started = time.monotonic()
        try:
            await step()
        except (StoreError, TransportFailure) as error:
            note(error)
            if time.monotonic() - started > limits.relay_wait_max_s:
                # The step has worked for a while: a connection that was lost.
                wait_s = 0.0
            wait_s = next_wait_s(wait_s, limits)
            await asyncio.sleep(wait_s)
        else:
            note(None)
            wait_s = 0.0


def next_wait_s(wait_s: float, limits: Limits) -> float:
    """The wait after a failure; `wait_s` is the one before it, 0 if there was none."""
    return min(max(wait_s * 2, limits.relay_wait_first_s), limits.relay_wait_max_s)


def fault_of(error: Exception | None) -> str | None:
    """A failure in words; the messages of the driver do not name the server."""
    if error is None:
        return None
    return f"PostgreSQL: {error}" if isinstance(error, StoreError) else str(error)
