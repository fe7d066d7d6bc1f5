"""All limits of queues, batches, retries and waits. They are checked at start."""

from dataclasses import dataclass
from itertools import pairwise


class ConfigurationError(Exception):
    """The configuration cannot work. The message names the setting and the remedy."""


@dataclass(frozen=True)
class Limits:
    """Named limits with the reasons for their values. The constructor checks that timeouts nest."""

    # A body of the single-transfer routes is under 1 KiB; 4 KiB of metadata and escapes fit in 32.
    body_bytes_max: int = 32 * 1024
    # 5,000 transfers with a reference each, and some with metadata.
    batch_body_bytes_max: int = 4 * 1024 * 1024
    batch_transfers_max: int = 5_000
    # Batches in progress of one ledger and of all, from the first byte to the answer. Further
    # batches wait unread for up to batch_wait_s. A batch takes up to 25 MiB of memory.
    batches_max: int = 8
    batches_all_max: int = 12
    batch_wait_s: float = 1.5
    # Timeouts for slow clients, as in Nginx: the head of a request from its first to its last byte,
    # the whole body, the unread rest of a refused body, an answer that the client does not read.
    head_wait_s: float = 5.0
    body_wait_s: float = 5.0
    linger_s: float = 2.0
    send_wait_s: float = 10.0
    # Between two requests of a connection. Nginx closes its own long before.
    idle_connection_s: float = 60.0
    # An idle connection takes about 10 KiB. Connections beyond the limit are closed at once, also
    # those of health checks; Nginx then repeats safe requests at another replica. Files are kept
    # back for connections to servers and for logs.
    connections_max: int = 16_384
    files_kept_back: int = 256
    # A batch can have ten thousand faults; a client can correct the first hundred first.
    field_errors_max: int = 100
    # More faults than the largest batch has fields are only counted: reading each of them would
    # take a second and 200 MiB.
    field_errors_read_max: int = 50_000
    metadata_bytes_max: int = 4 * 1024
    text_chars_max: int = 140
    key_chars_max: int = 255
    list_items_default: int = 50
    list_items_max: int = 200
    # Holds that a page looks at to find those that match: at most about 12 ms of PostgreSQL.
    listed_holds_looked_at_max: int = 5_000

    # One wallet commits about 5,000 transfers/s, so a full mailbox is a tenth of a second of work:
    # enough for a burst, and short enough that its commands do not time out.
    mailbox_envelopes_max: int = 512
    # Refusals for a full mailbox: a burst is sent at once, the others at a rate, delayed by at most
    # mailbox_refusal_delay_s. Without the delay, clients that retry at once get 6,000 refusals a
    # second, which take the whole core from other requests.
    mailbox_refusals_burst: int = 128
    mailbox_refusals_per_s: float = 200.0
    mailbox_refusal_delay_s: float = 2.5
    # Larger groups take longer and do not lower the cost per transfer.
    group_envelopes_max: int = 512
    # Answers sent in one iteration of the event loop, 0.25 ms. Measured: 2 and 16 are slower.
    answers_per_tick: int = 4
    # Transfers of a batch that become commands, or are decided, in one iteration. In one piece,
    # those of a batch of 5,000 would stop all other requests for tens of milliseconds.
    items_per_tick: int = 100
    # Redis executes one call at a time: the snapshots of a batch in one call would stop the claims
    # and reads of all replicas for 10 ms. Most groups change fewer wallets.
    refresh_snapshots_max: int = 128
    # One wallet fills at most half a group, so that other wallets always fit. While other wallets
    # are ready, or were in the last quarter of a second, it brings as many envelopes as they do,
    # but never fewer than the lower bound: an overloaded wallet still commits 1,500 transfers/s.
    turn_envelopes_max: int = 256
    shared_turn_envelopes_min: int = 4
    shared_for_s: float = 0.25
    # Groups of different ledgers in flight at once on one server, and as many connections. Batches
    # and expiries have as many lanes of their own.
    lanes_max: int = 2
    # A ledger fills a whole group. While envelopes of other ledgers wait, or did a moment ago, its
    # group has as many as they have waiting, but never fewer than the first limit. Each of the
    # others counts with at most the second one, so two flooded ledgers do not free each other.
    # Measured (docs/benchmarks.md): 32 delays the others more, 8 takes more from the busy ledger.
    shared_group_envelopes_min: int = 16
    counted_envelopes_max: int = 64
    group_shared_for_s: float = 0.02
    # A ledger that fills its share pauses after each group for as long as the group took, but not
    # for the time of waits and retries.
    group_pause_max_s: float = 0.05
    # Above the high mark new callers wait at the gate until the backlog is below the low mark. With
    # backlog_max inside and waiting the replica answers `overloaded`. Each ledger has a gate;
    # backlog_all_max is for the commands of all, so one flooded ledger leaves half of it.
    backlog_high: int = 4096
    backlog_low: int = 3072
    backlog_max: int = 8192
    backlog_all_max: int = 16_384
    # Connections that wait to be accepted. A client beyond the limit repeats its SYN after 1 s.
    accept_queue_max: int = 1024

    # Nested timeouts: each is shorter than the one before, so an outer caller gets the reason of
    # the inner timeout before its own timeout ends.
    client_timeout_s: float = 15.0
    nginx_timeout_s: float = 12.0
    request_deadline_s: float = 10.0
    mailbox_wait_s: float = 5.0
    statement_timeout_s: float = 3.0
    idle_in_transaction_timeout_s: float = 2.0
    lock_timeout_s: float = 1.0
    # The driver's timeout, for a server that hangs and does not report its own timeout.
    command_timeout_s: float = 3.5

    # The first retry after a serialization failure is immediate; then the wait doubles to the max.
    retry_wait_first_s: float = 0.01
    retry_wait_max_s: float = 0.25
    # The next attempt finds the row of a duplicate; a second duplicate is a fault.
    duplicate_attempts_max: int = 2
    # How often commands of a wallet are retried while another session locks its row.
    step_aside_s: float = 0.1
    # Wallets remembered as locked by another session. Beyond the limit all are forgotten and
    # retried, which costs one lock timeout.
    contended_wallets_max: int = 10_000

    # Longer than nearly every attempt, and short because a killed replica leaves its claims. If a
    # claim expires too early, the only cost is an attempt that is rolled back.
    claim_ttl_s: float = 3.0
    # While another replica has claimed a key, PostgreSQL is asked this often for the outcome; after
    # claim_wait_s the claim is ignored.
    claim_poll_s: float = 0.1
    claim_wait_s: float = 1.0
    replay_ttl_s: int = 24 * 3600
    # A larger answer (of a batch) is not cached; its replay is read from PostgreSQL.
    replay_bytes_max: int = 32 * 1024
    # A snapshot is stale only after a failed refresh, and for no longer than this.
    snapshot_ttl_s: int = 15
    # A snapshot must end this long before the first expiry of a hold: for clocks that do not run
    # equally fast, and for the call to Redis.
    snapshot_margin_s: float = 1.0
    # The expiry of all holds of a wallet is written in one transaction, at about 40 us each.
    open_holds_max: int = 1_000
    # Most holds that one group expires. It must be more than a wallet can have. Commands of further
    # wallets wait for the next group.
    group_expiries_max: int = 2_000
    # How often due holds are looked for, and for how many of the oldest the wallets are taken.
    # Their expiry is exact without this; it makes the events appear.
    expiry_sweep_s: float = 1.0
    # Groups of 64 ledgers that a sweep asks: all of 4,096 in four sweeps.
    expiry_groups_asked_max: int = 16
    expiry_look_holds_max: int = 20
    # Most holds that one round expires, unless a single wallet has more.
    expiry_holds_max: int = 100
    # A wallet whose expiry has failed is left out for a minute.
    expiry_left_out_s: float = 60.0
    # Active holds counted for the metrics, and how often. Counting millions is expensive.
    active_holds_counted_max: int = 1_000_000
    active_holds_measure_s: float = 15.0
    # A reader that takes longer between PostgreSQL and the cache does not fill the cache.
    reservation_ttl_s: float = 2.0
    redis_timeout_s: float = 0.25
    # Circuit breaker: after a failed call no calls are made, so an outage costs one timeout and not
    # one per group. A background task pings Redis after each pause of this length.
    breaker_open_s: float = 1.0
    # Requests that wait for another request with the same key; each costs memory only.
    joined_requests_max: int = 1024
    cache_read_keys_max: int = 512
    # Holds that one query reads for the requests that name them.
    hold_read_ids_max: int = 512

    # A read takes a connection for about a millisecond. A ledger uses at most read_connections of
    # them, so a ledger with too many reads leaves some to the others.
    read_connections: int = 10
    read_connections_all: int = 14
    # If more reads waited for a connection, the last ones would time out.
    waiting_reads_max: int = 1024
    # A read of the past checks whether the writers of its wallet have ended: at once, and after
    # pauses that double. A group takes about 10 ms, so a busy wallet has had several by the end.
    settling_look_first_s: float = 0.01
    settling_look_last_s: float = 0.04
    # Then it waits for the row lock for up to lock_timeout_s. The limits on connections that wait,
    # of one ledger and of all, leave connections to other reads.
    settling_locks_max: int = 4
    settling_locks_all_max: int = 6
    pool_acquire_timeout_s: float = 2.0
    # With Citus: how often a process reads which node holds each ledger, while it uses them. It
    # takes about 10 ms of the coordinator. After a move, statements take 4 times as long until
    # then; after a node was replaced, they fail until then.
    placement_s: float = 2.0
    # Ledgers kept open without a request in progress, with their currencies: 60 KiB each.
    open_ledgers_max: int = 256
    api_key_cache_s: float = 5.0
    api_key_cache_entries_max: int = 10_000
    # Operators look at the last use of a key to decide whether to revoke the key, so a delay of a
    # minute is acceptable. A key in constant use costs one write a minute.
    key_uses_interval_s: float = 60.0
    # Keys in use within one interval. The last use of further keys is not recorded.
    key_uses_max: int = 10_000
    # The last write of a replica that stops, as long as a lock may take.
    key_uses_last_write_s: float = 1.0

    sweep_interval_s: float = 0.25
    # A drain lingers longer than Nginx keeps idle connections to replicas, so Nginx never writes to
    # a closed one.
    nginx_keepalive_s: float = 2.0
    drain_linger_s: float = 2.5
    drain_timeout_s: float = 12.0

    # A replica that ran for replica_stable_s before it died restarts at once. Otherwise the wait
    # doubles up to the max. In a rolling restart each replica must be ready after replica_start_s.
    # A replica that fails earlier than that at its first start ends the supervisor.
    replica_stable_s: float = 10.0
    replica_restart_first_s: float = 0.25
    replica_restart_max_s: float = 5.0
    replica_start_s: float = 30.0
    replica_poll_s: float = 0.05
    # PostgreSQL's answer to `/readyz` and `/metrics`, and a replica's answer to its supervisor.
    # Both take milliseconds, and a prober usually waits for a few seconds.
    readiness_wait_s: float = 1.0

    # Events in one row of the outbox, so that a relay takes few more events than a batch.
    outbox_row_events_max: int = 250
    # Events that the relay publishes in one transaction, and the time for it: the server ends a
    # transaction that idles for idle_in_transaction_timeout_s.
    relay_batch_events_max: int = 500
    relay_publish_timeout_s: float = 1.5
    # How often a relay looks for events without a signal.
    relay_poll_s: float = 0.05
    # Ledgers whose outboxes are published at a time, each with a connection.
    relay_lanes_max: int = 4
    # How old the list of ledgers may be: a new ledger is served after this time.
    ledgers_read_s: float = 5.0
    # Ledgers that one statement asks about. Each takes some locks, and PostgreSQL by default has
    # room for 6,400.
    ledgers_asked_max: int = 64
    # With more ledgers, those that had nothing for ledger_busy_s are asked once in ledger_idle_s,
    # so thousands of idle ones cost a poll little.
    ledger_busy_s: float = 10.0
    ledger_idle_s: float = 1.0
    # How long a poll waits for a server that hangs, before it goes on with the ledgers of others.
    watch_wait_s: float = 0.5
    # Groups of idle ledgers that one poll asks, so that the busy ones need not wait for all others.
    idle_groups_asked_max: int = 4
    # Ledgers whose webhooks a relay or a notifier remembers.
    directories_max: int = 256
    # How often the rows of the outbox are counted for the metrics.
    outbox_measure_s: float = 2.0
    # Waiting deliveries counted for the metrics. Counting a backlog of millions is expensive.
    deliveries_counted_max: int = 100_000
    # The wait after a failure. It doubles up to the max.
    relay_wait_first_s: float = 0.1
    relay_wait_max_s: float = 5.0
    # The broker's time to connect, declare or confirm. A slower one counts as unreachable.
    amqp_timeout_s: float = 5.0

    # Each message is a wake-up for one batch of the relay. The broker rejects further ones, which
    # are not needed: when a notifier starts, it reads all deliveries that are due.
    work_queue_messages_max: int = 100_000
    # Unacknowledged wake-ups in one notifier. It leaves only the newest one unacknowledged.
    notify_prefetch: int = 16
    # How often a worker looks for due deliveries without a wake-up, and sends one. Far shorter than
    # RabbitMQ's consumer_timeout of half an hour.
    delivery_sweep_interval_s: float = 15.0
    # Ledgers whose due deliveries are read at a time, and whose results are written.
    notify_lanes_max: int = 4
    # Endpoints read in one query.
    notify_endpoints_max: int = 256
    # Deliveries held in one notifier. One takes about 6 KiB, so this is 50 MiB. Beyond the limit a
    # lane holds only deliveries in flight.
    notify_held_max: int = 8192
    # Results written together, in one transaction.
    notify_batch_max: int = 256
    # How long the first message of a batch waits for others. Measured: without it batches have two
    # or three messages, and the cost of an event more than doubles.
    notify_linger_s: float = 0.01
    # Concurrent requests to one endpoint.
    endpoint_in_flight_max: int = 8
    # Deliveries held for an endpoint: enough that a wallet with many events rarely holds up others.
    endpoint_held_max: int = 256
    # After endpoint_in_flight_max failures in a row an endpoint is paused. The pause doubles up to
    # the max. Meanwhile its deliveries wait in the table and use up no attempts.
    endpoint_pause_first_s: float = 1.0
    endpoint_pause_max_s: float = 60.0
    # For connect, send and answer. A receiver should answer first and process the event afterwards.
    webhook_timeout_s: float = 10.0
    webhook_connect_timeout_s: float = 3.0
    # Bytes read of an answer before the connection is closed, and characters kept in the log.
    webhook_response_bytes_max: int = 16 * 1024
    webhook_excerpt_chars: int = 500
    # An idle connection is kept for the next delivery, but for less time than common receivers keep
    # one (2 to 5 s): a request into a connection that is being closed is a failed attempt.
    webhook_keepalive_s: float = 1.5
    # A DNS lookup without an answer blocks a thread; further lookups wait for a free thread.
    webhook_lookups_max: int = 32
    # The longest Retry-After of a receiver that is respected.
    webhook_retry_after_max_s: float = 24 * 3600.0
    # The old secret also signs for a day after a rotation, so that receivers can switch.
    webhook_secret_overlap_s: float = 24 * 3600.0
    # Secrets that sign at a time. Each adds 48 bytes to the header webhook-signature, and common
    # receivers take 8 KiB for one header or for all together: this is a fifth of it.
    webhook_secrets_max: int = 32
    # There are 18 filters. Common browsers accept URLs of this length.
    webhook_filters_max: int = 24
    webhook_url_chars_max: int = 2_048
    prune_interval_s: float = 600.0
    prune_rows: int = 2_000
    # How often the worker asks the broker whether its consumer still exists.
    consumer_check_s: float = 2.0

    # Streams of one ledger and of all. A stream takes a connection and a few KiB; one query asks
    # for the versions of all streams of a ledger.
    streams_max: int = 1_000
    streams_all_max: int = 2_000
    stream_poll_s: float = 0.25
    stream_heartbeat_s: float = 15.0
    stream_page_events: int = 200
    # A client that reads nothing for this time is disconnected. It can resume at the same event. A
    # drain waits for this time too.
    stream_send_timeout_s: float = 5.0
    # Concurrent reads of pages, of one ledger and of all, so that streams of a busy wallet leave
    # connections to other reads.
    stream_reads_max: int = 4
    stream_reads_all_max: int = 6
    # How long a client waits before it reconnects: long enough for another replica to take over.
    stream_retry_s: float = 2.0
    # Bytes of events sent with one write: the size of the connection's write buffer.
    stream_write_bytes: int = 64 * 1024

    # Spans that wait for the collector, a few KiB each; further spans are lost. This is a few
    # seconds of a replica that records every request.
    trace_queue_spans_max: int = 8_192
    trace_batch_spans_max: int = 512
    trace_export_interval_s: float = 1.0
    # The export of one batch with its retries, and the export of the rest at the end of a drain.
    trace_export_timeout_s: float = 5.0
    trace_flush_s: float = 3.0
    # A group serves up to 512 requests, and that many links would be hard to read.
    trace_links_max: int = 128

    # Servers of `transferd dev` and of the tests. RabbitMQ takes about 7 s to start, and the crash
    # recovery of PostgreSQL depends on the disk.
    server_start_s: float = 60.0
    # Then SIGKILL. PostgreSQL and RabbitMQ keep their data and recover at the next start.
    server_stop_s: float = 10.0
    # A server's answer to a readiness check, and the start of RabbitMQ's epmd: milliseconds.
    server_answer_s: float = 1.0
    server_epmd_s: float = 5.0
    # After a parent has died, its servers hold their locks until their last processes have ended.
    server_lock_wait_s: float = 2.0
    # Another process rarely takes a port between its choice and its use. Three times is a fault.
    server_port_attempts_max: int = 3
    # The log in a permanent directory must not grow without limit.
    server_log_bytes_max: int = 16 * 1024 * 1024

    # The audit holds a chunk of ids, or of outcomes with bodies of some KiB, in memory at a time.
    audit_chunk_rows: int = 2_000
    # A damaged ledger can have findings everywhere; a hundred of each kind show the damage.
    audit_findings_per_check_max: int = 100
    # Missing transfers listed for one batch: a few show the damage.
    audit_missing_transfers_max: int = 10
    # The audit of a large ledger may take hours, but must end if the server hangs.
    audit_query_timeout_s: float = 24 * 3600.0

    # A migration waits for a table lock for half of lock_timeout_s, so requests that wait behind it
    # do not fail. Then it tries again: a backup or an audit may have the table locked for hours.
    migrate_lock_pause_s: float = 1.0
    migrate_lock_wait_max_s: float = 300.0
    # Between two lines of progress. A column without a default takes a second for 1,000 ledgers.
    migrate_report_s: float = 2.0
    # How often the progress of a move is read, which asks both nodes for the sizes of the tables.
    move_report_s: float = 1.0

    def __post_init__(self) -> None:
        """Raise ConfigurationError unless timeouts nest and related limits fit together."""
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
        if not self.open_holds_max < self.group_expiries_max:
            raise ConfigurationError("open_holds_max must be less than group_expiries_max")
        # The new secret, and the one before it.
        if self.webhook_secrets_max < 2:
            raise ConfigurationError("webhook_secrets_max must be at least 2")
        if not self.backlog_low < self.backlog_high < self.backlog_max:
            raise ConfigurationError("backlog_low < backlog_high < backlog_max must hold")
        self._check_shares()

    def _check_shares(self) -> None:
        for name in ("backlog", "batches", "settling_locks", "streams", "stream_reads"):
            if getattr(self, f"{name}_max") > getattr(self, f"{name}_all_max"):
                raise ConfigurationError(f"{name}_max must not be more than {name}_all_max")
