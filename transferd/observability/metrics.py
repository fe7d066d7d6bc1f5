"""Facts -> Prometheus metrics, in a registry of their own."""

from collections.abc import Callable, Iterable
from typing import Protocol

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
)

from transferd import __version__
from transferd.observability.exposition import exposed
from transferd.observability.facts import (
    UNTRACED_ROUTES,
    ActorFailed,
    CacheFailed,
    CommandPoisoned,
    DeadLettersKept,
    EnvelopeFailed,
    ExpiryFailed,
    Fact,
    GroupCommitted,
    GroupRetried,
    HoldsCaptured,
    HoldsExpired,
    KeysClaimed,
    KeyUsesFailed,
    LedgerNotOpened,
    NotificationFinished,
    NotifierFailed,
    OutboxRelayed,
    RelayFailed,
    RequestFailed,
    RequestFinished,
    SpansLost,
    WalletRead,
)
from transferd.observability.traceparent import is_sampled

_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_SECONDS = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1, 2, 5, 10)
# The last attempt of a delivery is more than an hour after the first.
_LAGS = (*_SECONDS, 30, 60, 300, 1800, 7200)


class Pool(Protocol):
    """A connection pool, as far as gauges read it."""

    @property
    def connections_in_use(self) -> int:
        """Connections in use now."""
        ...

    @property
    def connections_max(self) -> int:
        """The size of the pool."""
        ...


class Metrics:
    """A hook for `Facts`. `exposed` makes the body of `/metrics`.

    `with_exemplars` adds the ids of recorded traces to the buckets of durations.
    """

    def __init__(self, *, with_exemplars: bool = False) -> None:
        self.registry = CollectorRegistry()
        self._with_exemplars = with_exemplars
        self._gauges: dict[str, Gauge] = {}
        self._add_process_metrics()
        self._add_notification_metrics()
        self._group_size = self._histogram(
            "transferd_group_envelopes", "Envelopes in a committed group.", _SIZES
        )
        self._group_time = self._histogram(
            "transferd_group_commit_seconds",
            "From the start of a group to its last answer: claim, transaction, refresh.",
            _SECONDS,
        )
        self._mailbox_wait = self._histogram(
            "transferd_mailbox_wait_seconds",
            "Time that the oldest envelope of a group waited before the group started.",
            _SECONDS,
        )
        self._outcomes = self._counter("transferd_outcomes", "Commands by result.", "result")
        self._retries = self._counter(
            "transferd_group_retries", "Attempts that were retried, by SQLSTATE.", "cause"
        )
        self._lateness = self._histogram(
            "transferd_hold_expiry_lateness_seconds",
            "From the expiry of a hold to the time at which it was written.",
            _LAGS,
        )
        self._captured = Counter(
            "transferd_hold_captures", "Captures posted.", registry=self.registry
        )
        self._failures = self._counter(
            "transferd_failures", "Requests that failed for a technical reason.", "code"
        )
        self._keys = self._counter(
            "transferd_idempotency_keys", "Keys of groups, by Redis's answer.", "state"
        )
        self._reads = self._counter("transferd_wallet_reads", "Wallet reads.", "cache")
        self._cache_failures = self._counter(
            "transferd_cache_failures", "Calls to Redis that failed, by error.", "error"
        )
        self._errors = self._counter("transferd_errors", "Unexpected errors.", "where")
        self._requests = Histogram(
            "http_server_request_duration_seconds",
            "Requests by route template.",
            ("http_request_method", "http_route", "http_response_status_code"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        # A series that first appears with the value 1 has not increased, so no alert fires for it.
        # Counters with an alert on the first event therefore start at 0.
        for kind in (ActorFailed, CommandPoisoned, RequestFailed):
            self._errors.labels(kind.__name__)
        self._spans_lost = Counter("transferd_spans_lost", "Spans lost.", registry=self.registry)
        # Caches, because the library's look-up takes a lock and builds a key for each request.
        self._request_children: dict[tuple[str, str, int], Histogram] = {}
        self._read_children: dict[str, Counter] = {}

    def _add_process_metrics(self) -> None:
        ProcessCollector(registry=self.registry)
        build = Info("transferd_build", "The version of this process.", registry=self.registry)
        build.info({"version": __version__})

    def _add_notification_metrics(self) -> None:
        self._relayed = Counter(
            "transferd_outbox_events", "Events published.", registry=self.registry
        )
        self._relay_time = self._histogram(
            "transferd_outbox_publish_seconds", "One batch, from lease to COMMIT.", _SECONDS
        )
        self._notifications = Counter(
            "transferd_notifications",
            "Attempts to deliver, by sink, result and number of the attempt.",
            ("sink", "result", "attempt"),
            registry=self.registry,
        )
        self._lag = Histogram(
            "transferd_notification_lag_seconds",
            "From the commit of an event to its delivery.",
            ("sink",),
            buckets=_LAGS,
            registry=self.registry,
        )
        self._dead_letters = Counter(
            "transferd_dead_letters", "Dead letters kept.", registry=self.registry
        )

    def __call__(self, fact: Fact) -> None:  # noqa: C901, PLR0912 one flat case per fact
        """Count a fact."""
        match fact:
            case RequestFinished():
                self._request(fact)
            case GroupCommitted():
                self._group(fact)
            case WalletRead(cache):
                self._read(cache)
            case HoldsCaptured(captures):
                self._captured.inc(captures)
            case HoldsExpired(late_s):
                for each in late_s:
                    self._lateness.observe(each)
            case KeysClaimed(claimed, replayed, busy, unknown):
                for state, count in (
                    ("claimed", claimed),
                    ("replayed", replayed),
                    ("busy", busy),
                    ("unknown", unknown),
                ):
                    if count:
                        self._keys.labels(state).inc(count)
            case GroupRetried(cause):
                self._retries.labels(cause).inc()
            case EnvelopeFailed(code):
                self._failures.labels(code).inc()
            case CacheFailed(error):
                self._cache_failures.labels(type(error).__name__).inc()
            case NotificationFinished():
                self._notification(fact)
            case DeadLettersKept(letters):
                self._dead_letters.inc(letters)
            case OutboxRelayed(events, duration_s):
                self._relayed.inc(events)
                self._relay_time.observe(duration_s)
            case CommandPoisoned() | ActorFailed() | RequestFailed() | RelayFailed():
                self._errors.labels(type(fact).__name__).inc()
            case SpansLost(spans):
                self._spans_lost.inc(spans)
            case NotifierFailed() | KeyUsesFailed() | ExpiryFailed() | LedgerNotOpened():
                self._errors.labels(type(fact).__name__).inc()

    def gauge(self, name: str, text: str, read: Callable[[], float], **labels: str) -> None:
        """Add a gauge whose value `read` returns at each scrape. One call per set of labels."""
        gauge = self._gauges.get(name)
        if gauge is None:
            gauge = self._gauges[name] = Gauge(name, text, tuple(labels), registry=self.registry)
        (gauge.labels(**labels) if labels else gauge).set_function(read)

    def watch_pool(self, name: str, pool: Pool) -> None:
        """Add gauges for the use of a pool."""
        self.gauge(
            "transferd_pool_connections_in_use",
            "Connections to PostgreSQL in use.",
            lambda: pool.connections_in_use,
            pool=name,
        )
        self.gauge(
            "transferd_pool_limit_connections",
            "Most connections to PostgreSQL.",
            lambda: pool.connections_max,
            pool=name,
        )

    def exposed(self, accept: Iterable[str] = ()) -> tuple[bytes, str]:
        """All metrics and their media type; `accept` are the lines of the Accept header."""
        return exposed(self.registry, accept)

    def _request(self, fact: RequestFinished) -> None:
        key = (fact.method, fact.route, fact.status)
        child = self._request_children.get(key)
        if child is None:
            child = self._requests.labels(fact.method, fact.route, str(fact.status))
            self._request_children[key] = child
        details = fact.details
        if details is None or fact.route in UNTRACED_ROUTES:
            child.observe(fact.duration_s)
        else:
            child.observe(fact.duration_s, self._exemplar(details.about.traceparent))

    def _notification(self, fact: NotificationFinished) -> None:
        self._notifications.labels(fact.sink, fact.result, str(fact.attempt)).inc()
        if fact.result == "delivered":
            delivery = None if fact.sent is None else fact.sent.delivery
            self._lag.labels(fact.sink).observe(fact.lag_s, self._exemplar(delivery))

    def _exemplar(self, traceparent: str | None) -> dict[str, str] | None:
        """The trace id, if the trace is recorded."""
        if not self._with_exemplars or traceparent is None or not is_sampled(traceparent):
            return None
        return {"trace_id": traceparent[3:35]}

    def _read(self, cache: str) -> None:
        child = self._read_children.get(cache)
        if child is None:
            child = self._read_children[cache] = self._reads.labels(cache)
        child.inc()

    def _group(self, fact: GroupCommitted) -> None:
        self._group_size.observe(fact.envelopes)
        self._group_time.observe(fact.duration_s)
        self._mailbox_wait.observe(fact.oldest_wait_s)
        for result, count in (
            ("done", fact.posted),
            ("refused", fact.refused),
            ("replayed", fact.replayed),
        ):
            if count:
                self._outcomes.labels(result).inc(count)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, buckets=buckets, registry=self.registry)

    def _counter(self, name: str, text: str, label: str) -> Counter:
        return Counter(name, text, (label,), registry=self.registry)
