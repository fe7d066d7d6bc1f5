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
    WHERE id = ANY ($1::uuid[])
    ORDER BY wallets.id
    FOR NO KEY UPDATE {skip_locked}
)
SELECT locked.*, NULL::integer AS client_id, NULL::text AS key, NULL::bytea AS fingerprint,
       NULL::smallint AS outcome_status, NULL::text AS transfer_id, NULL::bytea AS body,
       NULL::timestamptz AS at
FROM locked
UNION ALL
SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, stored.client_id,
       stored.key, stored.fingerprint, stored.status, stored.transfer_id::text, stored.body, NULL
FROM unnest($2::integer[], $3::text[]) AS wanted (client_id, key)
JOIN transferd.outcomes stored USING (client_id, key)
UNION ALL
SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
       NULL, NULL, NULL, clock_timestamp();

-- name: existing_wallets
-- Tells a wallet that is locked by somebody else from one that does not exist.
SELECT id::text FROM {ledger}.wallets WHERE id = ANY ($1::uuid[]);

-- name: outcomes
-- Whether keys that another replica has claimed are settled by now.
SELECT stored.client_id, stored.key, stored.fingerprint, stored.status, stored.transfer_id::text,
       stored.body
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
-- The whole result of a group in one statement: transfers, balances, outcomes, news. The counts tell
-- whether a version had moved (a lost update) or a key was won by another replica.
WITH moved AS (
    INSERT INTO {ledger}.transfers (
        id, kind, source_wallet_id, destination_wallet_id, amount, currency, reference, metadata,
        source_version, source_balance_after, destination_version, destination_balance_after,
        reverses_transfer_id, created_at)
    SELECT id, kind, source, destination, amount, currency, reference, metadata::json,
           source_version, source_after, destination_version, destination_after, reverses, $1
    FROM unnest($2::uuid[], $3::smallint[], $4::uuid[], $5::uuid[], $6::bigint[], $7::text[],
                $8::text[], $9::text[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[],
                $14::uuid[])
        AS t (id, kind, source, destination, amount, currency, reference, metadata,
              source_version, source_after, destination_version, destination_after, reverses)
), updated AS (
    UPDATE {ledger}.wallets w
    SET balance = c.balance, version = c.version, updated_at = $1
    FROM unnest($15::uuid[], $16::bigint[], $17::bigint[], $18::bigint[])
        AS c (id, version_read, version, balance)
    WHERE w.id = c.id AND w.version = c.version_read
    RETURNING 1
), kept AS (
    INSERT INTO transferd.outcomes (
        client_id, key, fingerprint, status, render_version, transfer_id, body, created_at)
    SELECT client_id, key, fingerprint, status, $19, transfer_id, body, $1
    FROM unnest($20::integer[], $21::text[], $22::bytea[], $23::smallint[], $24::uuid[],
                $25::bytea[]) AS o (client_id, key, fingerprint, status, transfer_id, body)
    ORDER BY client_id, key
    ON CONFLICT DO NOTHING
    RETURNING 1
), sent AS (
    INSERT INTO {ledger}.outbox (created_at, event_count, events)
    SELECT $1, $26, $27::json WHERE $26 > 0
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
SELECT id, user_id, currency, 0, 0, overdraft_limit, 0, false, 0, metadata::json, $1, $1
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

-- name: version_at
-- The version a wallet had at a time, by bisection: versions have no gaps and time follows version,
-- so a wallet of ten million changes needs 24 probes of an index. Null before its creation.
WITH RECURSIVE search (low, high) AS (
    SELECT 0::bigint, version FROM {ledger}.wallets WHERE id = $1 AND created_at <= $2
    UNION ALL
    SELECT CASE WHEN probe.at <= $2 THEN middle.version ELSE low END,
           CASE WHEN probe.at <= $2 THEN high ELSE middle.version - 1 END
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
-- A wallet's entries between two versions, newest first: three index scans, merged.
SELECT * FROM (
    (SELECT id::text AS transfer_id, kind, -amount AS amount, source_balance_after AS balance_after,
            source_version AS version, destination_wallet_id::text AS counterparty_wallet_id,
            created_at, metadata::text
     FROM {ledger}.transfers
     WHERE source_wallet_id = $1 AND source_version > $2 AND source_version <= $3
     ORDER BY source_version DESC LIMIT $4)
    UNION ALL
    (SELECT id::text, kind, amount, destination_balance_after, destination_version,
            source_wallet_id::text, created_at, metadata::text
     FROM {ledger}.transfers
     WHERE destination_wallet_id = $1 AND destination_version > $2 AND destination_version <= $3
     ORDER BY destination_version DESC LIMIT $4)
    UNION ALL
    (SELECT NULL, kind + 100, 0, balance_after, version, NULL, created_at, NULL
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
-- Whose key this is; the secret is compared outside, in constant time.
SELECT client_id, secret_sha256, scopes, expires_at, revoked_at
FROM transferd.api_keys
WHERE id = $1;

-- name: ping
-- Whether PostgreSQL answers.
SELECT 1;
