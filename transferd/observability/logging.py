"""Facts -> log lines: structlog, JSON, one line each; never a body, a key or a secret."""

import logging
import sys
import traceback
from typing import Any

import orjson
import structlog

from transferd.observability.facts import (
    About,
    ActorFailed,
    CacheFailed,
    CommandPoisoned,
    ExpiryFailed,
    Fact,
    GroupRetried,
    KeyUsesFailed,
    LedgerNotOpened,
    NotificationFinished,
    NotifierFailed,
    RelayFailed,
    RequestFailed,
    RequestFinished,
    SpansLost,
    TransferPosted,
)
from transferd.observability.traceparent import trace_id_of


def configure(level: str) -> None:
    """JSON lines of `level` and above to standard error."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(serializer=orjson.dumps),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        logger_factory=structlog.BytesLoggerFactory(file=sys.stderr.buffer),
        cache_logger_on_first_use=True,
    )
    # While PostgreSQL is unreachable, the driver's pool logs a stack trace for each failed connect.
    # The facts of the group commit give the reason in one line.
    logging.getLogger("asyncpg.pool").setLevel(logging.ERROR)
    # For RabbitMQ, `RelayFailed` and `NotifierFailed` give the reason.
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)
    logging.getLogger("aio_pika").setLevel(logging.CRITICAL)
    # For the collector of traces, `SpansLost` counts the spans that it did not get.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)


# Most facts only change metrics. This set excludes them at the cost of one look-up.
_LOGGED = frozenset(
    {
        RequestFailed,
        CommandPoisoned,
        ActorFailed,
        GroupRetried,
        CacheFailed,
        LedgerNotOpened,
        KeyUsesFailed,
        ExpiryFailed,
        RelayFailed,
        NotifierFailed,
        NotificationFinished,
        RequestFinished,
        TransferPosted,
        SpansLost,
    }
)


class Log:
    """A hook for `Facts`: writes the facts that an operator needs, at their levels."""

    def __init__(self) -> None:
        self._log: Any = structlog.get_logger()

    def __call__(self, fact: Fact) -> None:  # noqa: C901, PLR0912 one flat case per fact
        """Log a fact."""
        if type(fact) not in _LOGGED:
            return
        match fact:
            case RequestFinished(details=None):
                pass
            case RequestFinished():
                self._request(fact)
            case TransferPosted(about):
                self._log.debug("transfer posted", **ids_of(about))
            case RequestFailed(about, route, error):
                self._log.error(
                    "request failed", **ids_of(about), route=route, exception=_traceback(error)
                )
            case CommandPoisoned(command, error, about):
                self._log.error(
                    "command isolated",
                    **ids_of(about),
                    command=command,
                    exception=_traceback(error),
                )
            case ActorFailed(error):
                self._log.error("actor failed and was replaced", exception=_traceback(error))
            case SpansLost(spans):
                self._log.warning("spans lost", spans=spans)
            case GroupRetried(cause, envelopes):
                self._log.warning("group retried", cause=cause, envelopes=envelopes)
            case CacheFailed(error):
                self._log.warning("redis call failed", error=_one_line(error))
            case LedgerNotOpened(ledger, reason):
                self._log.warning("ledger not opened", ledger=ledger, reason=reason)
            case KeyUsesFailed(error):
                self._log.warning("uses of API keys not written", error=_one_line(error))
            case ExpiryFailed(error):
                self._log.warning("holds that are due not expired", error=_one_line(error))
            case RelayFailed(error) | NotifierFailed(error):
                self._log.warning("notifications wait", error=_one_line(error))
            case NotificationFinished(result="skipped"):
                # One per event while an endpoint is disabled; the delivery log shows them.
                pass
            case NotificationFinished(error=str()) as failed:
                # A dead letter is an error; an attempt that is retried is not.
                write = self._log.error if failed.result == "dead" else self._log.info
                write(
                    "delivery failed",
                    **ids_of(failed.about),
                    result=failed.result,
                    attempt=failed.attempt,
                    endpoint=failed.endpoint_id,
                    event_id=failed.event_id,
                    error=failed.error,
                )
            case _:
                pass

    def _request(self, fact: RequestFinished) -> None:
        assert fact.details is not None
        self._log.debug(
            "request",
            **ids_of(fact.details.about),
            method=fact.method,
            route=fact.route,
            status=fact.status,
            code=fact.details.code,
            duration_s=round(fact.duration_s, 6),
        )

    def say(self, event: str, **facts: object) -> None:
        """Log a change of a component's state: started, draining, stopped."""
        self._log.info(event, **facts)


def ids_of(about: About) -> dict[str, str | None]:
    """The ids in a log line about a request, an event or a delivery."""
    ids = {"request_id": about.request_id, "trace_id": trace_id_of(about.traceparent)}
    if about.transfer_id is not None:
        ids["transfer_id"] = about.transfer_id
    return ids


def _traceback(error: BaseException) -> str:
    """The types and code locations of the error and all its causes.

    Without messages: PostgreSQL, the driver and validation quote rows, keys and bodies in theirs.
    """
    parts: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        lines = [f"Traceback of {type(cause).__name__}"]
        lines += [
            f"  {frame.filename}:{frame.lineno} in {frame.name}"
            for frame in traceback.extract_tb(cause.__traceback__)
        ]
        parts.append("\n".join(lines))
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return "\nbecause of ".join(parts)


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
