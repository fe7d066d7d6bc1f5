"""Who is told of what happens: the hooks of this process, and tracing where it is turned on."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

from transferd.limits import ConfigurationError, Limits
from transferd.observability.facts import Facts, Hook


class TracingOptions(NamedTuple):
    """How to trace. `service` is the name in the traces, `ratio` the share of new ones to record.

    Without `endpoint`, the address of the collector, OpenTelemetry's own variables name it.
    """

    service: str
    ratio: float
    endpoint: str | None = None


@asynccontextmanager
async def telling(
    *hooks: Hook,
    limits: Limits,
    clock: Callable[[], float],
    tells_each: bool,
    tracing: TracingOptions | None,
) -> AsyncIterator[Facts]:
    """Facts for a process. What is traced goes out until the block ends.

    Raises ConfigurationError if tracing is wanted and not installed.
    """
    facts = Facts(*hooks, tells_each=tells_each)
    if tracing is None:
        yield facts
        return
    try:
        # Only now: it takes a moment to import, and most do without.
        from transferd.observability.tracing import Tracing
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "TRANSFERD_TRACING=on needs OpenTelemetry: pip install 'transferd[tracing]'"
        ) from error
    async with Tracing(tracing, limits, clock, facts.emit) as traces:
        facts.trace(traces, traces.begin)
        yield facts
