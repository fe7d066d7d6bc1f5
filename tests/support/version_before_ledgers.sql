-- The statements of commit c104985 about the tables that moved into the schema of their ledger, for ledger_00.

-- name: lock_and_look_up
WITH locked AS MATERIALIZED (
    SELECT id::text, user_id::text, currency, balance, held, overdraft_limit, status, funding,
           version, metadata::text, created_at, updated_at, hold_expires_at, open_holds
    FROM ledger_00.wallets
    WHERE id = ANY ($1::uuid[])
    ORDER BY wallets.id
    FOR NO KEY UPDATE
), holds AS MATERIALIZED (
    SELECT id::text, source_wallet_id::text, currency, amount, captured, released, status,
           metadata::text, created_at, updated_at, expires_at, destination_wallet_id::text,
           final_transfer_id::text, reference
    FROM ledger_00.holds
    WHERE id = ANY ($2::uuid[]) AND source_wallet_id = ANY (ARRAY(SELECT id::uuid FROM locked))
    FOR NO KEY UPDATE
)
SELECT locked.*, NULL::text AS destination_wallet_id, NULL::text AS final_transfer_id,
       NULL::text AS reference, NULL::integer AS client_id, NULL::text AS key,
       NULL::bytea AS fingerprint, NULL::smallint AS outcome_status,
       NULL::smallint AS render_version, NULL::text AS transfer_id, NULL::bytea AS body,
       NULL::timestamptz AS at
FROM locked
UNION ALL
SELECT id, source_wallet_id, currency, amount, captured, released, status, NULL, NULL, metadata,
       created_at, updated_at, expires_at, NULL, destination_wallet_id, final_transfer_id,
       reference, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
FROM holds
UNION ALL
SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
       NULL, NULL, stored.client_id, stored.key, stored.fingerprint, stored.status,
       stored.render_version, stored.transfer_id::text, stored.body, NULL
FROM unnest($3::text::integer[], $4::text[]) AS wanted (client_id, key)
JOIN transferd.outcomes stored USING (client_id, key)
UNION ALL
SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
       NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, clock_timestamp();

-- name: lock_and_look_up_skipping
WITH locked AS MATERIALIZED (
    SELECT id::text, user_id::text, currency, balance, held, overdraft_limit, status, funding,
           version, metadata::text, created_at, updated_at, hold_expires_at, open_holds
    FROM ledger_00.wallets
    WHERE id = ANY ($1::uuid[])
    ORDER BY wallets.id
    FOR NO KEY UPDATE SKIP LOCKED
), holds AS MATERIALIZED (
    SELECT id::text, source_wallet_id::text, currency, amount, captured, released, status,
           metadata::text, created_at, updated_at, expires_at, destination_wallet_id::text,
           final_transfer_id::text, reference
    FROM ledger_00.holds
    WHERE id = ANY ($2::uuid[]) AND source_wallet_id = ANY (ARRAY(SELECT id::uuid FROM locked))
    FOR NO KEY UPDATE SKIP LOCKED
)
SELECT locked.*, NULL::text AS destination_wallet_id, NULL::text AS final_transfer_id,
       NULL::text AS reference, NULL::integer AS client_id, NULL::text AS key,
       NULL::bytea AS fingerprint, NULL::smallint AS outcome_status,
       NULL::smallint AS render_version, NULL::text AS transfer_id, NULL::bytea AS body,
       NULL::timestamptz AS at
FROM locked
UNION ALL
SELECT id, source_wallet_id, currency, amount, captured, released, status, NULL, NULL, metadata,
       created_at, updated_at, expires_at, NULL, destination_wallet_id, final_transfer_id,
       reference, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
FROM holds
UNION ALL
SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
       NULL, NULL, stored.client_id, stored.key, stored.fingerprint, stored.status,
       stored.render_version, stored.transfer_id::text, stored.body, NULL
FROM unnest($3::text::integer[], $4::text[]) AS wanted (client_id, key)
JOIN transferd.outcomes stored USING (client_id, key)
UNION ALL
SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
       NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, clock_timestamp();

-- name: outcomes
SELECT stored.client_id, stored.key, stored.fingerprint, stored.status AS outcome_status,
       stored.render_version, stored.transfer_id::text, stored.body
FROM unnest($1::integer[], $2::text[]) AS wanted (client_id, key)
JOIN transferd.outcomes stored USING (client_id, key);

-- name: existing_users
SELECT id::text, created_at FROM transferd.users WHERE id = ANY ($1::uuid[]);

-- name: write_group
WITH moved AS (
    INSERT INTO ledger_00.transfers (
        id, kind, source_wallet_id, destination_wallet_id, amount, currency, reference, metadata,
        source_version, source_balance_after, destination_version, destination_balance_after,
        reverses_transfer_id, hold_id, created_at)
    SELECT id, kind, source, destination, amount, currency, reference, metadata::json,
           source_version, source_after, destination_version, destination_after, reverses, hold, $1
    FROM unnest(
        $2::text::uuid[], $3::text::smallint[],
        $4::text::uuid[], $5::text::uuid[],
        $6::text::bigint[], $7::text::text[], $8::text[],
        $9::text[], $10::text::bigint[],
        $11::text::bigint[], $12::text::bigint[],
        $13::text::bigint[], $14::text::uuid[],
        $15::text::uuid[])
        AS t (id, kind, source, destination, amount, currency, reference, metadata, source_version,
              source_after, destination_version, destination_after, reverses, hold)
), kept AS (
    INSERT INTO transferd.outcomes (
        client_id, key, fingerprint, status, render_version, transfer_id, body, created_at)
    SELECT client_id, key, fingerprint, status, render_version, transfer_id, body, $1
    FROM unnest($16::text::integer[], $17::text[],
                $18::bytea[], $19::text::smallint[],
                $20::text::smallint[], $21::text::uuid[],
                $22::bytea[])
        AS o (client_id, key, fingerprint, status, render_version, transfer_id, body)
    ORDER BY client_id, key
    ON CONFLICT DO NOTHING
    RETURNING 1
), sent AS (
    INSERT INTO ledger_00.outbox (created_at, event_count, events)
    SELECT $1, event_count, events::json
    FROM unnest($23::text::integer[], $24::text[]) WITH ORDINALITY
        AS n (event_count, events, position)
    ORDER BY position
), updated AS (
    UPDATE ledger_00.wallets w
    SET balance = c.balance, version = c.version, updated_at = $1
    FROM unnest($25::text::uuid[], $26::text::bigint[],
                $27::text::bigint[], $28::text::bigint[])
        AS c (id, version_read, version, balance)
    WHERE w.id = c.id AND w.version = c.version_read
    RETURNING 1
)
SELECT (SELECT count(*) FROM updated) AS wallets, (SELECT count(*) FROM kept) AS outcomes,
       0 AS holds;

-- name: write_group_and_changes
WITH moved AS (
    INSERT INTO ledger_00.transfers (
        id, kind, source_wallet_id, destination_wallet_id, amount, currency, reference, metadata,
        source_version, source_balance_after, destination_version, destination_balance_after,
        reverses_transfer_id, hold_id, created_at)
    SELECT id, kind, source, destination, amount, currency, reference, metadata::json,
           source_version, source_after, destination_version, destination_after, reverses, hold, $1
    FROM unnest(
        $2::text::uuid[], $3::text::smallint[],
        $4::text::uuid[], $5::text::uuid[],
        $6::text::bigint[], $7::text::text[], $8::text[],
        $9::text[], $10::text::bigint[],
        $11::text::bigint[], $12::text::bigint[],
        $13::text::bigint[], $14::text::uuid[],
        $15::text::uuid[])
        AS t (id, kind, source, destination, amount, currency, reference, metadata, source_version,
              source_after, destination_version, destination_after, reverses, hold)
), kept AS (
    INSERT INTO transferd.outcomes (
        client_id, key, fingerprint, status, render_version, transfer_id, body, created_at)
    SELECT client_id, key, fingerprint, status, render_version, transfer_id, body, $1
    FROM unnest($16::text::integer[], $17::text[],
                $18::bytea[], $19::text::smallint[],
                $20::text::smallint[], $21::text::uuid[],
                $22::bytea[])
        AS o (client_id, key, fingerprint, status, render_version, transfer_id, body)
    ORDER BY client_id, key
    ON CONFLICT DO NOTHING
    RETURNING 1
), sent AS (
    INSERT INTO ledger_00.outbox (created_at, event_count, events)
    SELECT $1, event_count, events::json
    FROM unnest($23::text::integer[], $24::text[]) WITH ORDINALITY
        AS n (event_count, events, position)
    ORDER BY position
), updated AS (
    UPDATE ledger_00.wallets w
    SET balance = c.balance, version = c.version, status = c.status, held = c.held,
        overdraft_limit = c.overdraft_limit, metadata = coalesce(c.metadata::json, w.metadata),
        hold_expires_at = c.hold_expires_at, open_holds = c.open_holds,
        updated_at = CASE WHEN c.version = c.version_read THEN w.updated_at ELSE $1 END
    FROM unnest($25::text::uuid[], $26::text::bigint[],
                $27::text::bigint[], $28::text::bigint[],
                $29::text::smallint[], $30::text::bigint[],
                $31::text::bigint[], $32::text[],
                $33::text::timestamptz[], $34::text::integer[])
        AS c (id, version_read, version, balance, status, held, overdraft_limit, metadata,
              hold_expires_at, open_holds)
    WHERE w.id = c.id AND w.version = c.version_read
    RETURNING 1
), changes AS MATERIALIZED (
    SELECT *
    FROM unnest($35::text::uuid[], $36::text::bigint[],
                $37::text::smallint[], $38::text::smallint[],
                $39::text::bigint[], $40::text::bigint[],
                $41::text::bigint[], $42::text::uuid[],
                $43::text::boolean[], $44::text::smallint[],
                $45::text::bigint[], $46::text::bigint[],
                $47::text::bigint[],
                $48::text::timestamptz[],
                $49::text::uuid[])
        AS c (wallet_id, version, kind, status, balance, overdraft_limit, held, hold_id, is_last,
              hold_status, hold_amount, hold_captured, hold_released, hold_expires_at,
              hold_final_transfer)
), recorded AS (
    INSERT INTO ledger_00.wallet_changes (
        wallet_id, version, kind, status, balance_after, overdraft_limit, held_after, created_at,
        hold_id, hold_status, hold_amount, hold_captured, hold_released, hold_expires_at)
    SELECT wallet_id, version, kind, status, balance, overdraft_limit, held, $1, hold_id,
           hold_status, hold_amount, hold_captured, hold_released, hold_expires_at
    FROM changes
), created AS (
    INSERT INTO ledger_00.holds (
        id, source_wallet_id, destination_wallet_id, currency, amount, captured, released, status,
        expires_at, final_transfer_id, reference, metadata, created_at, updated_at)
    SELECT h.id, c.wallet_id, h.destination, h.currency, c.hold_amount, c.hold_captured,
           c.hold_released, c.hold_status, c.hold_expires_at, c.hold_final_transfer, h.reference,
           h.metadata::json, $1, $1
    FROM unnest($50::text::uuid[], $51::text::uuid[],
                $52::text::text[], $53::text[],
                $54::text[])
        AS h (id, destination, currency, reference, metadata)
    JOIN changes c ON c.hold_id = h.id AND c.is_last
), changed AS (
    UPDATE ledger_00.holds h
    SET amount = c.hold_amount, captured = c.hold_captured, released = c.hold_released,
        status = c.hold_status, expires_at = c.hold_expires_at,
        final_transfer_id = c.hold_final_transfer,
        updated_at = CASE WHEN c.hold_status = 3 THEN c.hold_expires_at ELSE $1 END
    FROM changes c
    WHERE h.id = c.hold_id AND c.is_last AND h.status + 0 = 0
    RETURNING 1
)
SELECT (SELECT count(*) FROM updated) AS wallets, (SELECT count(*) FROM kept) AS outcomes,
       (SELECT count(*) FROM changed) AS holds;

-- name: insert_users
INSERT INTO transferd.users (id, name, metadata, created_at)
SELECT id, name, metadata::json, $1
FROM unnest($2::uuid[], $3::text[], $4::text[]) AS u (id, name, metadata)
ON CONFLICT DO NOTHING
RETURNING 1;

-- name: read_user
SELECT id::text, name, metadata::text, created_at FROM transferd.users WHERE id = $1;

-- name: list_users
SELECT id::text, name, metadata::text, created_at
FROM transferd.users
WHERE ($1::uuid IS NULL OR id < $1)
ORDER BY users.id DESC
LIMIT $2;

-- name: update_user
UPDATE transferd.users
SET name = CASE WHEN $2 THEN $3 ELSE name END,
    metadata = CASE WHEN $4 THEN $5::json ELSE metadata END
WHERE id = $1
RETURNING id::text, name, metadata::text, created_at;

-- name: insert_outcome
INSERT INTO transferd.outcomes (
    client_id, key, fingerprint, status, render_version, transfer_id, body, created_at)
VALUES ($1, $2, $3, $4, $5, NULL, $6, now())
ON CONFLICT DO NOTHING
RETURNING 1;

-- name: take_lease
SELECT ledger FROM transferd.relay_leases WHERE ledger = $1 FOR UPDATE SKIP LOCKED;

-- name: read_outbox
SELECT seq, created_at, events::text, (SELECT version FROM transferd.webhooks_version) AS webhooks_version
FROM (
    SELECT seq, created_at, events, sum(event_count) OVER (ORDER BY seq) - event_count AS before
    FROM (
        SELECT seq, created_at, event_count, events FROM ledger_00.outbox
        ORDER BY seq LIMIT $1
    ) oldest
) counted
WHERE before < $1
ORDER BY seq;

-- name: insert_webhook
INSERT INTO transferd.webhooks (
    id, client_id, url, events, wallet_id, secret, status, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, 0, now(), now())
RETURNING id::text, url, events, wallet_id::text, status, disabled_reason, secret, previous_secret,
          previous_secret_until, old_secrets, old_secrets_until, created_at, updated_at;

-- name: read_webhooks
SELECT id::text, url, events, wallet_id::text, status, disabled_reason, secret, previous_secret,
       previous_secret_until, old_secrets, old_secrets_until, created_at, updated_at
FROM transferd.webhooks
WHERE $1::uuid IS NULL OR id = $1;

-- name: list_webhooks
SELECT id::text, url, events, wallet_id::text, status, disabled_reason, secret, previous_secret,
       previous_secret_until, old_secrets, old_secrets_until, created_at, updated_at
FROM transferd.webhooks
WHERE $1::uuid IS NULL OR id < $1
ORDER BY webhooks.id DESC
LIMIT $2;

-- name: update_webhook
UPDATE transferd.webhooks
SET url = coalesce($2, url), events = coalesce($3, events), status = coalesce($4, status),
    disabled_reason = CASE $4::smallint WHEN 0 THEN NULL WHEN 1 THEN $5::text
                      ELSE disabled_reason END,
    updated_at = now()
WHERE id = $1
RETURNING id::text, url, events, wallet_id::text, status, disabled_reason, secret, previous_secret,
          previous_secret_until, old_secrets, old_secrets_until, created_at, updated_at;

-- name: lock_webhook
SELECT id::text, url, events, wallet_id::text, status, disabled_reason, secret, previous_secret,
       previous_secret_until, old_secrets, old_secrets_until, created_at, updated_at, now() AS now
FROM transferd.webhooks
WHERE id = $1
FOR NO KEY UPDATE;

-- name: rotate_webhook
UPDATE transferd.webhooks
SET previous_secret = secret, previous_secret_until = now() + make_interval(secs => $3),
    old_secrets = array_prepend(secret, $4::text[]),
    old_secrets_until = array_prepend(now() + make_interval(secs => $3), $5::timestamptz[]),
    secret = $2, updated_at = now()
WHERE id = $1
RETURNING id::text, url, events, wallet_id::text, status, disabled_reason, secret, previous_secret,
          previous_secret_until, old_secrets, old_secrets_until, created_at, updated_at;

-- name: delete_webhook
WITH log AS (
    DELETE FROM transferd.deliveries
    WHERE endpoint_id = $1 AND NOT (status = 3 AND dead_reason IS NOT NULL)
)
DELETE FROM transferd.webhooks WHERE id = $1 RETURNING 1;

-- name: count_webhook_change
UPDATE transferd.webhooks_version SET version = version + 1;

-- name: webhooks_version
SELECT version FROM transferd.webhooks_version;

-- name: insert_deliveries
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
SELECT count(*) AS deliveries,
       extract(epoch FROM clock_timestamp() - min(created_at) FILTER (
           WHERE next_attempt_at IS NULL))::float8 AS oldest_s
FROM (SELECT created_at, next_attempt_at FROM transferd.deliveries WHERE status IN (0, 2) LIMIT $1) waiting;

-- name: list_deliveries
SELECT id::text, event_id, event_type, status, attempts, response_status, error, response_excerpt,
       next_attempt_at, created_at, updated_at, event::text
FROM transferd.deliveries
WHERE endpoint_id = $1
  AND ($2::smallint IS NULL OR status = $2)
  AND ($3::uuid IS NULL OR id < $3)
ORDER BY deliveries.id DESC
LIMIT $4;

-- name: ask_again
UPDATE transferd.deliveries
SET status = 0, failures = 0, dead_reason = NULL, next_attempt_at = NULL, updated_at = now()
WHERE endpoint_id = $1 AND id = $2 AND event IS NOT NULL
RETURNING id::text, event_id, event_type, status, attempts, response_status, error,
          response_excerpt, next_attempt_at, created_at, updated_at, event::text;

-- name: endpoints_with_deliveries
WITH RECURSIVE endpoints (id) AS (
    (SELECT endpoint_id FROM transferd.deliveries ORDER BY endpoint_id LIMIT 1)
    UNION ALL
    SELECT (SELECT endpoint_id FROM transferd.deliveries d WHERE d.endpoint_id > endpoints.id
            ORDER BY endpoint_id LIMIT 1)
    FROM endpoints WHERE id IS NOT NULL
)
SELECT id::text FROM endpoints WHERE id IS NOT NULL;

-- name: prune_deliveries
DELETE FROM transferd.deliveries
WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM transferd.deliveries
    WHERE endpoint_id = $1 AND id < $2 AND status NOT IN (0, 2)
      AND NOT (status = 3 AND dead_reason IS NOT NULL)
    ORDER BY id LIMIT $3))
RETURNING 1;

-- name: take_unaddressed_letters
DELETE FROM transferd.dead_letters WHERE event_id IS NOT NULL AND endpoint_id IS NULL
RETURNING body, reason;

-- name: insert_dead_letters
INSERT INTO transferd.dead_letters (
    id, endpoint_id, event_id, event_type, reason, detail, attempts, body, died_at)
SELECT id, NULL, NULL, NULL, 'undeliverable', detail, 0, body, now()
FROM unnest($1::uuid[], $2::text[], $3::bytea[]) AS l (id, detail, body)
ON CONFLICT DO NOTHING;

-- name: fold_dead_letters
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
UPDATE transferd.deliveries d
SET status = 0, failures = 0, dead_reason = NULL, next_attempt_at = NULL, updated_at = now()
WHERE id = ANY ($1::uuid[]) AND status = 3 AND dead_reason IS NOT NULL AND event IS NOT NULL
  AND (endpoint_id = $2 OR endpoint_id IN (SELECT id FROM transferd.webhooks))
RETURNING id::text, endpoint_id::text, event::text;

-- name: delete_dead_letters
WITH rows AS (
    DELETE FROM transferd.deliveries
    WHERE id = ANY ($1::uuid[]) AND status = 3 AND dead_reason IS NOT NULL RETURNING 1
), letters AS (
    DELETE FROM transferd.dead_letters WHERE id = ANY ($1::uuid[]) RETURNING 1
)
SELECT (SELECT count(*) FROM rows) + (SELECT count(*) FROM letters) AS count;
