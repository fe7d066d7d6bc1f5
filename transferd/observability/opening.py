"""Opens the `Facts` of a process: its hooks and, where it is turned on, tracing."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from transferd.config import ConfigurationError, Limits, Settings
from transferd.observability.facts import Facts, Hook


@asynccontextmanager
async def open_facts(
    *hooks: Hook, service: str, settings: Settings, limits: Limits, clock: Callable[[], float]
) -> AsyncIterator[Facts]:
    """The facts of a process. `service` names it in traces; the end of the block sends its spans.

    Raises ConfigurationError if tracing is wanted and not installed.
    """
    facts = Facts(*hooks, per_request_facts=settings.log_level == "DEBUG")
    if settings.tracing == "off":
        yield facts
        return
    try:
        # Imported only here: it takes a moment, and most processes run without.
        from transferd.observability.tracing import Tracing
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "TRANSFERD_TRACING=on needs OpenTelemetry: pip install 'transferd[tracing]'"
        ) from error
    async with Tracing(
        service=service,
        ratio=settings.tracing_ratio,
        endpoint=settings.tracing_endpoint,
        limits=limits,
        clock=clock,
        emit=facts.emit,
    ) as spans:
        facts.trace(spans, spans.begin)
        yield facts
