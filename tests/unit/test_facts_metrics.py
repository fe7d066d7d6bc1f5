"""Facts become metrics: each kind has its metrics, with a bounded number of labels."""

from typing import get_args

import pytest

from transferd import __version__
from transferd.observability.facts import (
    About,
    ActorFailed,
    CacheFailed,
    CommandPoisoned,
    DeadLettersKept,
    EnvelopeFailed,
    EventsPublished,
    ExpiryFailed,
    Fact,
    GroupCommitted,
    GroupRetried,
    GroupTraced,
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
    TransferPosted,
    WalletRead,
)
from transferd.observability.metrics import Metrics

# Emitted only with `per_request_facts`; other facts count the same.
NOT_COUNTED = {EventsPublished, GroupTraced, TransferPosted}
ABOUT = About("request-1", None, "transfer-hush")
GROUP = GroupCommitted(
    envelopes=7, posted=4, refused=2, replayed=1, oldest_wait_s=0.003, duration_s=0.2
)
DELIVERED = NotificationFinished(
    sink="webhook",
    result="delivered",
    attempt=2,
    lag_s=0.3,
    endpoint_id="endpoint-hush",
    event_id="event-hush",
    error=None,
)
TRACES: list[tuple[Fact, list[str]]] = [
    (
        GROUP,
        [
            'transferd_group_envelopes_bucket{le="4.0"} 0.0',
            'transferd_group_envelopes_bucket{le="8.0"} 1.0',
            "transferd_group_envelopes_sum 7.0",
            'transferd_group_commit_seconds_bucket{le="0.125"} 0.0',
            'transferd_group_commit_seconds_bucket{le="0.25"} 1.0',
            'transferd_mailbox_wait_seconds_bucket{le="0.002"} 0.0',
            'transferd_mailbox_wait_seconds_bucket{le="0.004"} 1.0',
            'transferd_outcomes_total{result="done"} 4.0',
            'transferd_outcomes_total{result="refused"} 2.0',
            'transferd_outcomes_total{result="replayed"} 1.0',
        ],
    ),
    (GroupRetried("40001", 9), ['transferd_group_retries_total{cause="40001"} 1.0']),
    (EnvelopeFailed("overloaded"), ['transferd_failures_total{code="overloaded"} 1.0']),
    (
        KeysClaimed(claimed=5, replayed=3, busy=2, unknown=1),
        [
            'transferd_idempotency_keys_total{state="claimed"} 5.0',
            'transferd_idempotency_keys_total{state="replayed"} 3.0',
            'transferd_idempotency_keys_total{state="busy"} 2.0',
            'transferd_idempotency_keys_total{state="unknown"} 1.0',
        ],
    ),
    (WalletRead("hit"), ['transferd_wallet_reads_total{cache="hit"} 1.0']),
    (
        CacheFailed(ConnectionError("redis://ada:hush@cache.example")),
        ['transferd_cache_failures_total{error="ConnectionError"} 1.0'],
    ),
    (HoldsCaptured(3), ["transferd_hold_captures_total 3.0"]),
    (
        HoldsExpired([0.7, 3.0]),
        [
            'transferd_hold_expiry_lateness_seconds_bucket{le="1.0"} 1.0',
            'transferd_hold_expiry_lateness_seconds_bucket{le="5.0"} 2.0',
        ],
    ),
    (
        ExpiryFailed(ConnectionError("postgresql://ada:hush@db.example")),
        ['transferd_errors_total{where="ExpiryFailed"} 1.0'],
    ),
    (
        CommandPoisoned("Transfer", ValueError("hush"), ABOUT),
        ['transferd_errors_total{where="CommandPoisoned"} 1.0'],
    ),
    (ActorFailed(ValueError("hush")), ['transferd_errors_total{where="ActorFailed"} 1.0']),
    (
        RequestFailed(ABOUT, "/transfers", ValueError("hush")),
        ['transferd_errors_total{where="RequestFailed"} 1.0'],
    ),
    (
        LedgerNotOpened("shop", "no tables"),
        ['transferd_errors_total{where="LedgerNotOpened"} 1.0'],
    ),
    (
        KeyUsesFailed(ConnectionError("postgresql://ada:hush@db.example")),
        ['transferd_errors_total{where="KeyUsesFailed"} 1.0'],
    ),
    (
        RequestFinished("POST", "/transfers/{id}/reversal", 201, 0.05),
        [
            "http_server_request_duration_seconds_count"
            '{http_request_method="POST",http_response_status_code="201",'
            'http_route="/transfers/{id}/reversal"} 1.0',
        ],
    ),
    (
        OutboxRelayed(events=300, duration_s=0.05),
        [
            "transferd_outbox_events_total 300.0",
            'transferd_outbox_publish_seconds_bucket{le="0.032"} 0.0',
            'transferd_outbox_publish_seconds_bucket{le="0.064"} 1.0',
        ],
    ),
    (
        RelayFailed(ConnectionError("amqp://ada:hush@queue.example")),
        ['transferd_errors_total{where="RelayFailed"} 1.0'],
    ),
    (
        DELIVERED,
        [
            'transferd_notifications_total{attempt="2",result="delivered",sink="webhook"} 1.0',
            'transferd_notification_lag_seconds_bucket{le="0.25",sink="webhook"} 0.0',
            'transferd_notification_lag_seconds_bucket{le="0.5",sink="webhook"} 1.0',
        ],
    ),
    (DeadLettersKept(3), ["transferd_dead_letters_total 3.0"]),
    (SpansLost(3), ["transferd_spans_lost_total 3.0"]),
    (
        NotifierFailed(ConnectionError("postgresql://ada:hush@db.example")),
        ['transferd_errors_total{where="NotifierFailed"} 1.0'],
    ),
]


def lines(metrics: Metrics) -> list[str]:
    return metrics.exposed()[0].decode().splitlines()


def samples(metrics: Metrics) -> set[str]:
    """The lines that carry a value, without the times at which a series began."""
    return {line for line in lines(metrics) if not line.startswith("#") and "_created" not in line}


def test_every_kind_of_fact_has_a_row_here() -> None:
    assert {type(fact) for fact, _ in TRACES} | NOT_COUNTED == set(get_args(Fact))


@pytest.mark.parametrize(("fact", "trace"), TRACES, ids=[type(fact).__name__ for fact, _ in TRACES])
def test_a_fact_leaves_its_trace(fact: Fact, trace: list[str]) -> None:
    metrics = Metrics()
    before = samples(metrics)
    metrics(fact)
    assert samples(metrics) >= set(trace)
    assert set(trace) - before, "it would be there without the fact"
    shown = metrics.exposed()[0].decode()
    assert "hush" not in shown
    assert "request-1" not in shown


def test_a_counter_without_events_is_not_exported() -> None:
    metrics = Metrics()
    metrics(GROUP._replace(refused=0, replayed=0))
    metrics(KeysClaimed(claimed=1, replayed=0, busy=0, unknown=0))
    shown = {line.partition("{")[2] for line in samples(metrics) if "_total{" in line}
    # But a counter that an alert uses starts at 0.
    expected = ("ActorFailed", "CommandPoisoned", "RequestFailed")
    assert shown == {'result="done"} 4.0', 'state="claimed"} 1.0'} | {
        f'where="{each}"}} 0.0' for each in expected
    }


@pytest.mark.parametrize("result", ["retrying", "dead", "skipped"])
def test_only_a_delivered_event_has_a_lag(result: str) -> None:
    metrics = Metrics()
    metrics(DELIVERED._replace(result=result, sink="log", attempt=1, error="answered 500"))
    shown = {line for line in samples(metrics) if line.startswith("transferd_notification")}
    assert shown == {
        f'transferd_notifications_total{{attempt="1",result="{result}",sink="log"}} 1.0'
    }


def test_a_gauge_is_read_when_metrics_are_asked_for() -> None:
    metrics = Metrics()
    backlog = [3.0]
    metrics.gauge("transferd_backlog", "Commands in flight.", lambda: backlog[0])
    assert "transferd_backlog 3.0" in samples(metrics)
    backlog[0] = 0.0
    assert "transferd_backlog 0.0" in samples(metrics)
    assert "# HELP transferd_backlog Commands in flight." in lines(metrics)
    assert "# TYPE transferd_backlog gauge" in lines(metrics)


def test_the_version_is_exported() -> None:
    assert f'transferd_build_info{{version="{__version__}"}} 1.0' in samples(Metrics())
