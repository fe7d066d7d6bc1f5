"""Opens the `Facts` of a process, with hooks and, if it is turned on, tracing."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from transferd.config import ConfigurationError, Limits, Settings
from transferd.observability.facts import Facts, Hook


@asynccontextmanager
async def open_facts(
    *hooks: Hook, service: str, settings: Settings, limits: Limits, clock: Callable[[], float]
) -> AsyncIterator[Facts]:
    """The facts of a process. `service` is its name in traces. Sends waiting spans at the end.

    Raises ConfigurationError if tracing is turned on but not installed.
    """
    facts = Facts(*hooks, per_request_facts=settings.log_level == "DEBUG")
    if settings.tracing == "off":
        yield facts
        return
    try:
        # Imported only here: OpenTelemetry is optional, and its import is slow.
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
