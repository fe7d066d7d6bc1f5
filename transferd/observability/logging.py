"""Facts -> log lines: structlog, JSON, one line each; never a body, a key or a secret."""

import logging
import sys
from typing import Any

import structlog

from transferd.observability.facts import (
    ActorFailed,
    CacheFailed,
    CommandPoisoned,
    Fact,
    GroupRetried,
    RequestFailed,
)


def configure(level: str) -> None:
    """JSON lines of `level` and above to standard error."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )
    # While PostgreSQL is away the driver's pool writes a stack trace for each connect that fails.
    # The facts of the group commit say the same in a line.
    logging.getLogger("asyncpg.pool").setLevel(logging.ERROR)


# Most facts are numbers; asking this first keeps them cheap.
_WORTH_A_LINE = frozenset({RequestFailed, CommandPoisoned, ActorFailed, GroupRetried, CacheFailed})


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
                self._log.warning("redis call failed", error=f"{type(error).__name__}: {error}")
            case _:
                pass

    def say(self, event: str, **facts: object) -> None:
        """A line of a component's life: started, draining, stopped."""
        self._log.info(event, **facts)
