-- The queries about tables that belong to no ledger: ledgers, API clients, their keys, and the migrations.

-- name: read_ledger
-- A ledger that an operator has named.
SELECT number, name, schema, cache_generation FROM transferd.ledgers WHERE name = $1;

-- name: read_ledgers
-- All ledgers, for processes that serve all of them.
SELECT number, name, schema, cache_generation FROM transferd.ledgers ORDER BY number;

-- name: list_ledgers
-- All ledgers, or the one with a name, for operators: with their clients, their usable keys, and about how many bytes
-- they take. PostgreSQL counts the pages when it vacuums or analyzes a table. To measure the files, it would build and
-- keep what it knows of 60 relations for each ledger.
WITH sizes AS (
    SELECT n.nspname, sum(c.relpages + coalesce(toast.relpages, 0)) * current_setting('block_size')::bigint AS bytes
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_class toast ON toast.oid = c.reltoastrelid
    WHERE c.relkind IN ('r', 'i')
    GROUP BY n.nspname
), users AS (
    SELECT ledger_number, count(DISTINCT clients.id) AS clients,
        count(api_keys.id) FILTER (WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())) AS keys
    FROM transferd.clients LEFT JOIN transferd.api_keys ON client_id = clients.id
    GROUP BY ledger_number
)
SELECT number, name, schema, cache_generation, created_at, coalesce(clients, 0) AS clients,
    coalesce(keys, 0) AS usable_keys, coalesce(bytes, 0)::bigint AS bytes_about
FROM transferd.ledgers
LEFT JOIN sizes ON nspname = schema
LEFT JOIN users ON ledger_number = number
WHERE $1::text IS NULL OR name = $1
ORDER BY number;

-- name: raise_cache_generation
-- Replicas that read the new generation use nothing that Redis has of the ledger from before.
UPDATE transferd.ledgers SET cache_generation = cache_generation + 1 WHERE name = $1
RETURNING number, name, schema, cache_generation;

-- name: read_api_key
-- An API key with its client and the client's ledger. The caller compares the secret, in constant time. An expiry
-- of infinity, which an earlier version stored for the largest possible time, counts as no expiry, because Python
-- has no such time.
SELECT client_id, secret_sha256, scopes, revoked_at,
    CASE WHEN expires_at < '10000-01-01+00' THEN greatest(expires_at, '0001-01-02+00') END AS expires_at,
    ledgers.number, ledgers.name, ledgers.schema, ledgers.cache_generation
FROM transferd.api_keys
JOIN transferd.clients ON clients.id = client_id
JOIN transferd.ledgers ON ledgers.number = ledger_number
WHERE api_keys.id = $1;

-- name: lock_clients
-- Transactions that may create a client run one after the other, so that each sees the names of all clients
-- before it. Requests to replicas do not read this table and do not wait.
LOCK TABLE transferd.clients IN SHARE ROW EXCLUSIVE MODE;

-- name: client_names
-- The clients of a ledger, oldest first. Operators create them, so there are few.
SELECT name FROM transferd.clients WHERE ledger_number = $1 ORDER BY id;

-- name: insert_client
-- Inserts a client together with its first key, under the lock of `lock_clients`.
INSERT INTO transferd.clients (ledger_number, name) VALUES ($1, $2);

-- name: insert_api_key
-- Inserts a key and returns the columns that may be shown.
INSERT INTO transferd.api_keys (id, client_id, secret_sha256, scopes, expires_at)
SELECT $3, clients.id, $4, $5, $6 FROM transferd.clients WHERE ledger_number = $1 AND name = $2
RETURNING id, $2::text AS client, scopes, created_at, expires_at, last_used_at, revoked_at;

-- name: list_api_keys
-- Keys of a ledger for operators, oldest first, without the secret and its digest.
SELECT api_keys.id, clients.name, scopes, api_keys.created_at,
    CASE WHEN expires_at < '10000-01-01+00' THEN greatest(expires_at, '0001-01-02+00') END AS expires_at,
    last_used_at, revoked_at
FROM transferd.api_keys
JOIN transferd.clients ON clients.id = client_id
WHERE ledger_number = $1 AND ($2::text IS NULL OR clients.name = $2)
ORDER BY api_keys.created_at, api_keys.id;

-- name: has_usable_api_key
-- Whether any key is neither revoked nor expired. Without one no client can call, so the replica does not
-- start.
SELECT EXISTS (
    SELECT FROM transferd.api_keys
    WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
) AS found;

-- name: revoke_api_keys
-- Revokes keys; a key that is already revoked keeps its time. Rows are locked in id order, as in
-- `record_key_uses`, so the two cannot deadlock.
WITH locked AS MATERIALIZED (
    SELECT id FROM transferd.api_keys WHERE id = ANY ($1::text[]) ORDER BY id FOR NO KEY UPDATE
)
UPDATE transferd.api_keys SET revoked_at = coalesce(revoked_at, now())
FROM locked
WHERE api_keys.id = locked.id
RETURNING api_keys.id;

-- name: record_key_uses
-- Writes the times of the last uses of keys in one statement. A time after the database's clock is replaced
-- by that clock.
WITH locked AS MATERIALIZED (
    SELECT id FROM transferd.api_keys WHERE id = ANY ($1::text[]) ORDER BY id FOR NO KEY UPDATE
)
UPDATE transferd.api_keys SET last_used_at = greatest(last_used_at, least(used.at, now()))
FROM locked
JOIN unnest($1::text[], $2::timestamptz[]) AS used (id, at) USING (id)
WHERE api_keys.id = locked.id;

-- name: applied_migrations
-- The applied migrations: a process starts only if the database has the tables of its version.
SELECT name FROM transferd.schema_migrations;

-- name: ping
-- Checks that PostgreSQL answers.
SELECT 1;
