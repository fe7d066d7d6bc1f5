"""Typed facts. Code emits one; hooks make it a metric, a log line or, one day, a span."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GroupCommitted:
    """One transaction was committed. Waits and durations in seconds; counts in envelopes."""

    envelopes: int
    posted: int
    refused: int
    replayed: int
    oldest_wait_s: float
    duration_s: float


@dataclass(frozen=True, slots=True)
class GroupRetried:
    """An attempt was rolled back or cut off and is run again; `cause` is an SQLSTATE or a word."""

    cause: str
    envelopes: int


@dataclass(frozen=True, slots=True)
class EnvelopeFailed:
    """An envelope was answered with a failure of the machinery; `code` names it."""

    code: str


@dataclass(frozen=True, slots=True)
class CommandPoisoned:
    """A command that fails on its own was isolated; `error` is for the log, not for clients."""

    command: str
    error: BaseException


@dataclass(frozen=True, slots=True)
class ActorFailed:
    """An actor broke, answered its callers and was replaced."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class KeysClaimed:
    """What Redis said of a group's keys; `unknown` counts those it could not be asked about."""

    claimed: int
    replayed: int
    busy: int
    unknown: int


@dataclass(frozen=True, slots=True)
class CacheFailed:
    """A call to Redis failed; the breaker leaves it alone for a moment."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class WalletRead:
    """A wallet was read; `cache` is hit, miss or bypass."""

    cache: str


@dataclass(frozen=True, slots=True)
class RequestFinished:
    """A request was answered; `route` is the template, never the path."""

    method: str
    route: str
    status: int
    duration_s: float


@dataclass(frozen=True, slots=True)
class RequestFailed:
    """A request hit an error that nobody expected."""

    request_id: str
    route: str
    error: BaseException


Fact = (
    GroupCommitted
    | GroupRetried
    | EnvelopeFailed
    | CommandPoisoned
    | ActorFailed
    | KeysClaimed
    | CacheFailed
    | WalletRead
    | RequestFinished
    | RequestFailed
)
Hook = Callable[[Fact], None]


class Facts:
    """Hands each fact to every hook, in the order in which they were given."""

    def __init__(self, *hooks: Hook) -> None:
        self._hooks = hooks

    def emit(self, fact: Fact) -> None:
        """Tell all hooks. A hook must be quick and must not raise."""
        for hook in self._hooks:
            hook(fact)
