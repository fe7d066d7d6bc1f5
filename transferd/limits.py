"""Every bound, checked at start.

Nothing else in the package holds a number that limits a queue, a batch, a retry or a wait.
"""

from dataclasses import dataclass
from itertools import pairwise


class ConfigurationError(Exception):
    """The settings cannot work together; the message says which one and what it should be."""


@dataclass(frozen=True)
class Limits:
    """Named bounds. Each says why it has its value; making them proves that the waits nest."""

    # A body of the single-transfer routes is under 1 KiB; 4 KiB of metadata and escapes fit in 32.
    body_bytes_max: int = 32 * 1024
    # 5,000 transfers with a reference each, and some with metadata.
    batch_body_bytes_max: int = 4 * 1024 * 1024
    batch_transfers_max: int = 5_000
    # Batches from the first byte to the answer; the next ones wait, unread. One takes some 25 MiB
    # at most while it is here, and a client that sends slowly must not keep its place.
    batches_max: int = 8
    batch_wait_s: float = 1.5
    # Clients that are slow, as in Nginx: from the first byte of a head to its last, a whole body,
    # what is unread of one that was turned away, and an answer that nobody takes.
    head_wait_s: float = 5.0
    body_wait_s: float = 5.0
    linger_s: float = 2.0
    send_wait_s: float = 10.0
    # Between two requests. Nginx ends its own connections long before.
    idle_connection_s: float = 60.0
    # An idle one takes some 10 KiB. Beyond that connections are closed at once, health checks too:
    # Nginx asks another replica what may be asked twice. Servers and logs need files as well.
    connections_max: int = 16_384
    files_kept_back: int = 256
    # A batch can be wrong in ten thousand places; whoever sent it mends the first ones first.
    field_errors_max: int = 100
    # More than the largest batch has fields. To look at each would take a second and 200 MiB.
    field_errors_read_max: int = 50_000
    metadata_bytes_max: int = 4 * 1024
    text_chars_max: int = 140
    key_chars_max: int = 255
    list_items_default: int = 50
    list_items_max: int = 200

    # One wallet commits some 5,000 transfers/s in group commits, so a full mailbox is a tenth of a
    # second of work: enough for a burst, too little to make a client wait for nothing.
    mailbox_envelopes_max: int = 512
    # Refusals for a full mailbox: a burst goes out at once, then so many per second, each held back
    # no longer than the Retry-After that it names. Without that, those who ask again at once are
    # refused some 6,000 times a second, and nobody else gets a turn of the core.
    mailbox_refusals_burst: int = 128
    mailbox_refusals_per_s: float = 200.0
    mailbox_refusal_delay_s: float = 2.5
    # Larger groups no longer lower the cost per transfer but make everybody in them wait longer.
    group_envelopes_max: int = 512
    # A slice of requests takes the loop a quarter of a millisecond. Measured: 2 and 16 are slower.
    answers_per_tick: int = 4
    # One wallet may fill at most half a group, so that the others always find room. Beside others,
    # or with others in the last quarter of a second, it brings as many as they do, but never fewer
    # than the lower bound: a wallet that is stormed still commits some 1,500 transfers/s.
    turn_envelopes_max: int = 256
    shared_turn_envelopes_min: int = 4
    shared_for_s: float = 0.25
    # Above the high mark new callers wait at the gate until the backlog is below the low one;
    # as many again may wait there, then the replica is overloaded.
    backlog_high: int = 4096
    backlog_low: int = 3072
    backlog_max: int = 8192
    # Connections that wait to be accepted. A burst that finds the kernel's queue full loses its
    # SYNs, and each of those costs a second.
    accept_queue_max: int = 1024

    # The nest of waits, in seconds: client 15 > nginx 12 > the ones below, each inside the one
    # before, so that whoever waits outside always hears the reason from whoever gave up inside.
    client_timeout_s: float = 15.0
    nginx_timeout_s: float = 12.0
    request_deadline_s: float = 10.0
    mailbox_wait_s: float = 5.0
    statement_timeout_s: float = 3.0
    idle_in_transaction_timeout_s: float = 2.0
    lock_timeout_s: float = 1.0
    # The driver gives a server that hangs (instead of answering that it timed out) this much more.
    command_timeout_s: float = 3.5

    # A first retry comes at once after a serialization failure; the wait doubles up to the largest.
    retry_wait_first_s: float = 0.01
    retry_wait_max_s: float = 0.25
    # Rows that are there already are found by the next attempt; after that they are a fault.
    duplicate_attempts_max: int = 2
    # While a wallet's row stays locked by somebody else its commands try again this often.
    step_aside_s: float = 0.1
    # Wallets remembered as held by somebody else; beyond that all are tried again, which costs one
    # lock time-out.
    contended_wallets_max: int = 10_000

    # Longer than nearly every attempt; that of a killed replica ends by itself. A claim that ends
    # too early costs a rolled back attempt, no more.
    claim_ttl_s: float = 3.0
    # Another replica's claim: ask PostgreSQL this often, and stop believing the claim after that.
    claim_poll_s: float = 0.1
    claim_wait_s: float = 1.0
    replay_ttl_s: int = 24 * 3600
    # A larger answer, that of a batch, is read from PostgreSQL again.
    replay_bytes_max: int = 32 * 1024
    # A snapshot can be stale only where a refresh failed, and no longer than this.
    snapshot_ttl_s: int = 15
    # A reader that takes longer between its look at PostgreSQL and the cache does not fill it.
    reservation_ttl_s: float = 2.0
    redis_timeout_s: float = 0.25
    # After a failed call Redis is left alone, so that an outage costs one call, not one time-out
    # per group; after each such pause it is asked in the background whether it is back.
    breaker_open_s: float = 1.0
    # Requests with the key of one that is under way; each costs memory only.
    joined_requests_max: int = 1024
    cache_read_keys_max: int = 512

    # Reads take a connection each for about a millisecond. The committer has one group in flight
    # and one connection that no read can take from it.
    read_connections: int = 10
    # More reads than this would wait longer for a connection than their callers have patience.
    waiting_reads_max: int = 1024
    # A question about the past looks whether the writers of its wallet have ended: at once, then
    # after pauses that double. A group takes some 10 ms, so a busy wallet has had two by then.
    settling_look_first_s: float = 0.01
    settling_look_last_s: float = 0.04
    # After that it waits in PostgreSQL, for up to lock_timeout_s and with one of these connections:
    # so few that most reads do not wait with it.
    settling_locks_max: int = 4
    commit_connections: int = 1
    pool_acquire_timeout_s: float = 2.0
    api_key_cache_s: float = 5.0
    api_key_cache_entries_max: int = 10_000
    # When a key was used last is for people, who ask whether it may go: a minute late is early
    # enough, and a key that is always in use costs one row a minute.
    key_uses_interval_s: float = 60.0
    # Keys in use within such a minute; there are more of them only where somebody makes one for
    # each call, and nobody asks for the last use of those.
    key_uses_max: int = 10_000
    # The last write of a replica that stops: nobody waits longer for it than for a lock.
    key_uses_last_write_s: float = 1.0

    sweep_interval_s: float = 0.25
    # Longer than Nginx keeps idle connections to replicas, so that it never writes to a closed one.
    nginx_keepalive_s: float = 2.0
    drain_linger_s: float = 2.5
    drain_timeout_s: float = 12.0

    # A replica that lived so long before it died is started again at once; else after waits that
    # double up to the largest. It has half a minute to become ready in a restart of all.
    replica_stable_s: float = 10.0
    replica_restart_first_s: float = 0.25
    replica_restart_max_s: float = 5.0
    replica_start_s: float = 30.0
    replica_poll_s: float = 0.05
    # PostgreSQL's answer to `/readyz` and `/metrics`, and a replica's answer to its supervisor.
    # Both take milliseconds, and a prober usually waits for a few seconds.
    readiness_wait_s: float = 1.0

    # Of a row of the outbox, so that what a relay takes is never much more than the batch below.
    outbox_row_events_max: int = 250
    # What the relay publishes in one transaction, and how long it may take: the server ends a
    # transaction that idles longer than idle_in_transaction_timeout_s.
    relay_batch_events_max: int = 500
    relay_publish_timeout_s: float = 1.5
    # How soon news is looked for that no signal tells of. A relay that stands by looks less often,
    # and takes over when events have been lying for as long as that.
    relay_poll_s: float = 0.05
    relay_standby_s: float = 0.5
    # How often what waits in the outbox is counted for the metrics.
    outbox_measure_s: float = 2.0
    # After a failure; it doubles up to the largest.
    relay_wait_first_s: float = 0.1
    relay_wait_max_s: float = 5.0
    # A broker that takes longer to connect, declare or confirm is treated as away.
    amqp_timeout_s: float = 5.0

    # Some tens of seconds of a busy day; more would be in nobody's memory but the broker's disk.
    # Beyond it the broker refuses, and the outbox holds.
    work_queue_messages_max: int = 1_000_000
    # Returned to the queue this often, a message is one that breaks whoever takes it. Long before,
    # a copy takes its place: a worker that is killed many times must not use up the returns of all
    # it holds. A message that is still there after that many returns in all is poison.
    delivery_limit: int = 20
    renew_after_returns: int = 8
    returns_max: int = 200
    # Unfinished messages in one notifier. One in hand takes some 6 KiB, so this is 50 MiB.
    notify_prefetch: int = 8192
    # Messages begun, and results recorded, together: one transaction each.
    notify_batch_max: int = 256
    # How long the first of a batch waits for others. Measured: without it batches are of two or
    # three, and what an event costs more than doubles.
    notify_linger_s: float = 0.01
    # Requests to one endpoint at a time.
    endpoint_in_flight_max: int = 8
    # Messages held for an endpoint, in order of its wallets: always so many, and more while half of
    # the prefetch is free; but none for longer than a minute, since the broker allows thirty to
    # finish a message. The others wait in the broker instead, and are overtaken.
    endpoint_held_max: int = 64
    endpoint_hold_s: float = 60.0
    # One where no request has come to its end for so long is in trouble.
    endpoint_trouble_s: float = 2.0
    # Connect, send and answer. A receiver should answer first and work afterwards.
    webhook_timeout_s: float = 10.0
    webhook_connect_timeout_s: float = 3.0
    # Read of an answer before the connection is closed, and kept of it in the delivery log.
    webhook_response_bytes_max: int = 16 * 1024
    webhook_excerpt_chars: int = 500
    # Kept open for the next delivery, but not as long as common receivers keep an idle connection
    # (2 to 5 s): a request into one that is just being closed would be a failed attempt.
    webhook_keepalive_s: float = 1.5
    # Name servers that do not answer hold a thread each; with more of them names have to wait.
    webhook_lookups_max: int = 32
    # A receiver may ask to be left alone for a day, not until events are forgotten.
    webhook_retry_after_max_s: float = 24 * 3600.0
    # The old secret signs beside the new one for a day, so that receivers can be changed over.
    webhook_secret_overlap_s: float = 24 * 3600.0
    # Secrets that sign at a time. Each is 48 bytes of the header webhook-signature, and common
    # receivers take a header of 8 KiB, some of them all headers together: this is a fifth of it.
    webhook_secrets_max: int = 32
    prune_interval_s: float = 600.0
    prune_rows: int = 2_000
    # How often the broker is asked whether it still knows our consumer.
    consumer_check_s: float = 2.0

    # A stream holds a connection and some KiB; asking for new versions takes one query for all.
    streams_max: int = 1_000
    stream_poll_s: float = 0.25
    stream_heartbeat_s: float = 15.0
    stream_page_events: int = 200
    # A client that takes nothing for so long resumes later where it was; a drain waits for it.
    stream_send_timeout_s: float = 5.0
    # Pages read at a time, so that a busy wallet with many watchers leaves connections to others.
    stream_reads_max: int = 4
    # How long a client waits before it comes back: long enough for another replica to take over.
    stream_retry_s: float = 2.0
    # Events sent with one write: the size of the connection's own buffer.
    stream_write_bytes: int = 64 * 1024

    # Spans that wait for the collector, of some KiB each while they are sent; what comes beyond
    # that is lost. A few seconds of a replica that is traced in full.
    trace_queue_spans_max: int = 8_192
    trace_batch_spans_max: int = 512
    trace_export_interval_s: float = 1.0
    # One batch with its repetitions, and all that is left at the end of a drain.
    trace_export_timeout_s: float = 5.0
    trace_flush_s: float = 3.0
    # A group serves up to 512 requests, and that many links would be hard to read.
    trace_links_max: int = 128

    # Servers of `transferd dev` and of the tests. RabbitMQ takes about 7 s to start, and the crash
    # recovery of PostgreSQL depends on the disk.
    server_start_s: float = 60.0
    # Then SIGKILL: all three keep their data through that, it only costs a recovery.
    server_stop_s: float = 10.0
    # Their answer while they start, and the start of RabbitMQ's epmd, which takes milliseconds.
    server_answer_s: float = 1.0
    server_epmd_s: float = 5.0
    # After the death of a parent the last processes of its servers need a moment to end.
    server_lock_wait_s: float = 2.0
    # A port is seldom lost between the choice and its use; three losses in a row are a fault.
    server_port_attempts_max: int = 3
    # A directory that stays must not collect logs for ever.
    server_log_bytes_max: int = 16 * 1024 * 1024

    # The audit holds a chunk of ids, or of outcomes with bodies of some KiB, in memory at a time.
    audit_chunk_rows: int = 2_000
    # A broken ledger may be broken everywhere; a hundred cases of a kind show what kind it is.
    audit_findings_per_check_max: int = 100
    # Nobody waits for the audit, but a server that hangs must not keep it for ever: a day.
    audit_query_timeout_s: float = 24 * 3600.0

    def __post_init__(self) -> None:
        """Raise ConfigurationError unless the waits nest and a wait plus one attempt fits."""
        nest = (
            "client_timeout_s",
            "nginx_timeout_s",
            "request_deadline_s",
            "mailbox_wait_s",
            "statement_timeout_s",
            "idle_in_transaction_timeout_s",
            "lock_timeout_s",
        )
        for outer, inner in pairwise(nest):
            if not getattr(self, outer) > getattr(self, inner):
                raise ConfigurationError(f"{outer} must be longer than {inner}")
        if self.mailbox_wait_s + self.command_timeout_s > self.request_deadline_s:
            raise ConfigurationError(
                "mailbox_wait_s and one whole attempt must fit into request_deadline_s"
            )
        if not self.drain_linger_s > self.nginx_keepalive_s:
            raise ConfigurationError("drain_linger_s must be longer than nginx_keepalive_s")
        if not self.relay_publish_timeout_s < self.idle_in_transaction_timeout_s:
            raise ConfigurationError(
                "relay_publish_timeout_s must be shorter than idle_in_transaction_timeout_s"
            )
        # The new secret, and the one before it.
        if self.webhook_secrets_max < 2:
            raise ConfigurationError("webhook_secrets_max must be at least 2")
        if not self.renew_after_returns < self.delivery_limit:
            raise ConfigurationError("renew_after_returns must be smaller than delivery_limit")
        if not self.backlog_low < self.backlog_high < self.backlog_max:
            raise ConfigurationError("backlog_low < backlog_high < backlog_max must hold")
