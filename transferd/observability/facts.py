"""Typed facts. Code emits one; hooks make it a metric, a log line or, one day, a span."""

from collections.abc import Callable
from typing import NamedTuple


class GroupCommitted(NamedTuple):
    """One transaction was committed. Waits and durations in seconds; counts in envelopes."""

    envelopes: int
    posted: int
    refused: int
    replayed: int
    oldest_wait_s: float
    duration_s: float


class GroupRetried(NamedTuple):
    """An attempt was rolled back or cut off and is run again; `cause` is an SQLSTATE or a word."""

    cause: str
    envelopes: int


class EnvelopeFailed(NamedTuple):
    """An envelope was answered with a failure of the machinery; `code` names it."""

    code: str


class CommandPoisoned(NamedTuple):
    """A command that fails on its own was isolated; `error` is for the log, not for clients."""

    command: str
    error: BaseException


class ActorFailed(NamedTuple):
    """An actor broke, answered its callers and was replaced."""

    error: BaseException


class KeysClaimed(NamedTuple):
    """What Redis said of a group's keys; `unknown` counts those it could not be asked about."""

    claimed: int
    replayed: int
    busy: int
    unknown: int


class CacheFailed(NamedTuple):
    """A call to Redis failed; the breaker leaves it alone for a moment."""

    error: BaseException


class WalletRead(NamedTuple):
    """A wallet was read; `cache` is hit, miss or bypass."""

    cache: str


class KeyUsesFailed(NamedTuple):
    """When API keys were used last could not be written down; it is tried again."""

    error: BaseException


class RequestFinished(NamedTuple):
    """A request was answered; `route` is the template, never the path."""

    method: str
    route: str
    status: int
    duration_s: float


class RequestFailed(NamedTuple):
    """A request hit an error that nobody expected."""

    request_id: str
    route: str
    error: BaseException


class OutboxRelayed(NamedTuple):
    """Events were published and taken out of the outbox, in one transaction."""

    events: int
    duration_s: float


class RelayFailed(NamedTuple):
    """A batch of the outbox could not be published; it stays and is tried again."""

    error: BaseException


class NotificationFinished(NamedTuple):
    """An attempt to deliver ended. `sink` is log or webhook; `result` is delivered, retrying, dead,
    parked (its endpoint is slow) or repeated (delivered before). `lag_s` since the commit."""

    sink: str
    result: str
    attempt: int
    lag_s: float
    endpoint_id: str
    event_id: str
    error: str | None


class DeadLettersKept(NamedTuple):
    """What cannot be delivered was written down, in one transaction, until an operator decides."""

    letters: int


class NotifierFailed(NamedTuple):
    """The notifier could not go on for a moment; what it holds comes again."""

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
    | KeyUsesFailed
    | RequestFinished
    | RequestFailed
    | OutboxRelayed
    | RelayFailed
    | NotificationFinished
    | DeadLettersKept
    | NotifierFailed
)
Hook = Callable[[Fact], None]


class Facts:
    """Hands each fact to every hook, in the order in which they were given."""

    def __init__(self, *hooks: Hook) -> None:
        self._hooks = list(hooks)

    def hear(self, hook: Hook) -> None:
        """One more hook."""
        self._hooks.append(hook)

    def emit(self, fact: Fact) -> None:
        """Tell all hooks. A hook must be quick and must not raise."""
        for hook in self._hooks:
            hook(fact)
