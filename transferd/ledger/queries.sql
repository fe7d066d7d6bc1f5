-- Every query that the service runs. {ledger} is the schema that `ledger_of` names.

-- name: lock_and_look_up
-- First statement of a group: everybody who wants these wallets waits here, in id order, so no
-- deadlock. Then, with the locks held, the outcomes that the keys have already, and the time, which
-- therefore does not run backwards for a wallet. The outcomes are as of the start of the statement: one
-- whose COMMIT was waited for is missing, and `write_group` runs into it. The branches run in this
-- order. {skip_locked} is empty, or SKIP LOCKED after a lock time-out, so that only contended turns wait.
WITH locked AS MATERIALIZED (
    SELECT id::text, user_id::text, currency, balance, held, overdraft_limit, status, funding,
           version, metadata::text, created_at, updated_at
    FROM {ledger}.wallets
    WHERE id = ANY ($1::text::uuid[])
    ORDER BY wallets.id
    FOR NO KEY UPDATE {skip_locked}
)
SELECT locked.*, NULL::integer AS client_id, NULL::text AS key, NULL::bytea AS fingerprint,
       NULL::smallint AS outcome_status, NULL::smallint AS render_version,
       NULL::text AS transfer_id, NULL::bytea AS body, NULL::timestamptz AS at
FROM locked
UNION ALL
SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, stored.client_id,
       stored.key, stored.fingerprint, stored.status, stored.render_version,
       stored.transfer_id::text, stored.body, NULL
FROM unnest($2::text::integer[], $3::text[]) AS wanted (client_id, key)
JOIN transferd.outcomes stored USING (client_id, key)
UNION ALL
SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
       NULL, NULL, NULL, NULL, clock_timestamp();

-- name: existing_wallets
-- Whether a wallet is locked by another transaction or does not exist.
SELECT id::text FROM {ledger}.wallets WHERE id = ANY ($1::uuid[]);

-- name: outcomes
-- Whether keys that another replica has claimed are settled by now.
SELECT stored.client_id, stored.key, stored.fingerprint, stored.status AS outcome_status,
       stored.render_version, stored.transfer_id::text, stored.body
FROM unnest($1::integer[], $2::text[]) AS wanted (client_id, key)
JOIN transferd.outcomes stored USING (client_id, key);

-- name: reversed_sums
-- How much of each transfer was given back; under the lock of the wallet that gives it back.
SELECT reverses_transfer_id::text AS id, sum(amount)::bigint AS amount
FROM {ledger}.transfers
WHERE reverses_transfer_id = ANY ($1::uuid[])
GROUP BY reverses_transfer_id;

-- name: existing_users
-- A wallet needs a user; users are never deleted, so no lock is needed.
SELECT id::text, created_at FROM transferd.users WHERE id = ANY ($1::uuid[]);

-- name: write_group
-- The whole result of a group in one statement: transfers, balances, outcomes, events. Too low a
-- count means that a version had moved (a lost update), or that another replica has stored an outcome
-- for a key. Ids, numbers and currencies are array literals: PostgreSQL parses a text faster than the
-- driver encodes an array item by item. The parameters are the fields of `GroupParameters`.
WITH moved AS (
    INSERT INTO {ledger}.transfers (
        id, kind, source_wallet_id, destination_wallet_id, amount, currency, reference, metadata,
        source_version, source_balance_after, destination_version, destination_balance_after,
        reverses_transfer_id, created_at)
    SELECT id, kind, source, destination, amount, currency, reference, metadata::json,
           source_version, source_after, destination_version, destination_after, reverses, $at
    FROM unnest(
        $transfer_ids::text::uuid[], $transfer_kinds::text::smallint[],
        $source_wallet_ids::text::uuid[], $destination_wallet_ids::text::uuid[],
        $amounts::text::bigint[], $currencies::text::text[], $references::text[],
        $metadata::text[], $source_versions::text::bigint[],
        $source_balances_after::text::bigint[], $destination_versions::text::bigint[],
        $destination_balances_after::text::bigint[], $reversed_transfer_ids::text::uuid[])
        AS t (id, kind, source, destination, amount, currency, reference, metadata,
              source_version, source_after, destination_version, destination_after, reverses)
), updated AS (
    UPDATE {ledger}.wallets w
    SET balance = c.balance, version = c.version, updated_at = $at
    FROM unnest($wallet_ids::text::uuid[], $wallet_versions_read::text::bigint[],
                $wallet_versions::text::bigint[], $wallet_balances::text::bigint[])
        AS c (id, version_read, version, balance)
    WHERE w.id = c.id AND w.version = c.version_read
    RETURNING 1
), kept AS (
    INSERT INTO transferd.outcomes (
        client_id, key, fingerprint, status, render_version, transfer_id, body, created_at)
    SELECT client_id, key, fingerprint, status, render_version, transfer_id, body, $at
    FROM unnest($outcome_client_ids::text::integer[], $outcome_keys::text[],
                $outcome_fingerprints::bytea[], $outcome_statuses::text::smallint[],
                $outcome_render_versions::text::smallint[], $outcome_transfer_ids::text::uuid[],
                $outcome_bodies::bytea[])
        AS o (client_id, key, fingerprint, status, render_version, transfer_id, body)
    ORDER BY client_id, key
    ON CONFLICT DO NOTHING
    RETURNING 1
), sent AS (
    INSERT INTO {ledger}.outbox (created_at, event_count, events)
    SELECT $at, event_count, events::json
    FROM unnest($event_counts::text::integer[], $events::text[]) WITH ORDINALITY
        AS n (event_count, events, position)
    ORDER BY position
)
SELECT (SELECT count(*) FROM updated) AS wallets, (SELECT count(*) FROM kept) AS outcomes;

-- name: insert_users
-- New users of a group. A row fewer tells that the COMMIT of an earlier attempt was done after all.
INSERT INTO transferd.users (id, name, metadata, created_at)
SELECT id, name, metadata::json, $1
FROM unnest($2::uuid[], $3::text[], $4::text[]) AS u (id, name, metadata)
ON CONFLICT DO NOTHING
RETURNING 1;

-- name: insert_wallets
-- New wallets of a group at version 0, before `write_group` moves their initial balance. Counted, as
-- new users are.
INSERT INTO {ledger}.wallets (
    id, user_id, currency, balance, held, overdraft_limit, status, funding, version, metadata,
    created_at, updated_at)
SELECT id, user_id, currency, 0, 0, overdraft_limit, {status_active}, false, 0, metadata::json, $1,
       $1
FROM unnest($2::uuid[], $3::uuid[], $4::text[], $5::bigint[], $6::text[])
    AS w (id, user_id, currency, overdraft_limit, metadata)
ON CONFLICT DO NOTHING
RETURNING 1;

-- name: set_wallets
-- Wallets that were frozen, closed or updated, with all else that the group did to them: balance and
-- limit must change together, or the checks of the table would meet one without the other.
UPDATE {ledger}.wallets w
SET balance = c.balance, version = c.version, updated_at = $1, status = c.status,
    overdraft_limit = c.overdraft_limit, metadata = c.metadata::json
FROM unnest($2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[], $6::smallint[], $7::bigint[],
            $8::text[])
    AS c (id, version_read, version, balance, status, overdraft_limit, metadata)
WHERE w.id = c.id AND w.version = c.version_read
RETURNING 1;

-- name: insert_wallet_changes
-- The history of everything that is not a transfer.
INSERT INTO {ledger}.wallet_changes (
    wallet_id, version, kind, status, balance_after, overdraft_limit, created_at)
SELECT wallet_id, version, kind, status, balance, overdraft_limit, $1
FROM unnest($2::uuid[], $3::bigint[], $4::smallint[], $5::smallint[], $6::bigint[], $7::bigint[])
    AS c (wallet_id, version, kind, status, balance, overdraft_limit);

-- name: read_wallets
-- Snapshots for reads and dry runs; no lock.
SELECT id::text, user_id::text, currency, balance, held, overdraft_limit, status, funding, version,
       metadata::text, created_at, updated_at
FROM {ledger}.wallets
WHERE id = ANY ($1::uuid[]);

-- name: list_wallets
-- Newest first by id (UUIDv7 grows with time); a null filter admits everything.
SELECT id::text, user_id::text, currency, balance, held, overdraft_limit, status, funding, version,
       metadata::text, created_at, updated_at
FROM {ledger}.wallets
WHERE ($1::uuid IS NULL OR user_id = $1)
  AND ($2::text IS NULL OR currency = $2)
  AND ($3::uuid IS NULL OR id < $3)
ORDER BY wallets.id DESC
LIMIT $4;

-- name: read_wallet_and_clock
-- A wallet beside the time: what an instant is compared with before anything is said of it.
SELECT id::text, user_id::text, currency, balance, held, overdraft_limit, status, funding, version,
       metadata::text, created_at, updated_at, clock_timestamp() AS now
FROM {ledger}.wallets
WHERE id = $1;

-- name: lock_shared
-- Ends when each transaction has ended that had locked the wallet, or at once with {skip_locked}, and
-- then without the row if there is one. A group draws its time with the lock held, so later ones have
-- later times. One message to the server, so one transaction that ends by itself: the lock is never
-- held while the service or the network is slow, nor for a flush of the log, since nothing is lost
-- with it. READ COMMITTED, since at a stricter level the wait would end in a conflict. {id} is a UUID;
-- such a message takes no parameters.
SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
SET LOCAL synchronous_commit = off;
SELECT FROM {ledger}.wallets WHERE id = '{id}' FOR SHARE {skip_locked};

-- name: version_before
-- The last version of a wallet with a time before an instant, by bisection: versions have no gaps and
-- times do not decrease with them, so a wallet of ten million changes needs 24 probes of an index.
-- Changes of one group have equal times, and are before the instant together or not at all. Null for
-- an instant that is not after its creation.
WITH RECURSIVE search (low, high) AS (
    SELECT 0::bigint, version FROM {ledger}.wallets WHERE id = $1 AND created_at < $2
    UNION ALL
    SELECT CASE WHEN probe.at < $2 THEN middle.version ELSE low END,
           CASE WHEN probe.at < $2 THEN high ELSE middle.version - 1 END
    FROM search
    CROSS JOIN LATERAL (SELECT (low + high + 1) / 2 AS version) middle
    CROSS JOIN LATERAL (
        SELECT created_at AS at FROM {ledger}.transfers
        WHERE source_wallet_id = $1 AND source_version = middle.version
        UNION ALL
        SELECT created_at FROM {ledger}.transfers
        WHERE destination_wallet_id = $1 AND destination_version = middle.version
        UNION ALL
        SELECT created_at FROM {ledger}.wallet_changes
        WHERE wallet_id = $1 AND version = middle.version
    ) probe
    WHERE low < high
)
SELECT low AS version FROM search WHERE low = high;

-- name: state_at_version
-- Balance, status and limit as they were right after a version.
SELECT entry.balance_after, entry.created_at, settings.status, settings.overdraft_limit
FROM (
    SELECT source_balance_after AS balance_after, created_at FROM {ledger}.transfers
    WHERE source_wallet_id = $1 AND source_version = $2
    UNION ALL
    SELECT destination_balance_after, created_at FROM {ledger}.transfers
    WHERE destination_wallet_id = $1 AND destination_version = $2
    UNION ALL
    SELECT balance_after, created_at FROM {ledger}.wallet_changes
    WHERE wallet_id = $1 AND version = $2
) entry
CROSS JOIN LATERAL (
    SELECT status, overdraft_limit FROM {ledger}.wallet_changes
    WHERE wallet_id = $1 AND version <= $2
    ORDER BY version DESC LIMIT 1
) settings;

-- name: statement
-- A wallet's entries between two versions, newest first: three index scans, merged. An entry has the
-- kind of a transfer or the kind of a change.
SELECT * FROM (
    (SELECT id::text AS transfer_id, kind AS transfer_kind, NULL::smallint AS change_kind,
            -amount AS amount, source_balance_after AS balance_after, source_version AS version,
            destination_wallet_id::text AS counterparty_wallet_id, reference, created_at,
            metadata::text
     FROM {ledger}.transfers
     WHERE source_wallet_id = $1 AND source_version > $2 AND source_version <= $3
     ORDER BY source_version DESC LIMIT $4)
    UNION ALL
    (SELECT id::text, kind, NULL, amount, destination_balance_after, destination_version,
            source_wallet_id::text, reference, created_at, metadata::text
     FROM {ledger}.transfers
     WHERE destination_wallet_id = $1 AND destination_version > $2 AND destination_version <= $3
     ORDER BY destination_version DESC LIMIT $4)
    UNION ALL
    (SELECT NULL, NULL, kind, 0, balance_after, version, NULL, NULL, created_at, NULL
     FROM {ledger}.wallet_changes
     WHERE wallet_id = $1 AND version > $2 AND version <= $3
     ORDER BY version DESC LIMIT $4)
) entries
ORDER BY version DESC
LIMIT $4;

-- name: read_transfers
-- Transfers by id: for GET, for reversals, and to render stored outcomes again.
SELECT id::text, kind, source_wallet_id::text, destination_wallet_id::text, amount, currency,
       reference, metadata::text, source_version, source_balance_after, destination_version,
       destination_balance_after, reverses_transfer_id::text, created_at
FROM {ledger}.transfers
WHERE id = ANY ($1::uuid[]);

-- name: list_transfers
-- A wallet's transfers on either side, newest version first.
SELECT * FROM (
    (SELECT id::text, kind, source_wallet_id::text, destination_wallet_id::text, amount, currency,
            reference, metadata::text, source_version, source_balance_after, destination_version,
            destination_balance_after, reverses_transfer_id::text, created_at,
            source_version AS wallet_version
     FROM {ledger}.transfers
     WHERE source_wallet_id = $1 AND source_version < $2
     ORDER BY source_version DESC LIMIT $3)
    UNION ALL
    (SELECT id::text, kind, source_wallet_id::text, destination_wallet_id::text, amount, currency,
            reference, metadata::text, source_version, source_balance_after, destination_version,
            destination_balance_after, reverses_transfer_id::text, created_at,
            destination_version AS wallet_version
     FROM {ledger}.transfers
     WHERE destination_wallet_id = $1 AND destination_version < $2
     ORDER BY destination_version DESC LIMIT $3)
) transfers
ORDER BY wallet_version DESC
LIMIT $3;

-- name: read_currencies
-- Read once at start: currencies change only by migration.
SELECT code, name, exponent, funding_wallet_id::text FROM {ledger}.currencies ORDER BY code;

-- name: read_user
-- One user.
SELECT id::text, name, metadata::text, created_at FROM transferd.users WHERE id = $1;

-- name: list_users
-- Newest first by id.
SELECT id::text, name, metadata::text, created_at
FROM transferd.users
WHERE ($1::uuid IS NULL OR id < $1)
ORDER BY users.id DESC
LIMIT $2;

-- name: update_user
-- A user's name and metadata are not money: no version, the last write wins.
UPDATE transferd.users
SET name = CASE WHEN $2 THEN $3 ELSE name END,
    metadata = CASE WHEN $4 THEN $5::json ELSE metadata END
WHERE id = $1
RETURNING id::text, name, metadata::text, created_at;

-- name: read_api_key
-- Whose key this is; the secret is compared outside, in constant time. Infinity is no datetime: an end
-- there, which an earlier version has stored for the largest time that there is, is none.
SELECT client_id, secret_sha256, scopes, revoked_at,
    CASE WHEN expires_at < '10000-01-01+00' THEN greatest(expires_at, '0001-01-02+00') END AS expires_at
FROM transferd.api_keys
WHERE id = $1;

-- name: lock_clients
-- Transactions that may create a client take turns, so that each sees the names of those before it.
-- Requests to replicas read no clients and do not wait here.
LOCK TABLE transferd.clients IN SHARE ROW EXCLUSIVE MODE;

-- name: client_names
-- All of them, oldest first: operators create them, so there are few.
SELECT name FROM transferd.clients ORDER BY id;

-- name: insert_client
-- A client is there from its first key on; under the lock of `lock_clients`.
INSERT INTO transferd.clients (name) VALUES ($1);

-- name: insert_api_key
-- A new key, and what may be shown of it.
INSERT INTO transferd.api_keys (id, client_id, secret_sha256, scopes, expires_at)
SELECT $1, clients.id, $3, $4, $5 FROM transferd.clients WHERE name = $2
RETURNING id, $2::text AS client, scopes, created_at, expires_at, last_used_at, revoked_at;

-- name: list_api_keys
-- What an operator may see of keys, oldest first; never a secret, nor its digest.
SELECT api_keys.id, clients.name, scopes, api_keys.created_at,
    CASE WHEN expires_at < '10000-01-01+00' THEN greatest(expires_at, '0001-01-02+00') END AS expires_at,
    last_used_at, revoked_at
FROM transferd.api_keys
JOIN transferd.clients ON clients.id = client_id
WHERE $1::text IS NULL OR clients.name = $1
ORDER BY api_keys.created_at, api_keys.id;

-- name: has_usable_api_key
-- Without a usable key no client could call: the replica does not start.
SELECT EXISTS (
    SELECT FROM transferd.api_keys
    WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
) AS found;

-- name: revoke_api_keys
-- The first revocation keeps its time. Locked in id order, as by `record_key_uses`: no deadlock.
WITH locked AS MATERIALIZED (
    SELECT id FROM transferd.api_keys WHERE id = ANY ($1::text[]) ORDER BY id FOR NO KEY UPDATE
)
UPDATE transferd.api_keys SET revoked_at = coalesce(revoked_at, now())
FROM locked
WHERE api_keys.id = locked.id
RETURNING api_keys.id;

-- name: record_key_uses
-- When keys were used last: one statement for all, and a clock that runs ahead counts as now.
WITH locked AS MATERIALIZED (
    SELECT id FROM transferd.api_keys WHERE id = ANY ($1::text[]) ORDER BY id FOR NO KEY UPDATE
)
UPDATE transferd.api_keys SET last_used_at = greatest(last_used_at, least(used.at, now()))
FROM locked
JOIN unnest($1::text[], $2::timestamptz[]) AS used (id, at) USING (id)
WHERE api_keys.id = locked.id;

-- name: applied_migrations
-- Whether a process finds the tables that it was written for.
SELECT name FROM transferd.schema_migrations;

-- name: ping
-- Whether PostgreSQL answers.
SELECT 1;

-- name: insert_outcome
-- The outcome of a key whose request moves no money, beside what the request changed. A row fewer
-- tells that another request with the key was faster.
INSERT INTO transferd.outcomes (
    client_id, key, fingerprint, status, render_version, transfer_id, body, created_at)
VALUES ($1, $2, $3, $4, $5, NULL, $6, now())
ON CONFLICT DO NOTHING
RETURNING 1;

-- name: take_lease
-- The relay that locks this row publishes until its transaction ends; the others do not wait.
SELECT ledger FROM transferd.relay_leases WHERE ledger = $1 FOR UPDATE SKIP LOCKED;

-- name: read_outbox
-- The oldest rows, up to $1 events. Never "behind the last one": sequence numbers commit out of order, though for one
-- wallet in order. With the version of the webhooks in the same snapshot: it counts those that an event may be for.
SELECT seq, created_at, events::text, (SELECT version FROM transferd.webhooks_version) AS webhooks_version
FROM (
    SELECT seq, created_at, events, sum(event_count) OVER (ORDER BY seq) - event_count AS before
    FROM (
        SELECT seq, created_at, event_count, events FROM {ledger}.outbox
        ORDER BY seq LIMIT $1
    ) oldest
) counted
WHERE before < $1
ORDER BY seq;

-- name: outbox_has_rows
-- A poll must be cheap while there is nothing to do.
SELECT EXISTS (SELECT FROM {ledger}.outbox);

-- name: outbox_size
-- What waits to be published, and since when the oldest does. Read for the metrics.
SELECT coalesce(sum(event_count), 0)::bigint AS events,
       extract(epoch FROM clock_timestamp() - min(created_at))::float8 AS oldest_s
FROM {ledger}.outbox;

-- name: delete_outbox
-- Published, and written as deliveries in the same transaction.
DELETE FROM {ledger}.outbox WHERE seq = ANY ($1::bigint[]);

-- name: insert_outbox
-- Events that are to be sent once more: they leave the way they came.
INSERT INTO {ledger}.outbox (created_at, event_count, events)
VALUES (clock_timestamp(), $1, $2::json);

-- name: insert_webhook
-- A new endpoint.
INSERT INTO transferd.webhooks (
    id, client_id, url, events, wallet_id, secret, status, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, 0, now(), now())
RETURNING id::text, url, events, wallet_id::text, status, disabled_reason, secret, previous_secret,
          previous_secret_until, old_secrets, old_secrets_until, created_at, updated_at;

-- name: read_webhooks
-- One endpoint, or all of them for a notifier.
SELECT id::text, url, events, wallet_id::text, status, disabled_reason, secret, previous_secret,
       previous_secret_until, old_secrets, old_secrets_until, created_at, updated_at
FROM transferd.webhooks
WHERE $1::uuid IS NULL OR id = $1;

-- name: list_webhooks
-- Newest first by id.
SELECT id::text, url, events, wallet_id::text, status, disabled_reason, secret, previous_secret,
       previous_secret_until, old_secrets, old_secrets_until, created_at, updated_at
FROM transferd.webhooks
WHERE $1::uuid IS NULL OR id < $1
ORDER BY webhooks.id DESC
LIMIT $2;

-- name: update_webhook
-- What is null stays; an endpoint that is set active again forgets why it was not.
UPDATE transferd.webhooks
SET url = coalesce($2, url), events = coalesce($3, events), status = coalesce($4, status),
    disabled_reason = CASE $4::smallint WHEN 0 THEN NULL WHEN 1 THEN $5::text
                      ELSE disabled_reason END,
    updated_at = now()
WHERE id = $1
RETURNING id::text, url, events, wallet_id::text, status, disabled_reason, secret, previous_secret,
          previous_secret_until, old_secrets, old_secrets_until, created_at, updated_at;

-- name: lock_webhook
-- One endpoint, and the time: two rotations take turns, and each keeps the secrets of those before it.
SELECT id::text, url, events, wallet_id::text, status, disabled_reason, secret, previous_secret,
       previous_secret_until, old_secrets, old_secrets_until, created_at, updated_at, now() AS now
FROM transferd.webhooks
WHERE id = $1
FOR NO KEY UPDATE;

-- name: rotate_webhook
-- A new secret. The one before it signs until $3 seconds from now, those in $4 until the times in $5.
UPDATE transferd.webhooks
SET previous_secret = secret, previous_secret_until = now() + make_interval(secs => $3),
    old_secrets = array_prepend(secret, $4::text[]),
    old_secrets_until = array_prepend(now() + make_interval(secs => $3), $5::timestamptz[]),
    secret = $2, updated_at = now()
WHERE id = $1
RETURNING id::text, url, events, wallet_id::text, status, disabled_reason, secret, previous_secret,
          previous_secret_until, old_secrets, old_secrets_until, created_at, updated_at;

-- name: delete_webhook
-- Its delivery log goes with it, except what was given up: an operator decides about that.
WITH log AS (
    DELETE FROM transferd.deliveries
    WHERE endpoint_id = $1 AND NOT (status = 3 AND dead_reason IS NOT NULL)
)
DELETE FROM transferd.webhooks WHERE id = $1 RETURNING 1;

-- name: count_webhook_change
-- In the transaction of the change.
UPDATE transferd.webhooks_version SET version = version + 1;

-- name: webhooks_version
-- Whether the webhooks that a worker knows are still the right ones.
SELECT version FROM transferd.webhooks_version;

-- name: insert_deliveries
-- New deliveries of the events $5-$7, in order; $2 says which event each is of, counted from 1. A row that is there
-- stays as it is: its event was published before.
INSERT INTO transferd.deliveries (
    id, number, event_id, endpoint_id, event_type, status, attempts, error, event, created_at, updated_at)
SELECT id, nextval('transferd.delivery_numbers'), event_id, endpoint_id, event_type, status, 0, error,
       event::json, now(), now()
FROM (
    SELECT *
    FROM unnest($1::uuid[], $2::integer[], $3::uuid[], $4::smallint[], $8::text[])
        AS d (id, event_number, endpoint_id, status, error)
    JOIN unnest($5::text[], $6::text[], $7::text[]) WITH ORDINALITY
        AS e (event_id, event_type, event, event_number) USING (event_number)
    ORDER BY event_number
) ordered
ON CONFLICT DO NOTHING;

-- name: read_waiting
-- What is due at some endpoints, up to $2 each, without the deliveries in $3 and $4, which are in flight; and in the
-- last row the version of the webhooks. Two index ranges: retries whose time has come, then what is due at once, in
-- order. A retry of the log sink of the version before has its event in its message.
WITH in_flight (endpoint_id, event_id) AS MATERIALIZED (
    SELECT * FROM unnest($3::uuid[], $4::text[])
)
SELECT w.endpoint_id::text, w.event_id, w.status, w.attempts, w.failures, w.event::text, NULL::bigint AS version
FROM unnest($1::uuid[], $2::integer[]) AS e (endpoint_id, room)
CROSS JOIN LATERAL (
    (SELECT * FROM transferd.deliveries d
     WHERE d.endpoint_id = e.endpoint_id AND d.status IN (0, 2) AND d.next_attempt_at <= now()
       AND d.event IS NOT NULL
       AND (d.endpoint_id, d.event_id) NOT IN (SELECT endpoint_id, event_id FROM in_flight)
     ORDER BY d.next_attempt_at, d.number LIMIT e.room)
    UNION ALL
    (SELECT * FROM transferd.deliveries d
     WHERE d.endpoint_id = e.endpoint_id AND d.status IN (0, 2) AND d.next_attempt_at IS NULL
       AND d.event IS NOT NULL
       AND (d.endpoint_id, d.event_id) NOT IN (SELECT endpoint_id, event_id FROM in_flight)
     ORDER BY d.next_attempt_at, d.number LIMIT e.room)
    LIMIT e.room
) w
UNION ALL
SELECT NULL, NULL, NULL, NULL, NULL, NULL, version FROM transferd.webhooks_version;

-- name: endpoints_waiting
-- The endpoints that have something due, by jumping from one to the next in the index.
WITH RECURSIVE endpoints (id) AS (
    (SELECT endpoint_id FROM transferd.deliveries WHERE status IN (0, 2) ORDER BY endpoint_id LIMIT 1)
    UNION ALL
    SELECT (SELECT endpoint_id FROM transferd.deliveries d
            WHERE d.endpoint_id > endpoints.id AND d.status IN (0, 2) ORDER BY endpoint_id LIMIT 1)
    FROM endpoints WHERE id IS NOT NULL
)
SELECT id::text FROM endpoints
WHERE id IS NOT NULL
  AND coalesce(
      (SELECT true FROM transferd.deliveries
       WHERE endpoint_id = endpoints.id AND status IN (0, 2) AND next_attempt_at IS NULL LIMIT 1),
      (SELECT true FROM transferd.deliveries
       WHERE endpoint_id = endpoints.id AND status IN (0, 2) AND next_attempt_at <= now() LIMIT 1),
      false);

-- name: record_deliveries
-- The result of an attempt each; -1 is skipped, without an attempt. Only what waits can get a result: what was delivered
-- stays delivered when a slower notifier writes a failure. The log sink ($9) needs no event any more once it is delivered.
UPDATE transferd.deliveries d
SET status = r.status, attempts = d.attempts + (r.status <> -1)::integer,
    failures = d.failures + (r.error IS NOT NULL)::integer,
    response_status = r.response_status, error = r.error, response_excerpt = r.excerpt,
    dead_reason = r.dead_reason, next_attempt_at = now() + make_interval(secs => r.wait_s),
    event = CASE WHEN r.status <> 1 OR r.endpoint_id <> $9 THEN d.event END, updated_at = now()
FROM unnest($1::text[], $2::uuid[], $3::smallint[], $4::smallint[], $5::text[], $6::text[], $7::text[], $8::float8[])
    AS r (event_id, endpoint_id, status, response_status, error, excerpt, dead_reason, wait_s)
WHERE d.event_id = r.event_id AND d.endpoint_id = r.endpoint_id AND d.status IN (0, 2);

-- name: carry_deliveries
-- What the version before left: messages, which had the event and the number of attempts with them, and dead letters
-- without an endpoint. A retry whose message has come is due; else a row that is there stays as it is.
INSERT INTO transferd.deliveries AS d (
    id, number, event_id, endpoint_id, event_type, status, attempts, failures, event, dead_reason, created_at, updated_at)
SELECT id, nextval('transferd.delivery_numbers'), event_id, endpoint_id, event_type,
       CASE WHEN dead_reason IS NOT NULL THEN 3 WHEN attempts > 0 THEN 2 ELSE 0 END, attempts, attempts,
       event::json, dead_reason, now(), now()
FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::text[], $5::integer[], $6::text[], $7::text[])
    AS c (id, event_id, endpoint_id, event_type, attempts, event, dead_reason)
ON CONFLICT (event_id, endpoint_id) DO UPDATE
SET next_attempt_at = NULL, failures = excluded.failures, event = coalesce(d.event, excluded.event)
WHERE d.status = 2 AND excluded.status = 2;

-- name: waiting_deliveries
-- How many deliveries wait, up to $1, and the age of the oldest of these that is due. Read for the metrics every few
-- seconds, so a long backlog is not counted to its end.
SELECT count(*) AS deliveries,
       extract(epoch FROM clock_timestamp() - min(created_at) FILTER (
           WHERE next_attempt_at IS NULL))::float8 AS oldest_s
FROM (SELECT created_at, next_attempt_at FROM transferd.deliveries WHERE status IN (0, 2) LIMIT $1) waiting;

-- name: list_deliveries
-- The log of an endpoint, newest first.
SELECT id::text, event_id, event_type, status, attempts, response_status, error, response_excerpt,
       next_attempt_at, created_at, updated_at, event::text
FROM transferd.deliveries
WHERE endpoint_id = $1
  AND ($2::smallint IS NULL OR status = $2)
  AND ($3::uuid IS NULL OR id < $3)
ORDER BY deliveries.id DESC
LIMIT $4;

-- name: ask_again
-- Waits for an attempt once more, with as many failures as a new delivery may have.
UPDATE transferd.deliveries
SET status = 0, failures = 0, dead_reason = NULL, next_attempt_at = NULL, updated_at = now()
WHERE endpoint_id = $1 AND id = $2 AND event IS NOT NULL
RETURNING id::text, event_id, event_type, status, attempts, response_status, error,
          response_excerpt, next_attempt_at, created_at, updated_at, event::text;

-- name: endpoints_with_deliveries
-- Who has a log, by jumping from one endpoint to the next in the index.
WITH RECURSIVE endpoints (id) AS (
    (SELECT endpoint_id FROM transferd.deliveries ORDER BY endpoint_id LIMIT 1)
    UNION ALL
    SELECT (SELECT endpoint_id FROM transferd.deliveries d WHERE d.endpoint_id > endpoints.id
            ORDER BY endpoint_id LIMIT 1)
    FROM endpoints WHERE id IS NOT NULL
)
SELECT id::text FROM endpoints WHERE id IS NOT NULL;

-- name: prune_deliveries
-- The oldest of an endpoint that are behind the window, some at a time; $2 is an id (UUIDv7) of its
-- time. What waits for an attempt, or was given up, stays.
DELETE FROM transferd.deliveries
WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM transferd.deliveries
    WHERE endpoint_id = $1 AND id < $2 AND status NOT IN (0, 2)
      AND NOT (status = 3 AND dead_reason IS NOT NULL)
    ORDER BY id LIMIT $3))
RETURNING 1;

-- name: take_unaddressed_letters
-- Dead letters of the version before that name an event and no endpoint: each endpoint gets its own.
DELETE FROM transferd.dead_letters WHERE event_id IS NOT NULL AND endpoint_id IS NULL
RETURNING body, reason;

-- name: insert_dead_letters
-- Messages that are no events. One that comes again is there already.
INSERT INTO transferd.dead_letters (
    id, endpoint_id, event_id, event_type, reason, detail, attempts, body, died_at)
SELECT id, NULL, NULL, NULL, 'undeliverable', detail, 0, body, now()
FROM unnest($1::uuid[], $2::text[], $3::bytea[]) AS l (id, detail, body)
ON CONFLICT DO NOTHING;

-- name: fold_dead_letters
-- A worker of the version before keeps what it gave up as a letter beside the row. The row takes it over.
WITH letters AS (
    DELETE FROM transferd.dead_letters
    WHERE endpoint_id IS NOT NULL AND event_id IS NOT NULL
    RETURNING id, endpoint_id, event_id, event_type, reason, detail, attempts, body, died_at
)
INSERT INTO transferd.deliveries AS d (
    id, event_id, endpoint_id, event_type, status, attempts, error, event, dead_reason, created_at, updated_at)
SELECT id, event_id, endpoint_id, event_type, 3, attempts, detail, convert_from(body, 'UTF8')::json, reason,
       died_at, died_at
FROM (SELECT DISTINCT ON (event_id, endpoint_id) * FROM letters ORDER BY event_id, endpoint_id, id DESC) latest
ON CONFLICT (event_id, endpoint_id) DO UPDATE
SET dead_reason = excluded.dead_reason, event = excluded.event
WHERE d.status = 3;

-- name: list_dead_letters
-- Deliveries that were given up and messages that are no events, oldest first; a null filter admits everything.
SELECT id::text, endpoint_id::text, event_id, event_type, reason, detail, attempts, body, died_at
FROM (
    SELECT id, endpoint_id, event_id, event_type, dead_reason AS reason, coalesce(error, '') AS detail, attempts,
           convert_to(event::text, 'UTF8') AS body, updated_at AS died_at
    FROM transferd.deliveries WHERE status = 3 AND dead_reason IS NOT NULL
    UNION ALL
    SELECT id, endpoint_id, event_id, event_type, reason, detail, attempts, body, died_at
    FROM transferd.dead_letters
) letters
WHERE ($1::uuid IS NULL OR endpoint_id = $1)
  AND ($2::text IS NULL OR event_type = $2)
  AND ($3::text IS NULL OR reason = $3)
  AND ($4::timestamptz IS NULL OR died_at < $4)
  AND ($5::uuid[] IS NULL OR id = ANY ($5))
  AND ($6::uuid IS NULL OR id > $6)
ORDER BY letters.id
LIMIT $7;

-- name: count_dead_letters
-- How many pass the same filters.
SELECT count(*) AS count
FROM (
    SELECT id, endpoint_id, event_type, dead_reason AS reason, updated_at AS died_at
    FROM transferd.deliveries WHERE status = 3 AND dead_reason IS NOT NULL
    UNION ALL
    SELECT id, endpoint_id, event_type, reason, died_at FROM transferd.dead_letters
) letters
WHERE ($1::uuid IS NULL OR endpoint_id = $1)
  AND ($2::text IS NULL OR event_type = $2)
  AND ($3::text IS NULL OR reason = $3)
  AND ($4::timestamptz IS NULL OR died_at < $4)
  AND ($5::uuid[] IS NULL OR id = ANY ($5));

-- name: redrive_dead_letters
-- Deliveries that were given up wait for an attempt again, if their endpoint is still there or is the log sink.
UPDATE transferd.deliveries d
SET status = 0, failures = 0, dead_reason = NULL, next_attempt_at = NULL, updated_at = now()
WHERE id = ANY ($1::uuid[]) AND status = 3 AND dead_reason IS NOT NULL AND event IS NOT NULL
  AND (endpoint_id = $2 OR endpoint_id IN (SELECT id FROM transferd.webhooks))
RETURNING id::text, endpoint_id::text, event::text;

-- name: delete_dead_letters
-- Those of these that are still there, and how many there were.
WITH rows AS (
    DELETE FROM transferd.deliveries
    WHERE id = ANY ($1::uuid[]) AND status = 3 AND dead_reason IS NOT NULL RETURNING 1
), letters AS (
    DELETE FROM transferd.dead_letters WHERE id = ANY ($1::uuid[]) RETURNING 1
)
SELECT (SELECT count(*) FROM rows) + (SELECT count(*) FROM letters) AS count;

-- name: wallet_versions
-- Which of the watched wallets have moved; one question for all event streams of a replica.
SELECT id::text, version FROM {ledger}.wallets WHERE id = ANY ($1::uuid[]);

-- name: changes_after
-- Changes of a wallet that are not transfers, oldest first, for its event stream.
SELECT c.wallet_id::text, c.version, c.kind, c.status, c.balance_after, c.overdraft_limit,
       c.created_at, w.user_id::text, w.currency
FROM {ledger}.wallet_changes c
JOIN {ledger}.wallets w ON w.id = c.wallet_id
WHERE c.wallet_id = $1 AND c.version > $2
ORDER BY c.version
LIMIT $3;

-- name: transfers_after
-- A wallet's transfers on either side after a version, oldest first, for its event stream.
SELECT * FROM (
    (SELECT id::text, kind, source_wallet_id::text, destination_wallet_id::text, amount, currency,
            reference, metadata::text, source_version, source_balance_after, destination_version,
            destination_balance_after, reverses_transfer_id::text, created_at,
            source_version AS wallet_version
     FROM {ledger}.transfers
     WHERE source_wallet_id = $1 AND source_version > $2
     ORDER BY source_version LIMIT $3)
    UNION ALL
    (SELECT id::text, kind, source_wallet_id::text, destination_wallet_id::text, amount, currency,
            reference, metadata::text, source_version, source_balance_after, destination_version,
            destination_balance_after, reverses_transfer_id::text, created_at,
            destination_version AS wallet_version
     FROM {ledger}.transfers
     WHERE destination_wallet_id = $1 AND destination_version > $2
     ORDER BY destination_version LIMIT $3)
) transfers
ORDER BY wallet_version
LIMIT $3;
