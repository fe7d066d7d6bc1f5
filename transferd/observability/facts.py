"""Typed facts. Code emits one; hooks make it a metric, a log line or a span."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

# Monitoring calls these routes every few seconds; their spans would hide the others.
UNTRACED_ROUTES = frozenset({"/healthz", "/readyz", "/metrics"})


class About(NamedTuple):
    """The ids of a request and its transfer, for traces and logs."""

    request_id: str | None
    traceparent: str | None
    transfer_id: str | None = None


class GroupCommitted(NamedTuple):
    """One transaction was committed. Waits and durations in seconds; counts in envelopes."""

    envelopes: int
    posted: int
    refused: int
    replayed: int
    oldest_wait_s: float
    duration_s: float


class GroupRetried(NamedTuple):
    """An attempt was rolled back or cut off and runs again; `cause` is an SQLSTATE or a word."""

    cause: str
    envelopes: int


class EnvelopeFailed(NamedTuple):
    """An envelope was answered with a technical failure (not a refusal); `code` names it."""

    code: str


class CommandPoisoned(NamedTuple):
    """A command that fails on its own was isolated; `error` is for the log, not for clients."""

    command: str
    error: BaseException
    about: About


class TransferPosted(NamedTuple):
    """A transfer was committed; emitted only with `Facts.per_request_facts`."""

    about: About


class Stage(NamedTuple):
    """A part of a group commit; start and end by the clock, in seconds."""

    name: str
    started: float
    ended: float


class GroupTraced(NamedTuple):
    """The stages of a group commit; emitted only with `Facts.per_request_facts`.

    `requests` are the traceparents of its requests; `retries` counts the attempts that were rolled
    back or cut off.
    """

    requests: Sequence[str]
    posted: int
    refused: int
    replayed: int
    retries: int
    stages: Sequence[Stage]


class ActorFailed(NamedTuple):
    """An actor failed, answered its callers and was replaced."""

    error: BaseException


class KeysClaimed(NamedTuple):
    """Redis's answers about a group's keys; `unknown` counts the keys without an answer."""

    claimed: int
    replayed: int
    busy: int
    unknown: int


class HoldsCaptured(NamedTuple):
    """A group has posted captures of holds."""

    captures: int


class HoldsExpired(NamedTuple):
    """A group has written the expiry of holds; how late each of them was, in seconds."""

    late_s: Sequence[float]


class ExpiryFailed(NamedTuple):
    """A sweep for due holds failed; it is repeated."""

    error: BaseException


class CacheFailed(NamedTuple):
    """A call to Redis failed, and the circuit breaker opens."""

    error: BaseException


class WalletRead(NamedTuple):
    """A wallet was read; `cache` is hit, miss or bypass."""

    cache: str


class LedgerNotOpened(NamedTuple):
    """A request needs the ledger of this name, which cannot be used."""

    ledger: str
    reason: str


class KeyUsesFailed(NamedTuple):
    """The last uses of API keys could not be written; the write is retried."""

    error: BaseException


class RequestDetails(NamedTuple):
    """One request: its ids, start by the clock, the caller's traceparent, and its outcome."""

    about: About
    started: float
    parent: str | None
    code: str
    is_replay: bool


class RequestFinished(NamedTuple):
    """A request was answered; `route` is the template, never the path.

    `details` is set only with `Facts.per_request_facts`.
    """

    method: str
    route: str
    status: int
    duration_s: float
    details: RequestDetails | None = None


class RequestFailed(NamedTuple):
    """A request raised an unexpected error."""

    about: About
    route: str
    error: BaseException


class OutboxRelayed(NamedTuple):
    """Events were published and deleted from the outbox, in one transaction."""

    events: int
    duration_s: float


class EventsPublished(NamedTuple):
    """The broker has confirmed these events, each with its type and the ids of its request.

    Start and end by the clock, in seconds. Emitted only with `Facts.per_request_facts`.
    """

    events: Sequence[tuple[str, About]]
    started: float
    ended: float


class RelayFailed(NamedTuple):
    """A batch of the outbox could not be published; it stays there and is retried."""

    error: BaseException


class Sent(NamedTuple):
    """A request to a webhook: start and end by the clock, and the status of the answer.

    `delivery` and `request` are the traceparents of the whole attempt and of the request to the
    receiver; None without tracing.
    """

    event_type: str
    started: float
    ended: float
    status: int | None
    delivery: str | None
    request: str | None


class NotificationFinished(NamedTuple):
    """A delivery attempt has ended and its result is recorded, or the delivery was skipped.

    `sink` is log or webhook. `result` is the new status of the delivery: delivered, retrying, dead
    or skipped (the endpoint is disabled). `lag_s` is the time since the commit.
    """

    sink: str
    result: str
    attempt: int
    lag_s: float
    endpoint_id: str
    event_id: str
    error: str | None
    about: About = About(None, None)
    sent: Sent | None = None


class SpansLost(NamedTuple):
    """Spans did not reach the collector."""

    spans: int


class DeadLettersKept(NamedTuple):
    """Deliveries or messages became dead letters, in one transaction."""

    letters: int


class NotifierFailed(NamedTuple):
    """A part of the notifier failed; the work stays in PostgreSQL or RabbitMQ and is retried."""

    error: BaseException


Fact = (
    GroupCommitted
    | GroupRetried
    | EnvelopeFailed
    | CommandPoisoned
    | TransferPosted
    | GroupTraced
    | ActorFailed
    | KeysClaimed
    | HoldsCaptured
    | HoldsExpired
    | ExpiryFailed
    | CacheFailed
    | WalletRead
    | LedgerNotOpened
    | KeyUsesFailed
    | RequestFinished
    | RequestFailed
    | OutboxRelayed
    | EventsPublished
    | RelayFailed
    | NotificationFinished
    | DeadLettersKept
    | NotifierFailed
    | SpansLost
)
Hook = Callable[[Fact], None]
# Returns the traceparent of a new span below the given one, or of a new trace.
Begin = Callable[[str | None], str]


class Facts:
    """Passes each fact to every hook, in the order of the hooks.

    `per_request_facts` turns on facts about single requests, transfers and events; without it
    their details are not collected. `begin` makes the ids of spans; None without tracing.
    """

    def __init__(self, *hooks: Hook, per_request_facts: bool = False) -> None:
        self._hooks = list(hooks)
        self.per_request_facts = per_request_facts
        self.begin: Begin | None = None

    def add_hook(self, hook: Hook) -> None:
        """Pass each later fact to this hook too."""
        self._hooks.append(hook)

    def trace(self, hook: Hook, begin: Begin) -> None:
        """Make spans from now on."""
        self.add_hook(hook)
        self.begin = begin
        self.per_request_facts = True

    def emit(self, fact: Fact) -> None:
        """Pass the fact to all hooks. A hook must be quick and must not raise."""
        for hook in self._hooks:
            hook(fact)
