"""Facts -> log lines: structlog, JSON, one line each; never a body, a key or a secret."""

import logging
import sys
from typing import Any

import orjson
import structlog

from transferd.observability.facts import (
    ActorFailed,
    CacheFailed,
    CommandPoisoned,
    Fact,
    GroupRetried,
    KeyUsesFailed,
    NotificationFinished,
    NotifierFailed,
    RelayFailed,
    RequestFailed,
)


def configure(level: str) -> None:
    """JSON lines of `level` and above to standard error."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=orjson.dumps),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        logger_factory=structlog.BytesLoggerFactory(file=sys.stderr.buffer),
        cache_logger_on_first_use=True,
    )
    # While PostgreSQL is away the driver's pool writes a stack trace for each connect that fails.
    # The facts of the group commit say the same in a line.
    logging.getLogger("asyncpg.pool").setLevel(logging.ERROR)
    # The same while RabbitMQ is away: `RelayFailed` and `NotifierFailed` have the reason.
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)
    logging.getLogger("aio_pika").setLevel(logging.CRITICAL)


# Most facts are numbers; asking this first keeps them cheap.
_WORTH_A_LINE = frozenset(
    {
        RequestFailed,
        CommandPoisoned,
        ActorFailed,
        GroupRetried,
        CacheFailed,
        KeyUsesFailed,
        RelayFailed,
        NotifierFailed,
        NotificationFinished,
    }
)


class Log:
    """A hook for `Facts`: writes what an operator has to know, at its level."""

    def __init__(self) -> None:
        self._log: Any = structlog.get_logger()

    def __call__(self, fact: Fact) -> None:
        """Take a fact."""
        if type(fact) not in _WORTH_A_LINE:
            return
        match fact:
            case RequestFailed(request_id, route, error):
                self._log.error(
                    "request failed", request_id=request_id, route=route, exc_info=error
                )
            case CommandPoisoned(command, error):
                self._log.error("command isolated", command=command, exc_info=error)
            case ActorFailed(error):
                self._log.error("actor failed and was replaced", exc_info=error)
            case GroupRetried(cause, envelopes):
                self._log.warning("group retried", cause=cause, envelopes=envelopes)
            case CacheFailed(error):
                self._log.warning("redis call failed", error=_one_line(error))
            case KeyUsesFailed(error):
                self._log.warning("uses of API keys not written", error=_one_line(error))
            case RelayFailed(error) | NotifierFailed(error):
                self._log.warning("notifications wait", error=_one_line(error))
            case NotificationFinished(error=str()) as failed:
                # What will be tried again is no alarm; what was given up is.
                say = self._log.error if failed.result == "dead" else self._log.info
                say(
                    "delivery failed",
                    result=failed.result,
                    attempt=failed.attempt,
                    endpoint=failed.endpoint_id,
                    event_id=failed.event_id,
                    error=failed.error,
                )
            case _:
                pass

    def say(self, event: str, **facts: object) -> None:
        """A line of a component's life: started, draining, stopped."""
        self._log.info(event, **facts)


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
