"""Opens the `Facts` of a process: its hooks and, where it is turned on, tracing."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

from transferd.limits import ConfigurationError, Limits
from transferd.observability.facts import Facts, Hook


class TracingOptions(NamedTuple):
    """How to trace: the parameters of the same names of `Tracing`."""

    service: str
    ratio: float
    endpoint: str | None = None


@asynccontextmanager
async def open_facts(
    *hooks: Hook,
    limits: Limits,
    clock: Callable[[], float],
    per_request_facts: bool,
    tracing: TracingOptions | None,
) -> AsyncIterator[Facts]:
    """The facts of a process. The end of the block sends the spans that wait.

    Raises ConfigurationError if tracing is wanted and not installed.
    """
    facts = Facts(*hooks, per_request_facts=per_request_facts)
    if tracing is None:
        yield facts
        return
    try:
        # Imported only here: it takes a moment, and most processes run without.
        from transferd.observability.tracing import Tracing
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "TRANSFERD_TRACING=on needs OpenTelemetry: pip install 'transferd[tracing]'"
        ) from error
    opened = Tracing(**tracing._asdict(), limits=limits, clock=clock, emit=facts.emit)
    async with opened as spans:
        facts.trace(spans, spans.begin)
        yield facts
