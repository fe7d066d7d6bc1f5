-- The queries about the tables of a ledger. {ledger} is its schema.

-- name: lock_and_look_up
-- The first statement of a group. It locks the rows of the wallets in id order, so two groups cannot
-- deadlock, and then the rows of the holds: a hold that has changed while the statement waited for its wallet
-- would otherwise be as it was before. With the locks held it reads the outcomes that the keys already have,
-- and the clock; so the time of a wallet never goes back. The outcomes are as of the start of the statement:
-- if it had to wait for a COMMIT, an outcome of that transaction is missing, and `write_group` reports the
-- conflict. PostgreSQL runs the branches in this order. A hold comes in the columns of a wallet, by their
-- types. {skip_locked} is empty, or SKIP LOCKED after a lock timeout, so that only commands of locked wallets
-- wait. A hold is locked only if its wallet is, so none is skipped whose wallet is not. The ids are arrays, not
-- literals: after a wait PostgreSQL evaluates the condition again for each row, and would parse the literal
-- each time.
WITH locked AS MATERIALIZED (
    SELECT id::text, user_id::text, currency, balance, held, overdraft_limit, status, funding,
           version, metadata::text, created_at, updated_at, hold_expires_at, open_holds
    FROM {ledger}.wallets
    WHERE id = ANY ($1::uuid[])
    ORDER BY wallets.id
    FOR NO KEY UPDATE {skip_locked}
), holds AS MATERIALIZED (
    SELECT id::text, source_wallet_id::text, currency, amount, captured, released, status,
           metadata::text, created_at, updated_at, expires_at, destination_wallet_id::text,
           final_transfer_id::text, reference
    FROM {ledger}.holds
    WHERE id = ANY ($2::uuid[]) AND source_wallet_id = ANY (ARRAY(SELECT id::uuid FROM locked))
    FOR NO KEY UPDATE {skip_locked}
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
JOIN {ledger}.outcomes stored USING (client_id, key)
UNION ALL
SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
       NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, clock_timestamp();

-- name: existing_wallets
-- Distinguishes a wallet that another transaction has locked from a wallet that does not exist.
SELECT id::text FROM {ledger}.wallets WHERE id = ANY ($1::uuid[]);

-- name: outcomes
-- The outcomes of keys that another replica has claimed.
SELECT stored.client_id, stored.key, stored.fingerprint, stored.status AS outcome_status,
       stored.render_version, stored.transfer_id::text, stored.body
FROM unnest($1::integer[], $2::text[]) AS wanted (client_id, key)
JOIN {ledger}.outcomes stored USING (client_id, key);

-- name: reversed_sums
-- The amount of each transfer that was already reversed, read under the lock of the wallet that pays it back.
SELECT reverses_transfer_id::text AS id, sum(amount)::bigint AS amount
FROM {ledger}.transfers
WHERE reverses_transfer_id = ANY ($1::uuid[])
GROUP BY reverses_transfer_id;

-- name: existing_users
-- The users of new wallets. Users are never deleted, so they need no lock.
SELECT id::text, created_at FROM {ledger}.users WHERE id = ANY ($1::uuid[]);

-- name: group_rows
-- The rows that every group writes: transfers, outcomes and events. Ids, numbers and currencies are array
-- literals, because PostgreSQL parses a text faster than the driver encodes an array item by item. `write_group`
-- and `write_group_and_changes` begin with this one. The parameters are the fields of `GroupParameters`.
WITH moved AS (
    INSERT INTO {ledger}.transfers (
        id, kind, source_wallet_id, destination_wallet_id, amount, currency, reference, metadata,
        source_version, source_balance_after, destination_version, destination_balance_after,
        reverses_transfer_id, hold_id, created_at)
    SELECT id, kind, source, destination, amount, currency, reference, metadata::json,
           source_version, source_after, destination_version, destination_after, reverses, hold, $at
    FROM unnest(
        $transfer_ids::text::uuid[], $transfer_kinds::text::smallint[],
        $source_wallet_ids::text::uuid[], $destination_wallet_ids::text::uuid[],
        $amounts::text::bigint[], $currencies::text::text[], $references::text[],
        $metadata::text[], $source_versions::text::bigint[],
        $source_balances_after::text::bigint[], $destination_versions::text::bigint[],
        $destination_balances_after::text::bigint[], $reversed_transfer_ids::text::uuid[],
        $captured_hold_ids::text::uuid[])
        AS t (id, kind, source, destination, amount, currency, reference, metadata, source_version,
              source_after, destination_version, destination_after, reverses, hold)
), kept AS (
    INSERT INTO {ledger}.outcomes (
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

-- name: write_group
-- Writes the result of a group that only moves money, in one statement. A count below the expected one means
-- that the version of a wallet has changed (a lost update), or that another replica has stored an outcome for
-- a key.
{group_rows}, updated AS (
    UPDATE {ledger}.wallets w
    SET balance = c.balance, version = c.version, updated_at = $at
    FROM unnest($wallet_ids::text::uuid[], $wallet_versions_read::text::bigint[],
                $wallet_versions::text::bigint[], $wallet_balances::text::bigint[])
        AS c (id, version_read, version, balance)
    WHERE w.id = c.id AND w.version = c.version_read
    RETURNING 1
)
SELECT (SELECT count(*) FROM updated) AS wallets, (SELECT count(*) FROM kept) AS outcomes,
       0 AS holds;

-- name: write_group_and_changes
-- Writes the result of any group, in one statement: also wallets that were frozen, closed or changed, or whose
-- holds have changed, the rows of their history, and holds. The counts are compared as in `write_group`. A
-- wallet of which only `hold_expires_at` changes keeps its version and its time. The last change of a hold is
-- written to the hold, which is inserted if it is new. Without the `+ 0` PostgreSQL could plan, while the table
-- is small, to find each hold by a walk through the index of the active ones. The further parameters are the
-- fields of `ChangeParameters`.
{group_rows}, updated AS (
    UPDATE {ledger}.wallets w
    SET balance = c.balance, version = c.version, status = c.status, held = c.held,
        overdraft_limit = c.overdraft_limit, metadata = coalesce(c.metadata::json, w.metadata),
        hold_expires_at = c.hold_expires_at, open_holds = c.open_holds,
        updated_at = CASE WHEN c.version = c.version_read THEN w.updated_at ELSE $at END
    FROM unnest($wallet_ids::text::uuid[], $wallet_versions_read::text::bigint[],
                $wallet_versions::text::bigint[], $wallet_balances::text::bigint[],
                $wallet_statuses::text::smallint[], $wallet_held::text::bigint[],
                $wallet_overdraft_limits::text::bigint[], $wallet_metadata::text[],
                $wallet_hold_expires_at::text::timestamptz[], $wallet_open_holds::text::integer[])
        AS c (id, version_read, version, balance, status, held, overdraft_limit, metadata,
              hold_expires_at, open_holds)
    WHERE w.id = c.id AND w.version = c.version_read
    RETURNING 1
), changes AS MATERIALIZED (
    SELECT *
    FROM unnest($change_wallet_ids::text::uuid[], $change_versions::text::bigint[],
                $change_kinds::text::smallint[], $change_statuses::text::smallint[],
                $change_balances::text::bigint[], $change_overdraft_limits::text::bigint[],
                $change_held::text::bigint[], $change_hold_ids::text::uuid[],
                $change_hold_is_last::text::boolean[], $change_hold_statuses::text::smallint[],
                $change_hold_amounts::text::bigint[], $change_hold_captured::text::bigint[],
                $change_hold_released::text::bigint[],
                $change_hold_expires_at::text::timestamptz[],
                $change_hold_final_transfers::text::uuid[])
        AS c (wallet_id, version, kind, status, balance, overdraft_limit, held, hold_id, is_last,
              hold_status, hold_amount, hold_captured, hold_released, hold_expires_at,
              hold_final_transfer)
), recorded AS (
    INSERT INTO {ledger}.wallet_changes (
        wallet_id, version, kind, status, balance_after, overdraft_limit, held_after, created_at,
        hold_id, hold_status, hold_amount, hold_captured, hold_released, hold_expires_at)
    SELECT wallet_id, version, kind, status, balance, overdraft_limit, held, $at, hold_id,
           hold_status, hold_amount, hold_captured, hold_released, hold_expires_at
    FROM changes
), created AS (
    INSERT INTO {ledger}.holds (
        id, source_wallet_id, destination_wallet_id, currency, amount, captured, released, status,
        expires_at, final_transfer_id, reference, metadata, created_at, updated_at)
    SELECT h.id, c.wallet_id, h.destination, h.currency, c.hold_amount, c.hold_captured,
           c.hold_released, c.hold_status, c.hold_expires_at, c.hold_final_transfer, h.reference,
           h.metadata::json, $at, $at
    FROM unnest($new_hold_ids::text::uuid[], $new_hold_destinations::text::uuid[],
                $new_hold_currencies::text::text[], $new_hold_references::text[],
                $new_hold_metadata::text[])
        AS h (id, destination, currency, reference, metadata)
    JOIN changes c ON c.hold_id = h.id AND c.is_last
), changed AS (
    UPDATE {ledger}.holds h
    SET amount = c.hold_amount, captured = c.hold_captured, released = c.hold_released,
        status = c.hold_status, expires_at = c.hold_expires_at,
        final_transfer_id = c.hold_final_transfer,
        updated_at = CASE WHEN c.hold_status = {hold_expired} THEN c.hold_expires_at ELSE $at END
    FROM changes c
    WHERE h.id = c.hold_id AND c.is_last AND h.status + 0 = {hold_active}
    RETURNING 1
)
SELECT (SELECT count(*) FROM updated) AS wallets, (SELECT count(*) FROM kept) AS outcomes,
       (SELECT count(*) FROM changed) AS holds;

-- name: insert_users
-- Inserts the new users of a group. A missing row means that an earlier attempt of the group was committed.
INSERT INTO {ledger}.users (id, name, metadata, created_at)
SELECT id, name, metadata::json, $1
FROM unnest($2::uuid[], $3::text[], $4::text[]) AS u (id, name, metadata)
ON CONFLICT DO NOTHING
RETURNING 1;

-- name: insert_wallets
-- Inserts the new wallets of a group at version 0; `write_group` then moves their initial balance. A missing
-- row means that an earlier attempt of the group was committed.
INSERT INTO {ledger}.wallets (
    id, user_id, currency, balance, held, overdraft_limit, status, funding, version, metadata,
    created_at, updated_at)
SELECT id, user_id, currency, 0, 0, overdraft_limit, {status_active}, false, 0, metadata::json, $1,
       $1
FROM unnest($2::uuid[], $3::uuid[], $4::text[], $5::bigint[], $6::text[])
    AS w (id, user_id, currency, overdraft_limit, metadata)
ON CONFLICT DO NOTHING
RETURNING 1;

-- name: due_holds
-- The active holds of locked wallets whose time has come, by wallet, in the order in which they expire.
SELECT id::text, source_wallet_id::text, destination_wallet_id::text, currency, amount, captured,
       released, status, expires_at, final_transfer_id::text, reference, metadata::text, created_at,
       updated_at
FROM {ledger}.holds
WHERE source_wallet_id = ANY ($1::uuid[]) AND status = {hold_active} AND expires_at <= $2
ORDER BY holds.source_wallet_id, expires_at, holds.id
LIMIT $3;

-- name: next_expiries
-- The earliest expiry of each of these wallets after a time; wallets without one are missing.
SELECT source_wallet_id::text AS wallet_id, min(expires_at) AS expires_at
FROM {ledger}.holds
WHERE source_wallet_id = ANY ($1::uuid[]) AND status = {hold_active} AND expires_at > $2
GROUP BY source_wallet_id;

-- name: has_due_holds
-- Whether a hold is due: a cheap query for a sweep that mostly finds nothing. It looks at the first expiry only.
-- Most holds that have ended are past their expiry, so PostgreSQL expects many due holds, and would look for one of
-- them in the whole table.
SELECT EXISTS (
    SELECT 1 FROM (
        SELECT expires_at FROM {ledger}.holds WHERE status = {hold_active}
        ORDER BY expires_at LIMIT 1
    ) first
    WHERE expires_at <= statement_timestamp()
);

-- name: due_wallets
-- Wallets with holds that are due, those with the oldest first, and the number of their due holds. Only the
-- $1 oldest holds are asked for their wallets, so the query is cheap however many are due. $2 are wallets to
-- leave out.
SELECT wallet_id::text, holds
FROM (
    SELECT source_wallet_id AS wallet_id, min(expires_at) AS oldest
    FROM (
        SELECT source_wallet_id, expires_at FROM {ledger}.holds
        WHERE status = {hold_active} AND expires_at <= statement_timestamp()
          AND source_wallet_id <> ALL ($2::uuid[])
        ORDER BY expires_at LIMIT $1
    ) first
    GROUP BY source_wallet_id
) found
CROSS JOIN LATERAL (
    SELECT count(*) AS holds FROM {ledger}.holds
    WHERE source_wallet_id = wallet_id AND status = {hold_active}
      AND expires_at <= statement_timestamp()
) due
ORDER BY oldest;

-- name: holds_now
-- The columns of holds `h` as they are now: one that `is_due` is expired, also if that is not written yet. Other
-- queries begin with this one.
SELECT h.id::text, source_wallet_id::text, destination_wallet_id::text, currency, amount, captured,
       CASE WHEN is_due THEN amount - captured ELSE released END AS released,
       CASE WHEN is_due THEN {hold_expired} ELSE status END AS status, expires_at,
       final_transfer_id::text, reference, metadata::text, created_at,
       CASE WHEN is_due THEN expires_at ELSE updated_at END AS updated_at;

-- name: holds_now_by_id
-- Holds for reads and dry runs, without a lock.
{holds_now}
FROM {ledger}.holds h
CROSS JOIN LATERAL (
    SELECT status = {hold_active} AND expires_at <= statement_timestamp() AS is_due
) expiry
WHERE h.id = ANY ($1::uuid[]);

-- name: list_holds
-- A page of holds, newest first by id. A filter that is null does not filter; the status is the one of now. Only $5
-- holds are looked at, because few of a million may match. The last one of them `is_end` and is in the result also if
-- it does not match. The conditions with `coalesce` can use an index for any value, also for null.
{holds_now}, matches, place = $5 AS is_end
FROM (
    SELECT *, row_number() OVER (ORDER BY id DESC) AS place FROM {ledger}.holds
    WHERE id < coalesce($3, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
    ORDER BY id DESC
    LIMIT $5
) h
CROSS JOIN LATERAL (
    SELECT status = {hold_active} AND expires_at <= statement_timestamp() AS is_due
) expiry
CROSS JOIN LATERAL (
    SELECT ($1::smallint IS NULL OR CASE WHEN is_due THEN {hold_expired} ELSE status END = $1)
       AND ($2::timestamptz IS NULL OR expires_at < $2) AS matches
) filters
WHERE matches OR place = $5
ORDER BY h.id DESC
LIMIT $4;

-- name: list_holds_of_wallet
-- The same for one wallet. The two conditions on its id are an equality for which PostgreSQL must use the index of the
-- wallet: in the index of the ids it could first read all newer holds of other wallets.
{holds_now}, matches, place = $6 AS is_end
FROM (
    SELECT *, row_number() OVER (ORDER BY source_wallet_id DESC, id DESC) AS place FROM {ledger}.holds
    WHERE source_wallet_id >= $1
      AND (source_wallet_id, id) < ($1, coalesce($4, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid))
    ORDER BY source_wallet_id DESC, id DESC
    LIMIT $6
) h
CROSS JOIN LATERAL (
    SELECT status = {hold_active} AND expires_at <= statement_timestamp() AS is_due
) expiry
CROSS JOIN LATERAL (
    SELECT ($2::smallint IS NULL OR CASE WHEN is_due THEN {hold_expired} ELSE status END = $2)
       AND ($3::timestamptz IS NULL OR expires_at < $3) AS matches
) filters
WHERE matches OR place = $6
ORDER BY h.source_wallet_id DESC, h.id DESC
LIMIT $5;

-- name: list_active_holds
-- As `list_holds`, for the holds of all wallets that are active now. All of them are read and then sorted, so there
-- are no holds if there are more than $4. There is always a row with their number; without a hold it has no id.
WITH active AS MATERIALIZED (
    SELECT * FROM {ledger}.holds
    WHERE status = {hold_active} AND expires_at > statement_timestamp()
      AND expires_at < coalesce($1, 'infinity'::timestamptz)
    LIMIT $4 + 1
)
SELECT page.*, found
FROM (SELECT count(*) AS found FROM active) number
LEFT JOIN LATERAL (
    SELECT id::text, source_wallet_id::text, destination_wallet_id::text, currency, amount, captured,
           released, status, expires_at, final_transfer_id::text, reference, metadata::text, created_at,
           updated_at
    FROM active
    WHERE found <= $4 AND ($2::uuid IS NULL OR id < $2)
    ORDER BY active.id DESC
    LIMIT $3
) page ON true;

-- name: list_active_holds_of_wallet
-- The same for one wallet, which has a limited number of them, in an index of their own. All of them are read and
-- then sorted. In the order of the ids PostgreSQL would first read each newer hold of the wallet that has ended.
WITH active AS MATERIALIZED (
    SELECT * FROM {ledger}.holds
    WHERE source_wallet_id = $1 AND status = {hold_active} AND expires_at > statement_timestamp()
      AND ($2::timestamptz IS NULL OR expires_at < $2)
      AND ($3::uuid IS NULL OR id < $3)
)
SELECT id::text, source_wallet_id::text, destination_wallet_id::text, currency, amount, captured,
       released, status, expires_at, final_transfer_id::text, reference, metadata::text, created_at,
       updated_at
FROM active
ORDER BY active.id DESC
LIMIT $4;

-- name: measure_holds
-- For the metrics: the number of active holds, up to $1, because counting millions is expensive; and how long
-- the expiry of the oldest due hold is not written yet, in seconds.
SELECT (SELECT count(*) FROM (
            SELECT FROM {ledger}.holds WHERE status = {hold_active} LIMIT $1
        ) active) AS active,
       coalesce(greatest(extract(epoch FROM statement_timestamp() - (
           SELECT min(expires_at) FROM {ledger}.holds WHERE status = {hold_active}
       )), 0), 0)::float8 AS overdue_s;

-- name: wallets_now
-- Wallets as they are now: holds that are due reserve nothing, also if their expiry is not written yet. Other
-- queries begin with this one.
SELECT wallets.id::text, user_id::text, currency, balance,
       CASE WHEN hold_expires_at <= statement_timestamp() THEN held - (
           SELECT coalesce(sum(amount - captured), 0)::bigint FROM {ledger}.holds
           WHERE source_wallet_id = wallets.id AND holds.status = {hold_active}
             AND expires_at <= statement_timestamp())
       ELSE held END AS held,
       overdraft_limit, status, funding, version, metadata::text, created_at, updated_at,
       CASE WHEN hold_expires_at <= statement_timestamp() THEN (
           SELECT min(expires_at) FROM {ledger}.holds
           WHERE source_wallet_id = wallets.id AND holds.status = {hold_active})
       ELSE hold_expires_at END AS hold_expires_at,
       CASE WHEN hold_expires_at <= statement_timestamp() THEN open_holds - (
           SELECT count(*)::integer FROM {ledger}.holds
           WHERE source_wallet_id = wallets.id AND holds.status = {hold_active}
             AND expires_at <= statement_timestamp())
       ELSE open_holds END AS open_holds,
       statement_timestamp() AS now
FROM {ledger}.wallets;

-- name: read_wallets
-- Wallets for reads and dry runs, without a lock.
{wallets_now}
WHERE id = ANY ($1::uuid[]);

-- name: list_wallets
-- A page of wallets, newest first by id (UUIDv7 grows with time). A filter that is null does not filter.
{wallets_now}
WHERE ($1::uuid IS NULL OR user_id = $1)
  AND ($2::text IS NULL OR currency = $2)
  AND ($3::uuid IS NULL OR id < $3)
ORDER BY wallets.id DESC
LIMIT $4;

-- name: lock_shared
-- Waits until the transactions that have locked the wallet have ended; with {skip_locked} it does not wait
-- and then returns no row if the wallet is locked. Later groups draw their time after this lock was released,
-- so their times are later. The lock is taken in a single message that is a transaction of its own: it is
-- never held during a round trip, nor during a flush of the log. The level is READ COMMITTED, because at a
-- stricter level the wait would end in a conflict. {id} is a UUID; such a message cannot have parameters.
SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
SET LOCAL synchronous_commit = off;
SELECT FROM {ledger}.wallets WHERE id = '{id}' FOR SHARE {skip_locked};

-- name: version_before
-- The last version of a wallet with a time before an instant, by bisection: versions have no gaps and times
-- do not decrease with them, so a wallet with ten million changes needs 24 lookups in an index. Changes of
-- one group have equal times, so either all of them are before the instant or none. Null if the wallet did
-- not exist before the instant.
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
-- A wallet at an instant ($3), after which no change was made up to the version $2. Holds that were due at the
-- instant are left out: the first group after it has written all their expiries, in the order of their times, as
-- the versions after $2; or no group has locked the wallet since, and the holds are still active. Groups of a
-- replica of the version before holds write no expiry, so theirs may come first; `held_after` of their changes
-- is null.
WITH RECURSIVE expired AS (
    SELECT version, held_after
    FROM (
        SELECT version, held_after, kind, hold_expires_at FROM {ledger}.wallet_changes
        WHERE wallet_id = $1 AND version > $2 AND held_after IS NOT NULL
        ORDER BY version LIMIT 1
    ) following
    WHERE kind = {change_hold_expire} AND hold_expires_at <= $3
    UNION ALL
    SELECT later.version, later.held_after
    FROM expired
    JOIN {ledger}.wallet_changes later
      ON later.wallet_id = $1 AND later.version = expired.version + 1
         AND later.kind = {change_hold_expire} AND later.hold_expires_at <= $3
)
SELECT entry.balance_after, entry.created_at, settings.status, settings.overdraft_limit,
       coalesce((SELECT held_after FROM expired ORDER BY version DESC LIMIT 1),
                reserved.held_after, 0) - coalesce(unwritten.amount, 0) AS held
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
) settings
LEFT JOIN LATERAL (
    SELECT held_after FROM {ledger}.wallet_changes
    WHERE wallet_id = $1 AND version <= $2 AND held_after IS NOT NULL
    ORDER BY version DESC LIMIT 1
) reserved ON true
CROSS JOIN LATERAL (
    SELECT sum(amount - captured)::bigint AS amount FROM {ledger}.holds
    WHERE source_wallet_id = $1 AND status = {hold_active} AND expires_at <= $3
) unwritten;

-- name: statement
-- A wallet's entries between two versions, newest first: three index scans, merged. An entry has the kind of
-- a transfer or the kind of a change. Only changes change what is held: `held` is null in other rows, and
-- `held_before` is the value before the oldest entry.
WITH entries AS MATERIALIZED (
    (SELECT id::text AS transfer_id, kind AS transfer_kind, NULL::smallint AS change_kind,
            -amount AS amount, source_balance_after AS balance_after, source_version AS version,
            destination_wallet_id::text AS counterparty_wallet_id, reference, created_at,
            metadata::text, hold_id::text, NULL::bigint AS held
     FROM {ledger}.transfers
     WHERE source_wallet_id = $1 AND source_version > $2 AND source_version <= $3
     ORDER BY source_version DESC LIMIT $4)
    UNION ALL
    (SELECT id::text, kind, NULL, amount, destination_balance_after, destination_version,
            source_wallet_id::text, reference, created_at, metadata::text, hold_id::text, NULL
     FROM {ledger}.transfers
     WHERE destination_wallet_id = $1 AND destination_version > $2 AND destination_version <= $3
     ORDER BY destination_version DESC LIMIT $4)
    UNION ALL
    (SELECT NULL, NULL, kind, 0, balance_after, version, NULL, NULL, created_at, NULL, hold_id::text,
            held_after
     FROM {ledger}.wallet_changes
     WHERE wallet_id = $1 AND version > $2 AND version <= $3
     ORDER BY version DESC LIMIT $4)
    ORDER BY version DESC LIMIT $4
)
SELECT entries.*, (
    SELECT held_after FROM {ledger}.wallet_changes
    WHERE wallet_id = $1 AND held_after IS NOT NULL
      AND wallet_changes.version < (SELECT min(version) FROM entries)
    ORDER BY wallet_changes.version DESC LIMIT 1
) AS held_before
FROM entries
ORDER BY version DESC;

-- name: read_transfers
-- Transfers by id: for GET, for reversals, and to render stored outcomes again.
SELECT id::text, kind, source_wallet_id::text, destination_wallet_id::text, amount, currency,
       reference, metadata::text, source_version, source_balance_after, destination_version,
       destination_balance_after, reverses_transfer_id::text, created_at, hold_id::text
FROM {ledger}.transfers
WHERE id = ANY ($1::uuid[]);

-- name: list_transfers
-- A page of the transfers in which a wallet is source or destination, newest version first.
SELECT * FROM (
    (SELECT id::text, kind, source_wallet_id::text, destination_wallet_id::text, amount, currency,
            reference, metadata::text, source_version, source_balance_after, destination_version,
            destination_balance_after, reverses_transfer_id::text, created_at, hold_id::text,
            source_version AS wallet_version
     FROM {ledger}.transfers
     WHERE source_wallet_id = $1 AND source_version < $2
     ORDER BY source_version DESC LIMIT $3)
    UNION ALL
    (SELECT id::text, kind, source_wallet_id::text, destination_wallet_id::text, amount, currency,
            reference, metadata::text, source_version, source_balance_after, destination_version,
            destination_balance_after, reverses_transfer_id::text, created_at, hold_id::text,
            destination_version AS wallet_version
     FROM {ledger}.transfers
     WHERE destination_wallet_id = $1 AND destination_version < $2
     ORDER BY destination_version DESC LIMIT $3)
) transfers
ORDER BY wallet_version DESC
LIMIT $3;

-- name: read_currencies
-- All currencies. They are read once at start, because only a migration changes them.
SELECT code, name, exponent, funding_wallet_id::text FROM {ledger}.currencies ORDER BY code;

-- name: read_user
-- One user.
SELECT id::text, name, metadata::text, created_at FROM {ledger}.users WHERE id = $1;

-- name: list_users
-- Newest first by id.
SELECT id::text, name, metadata::text, created_at
FROM {ledger}.users
WHERE ($1::uuid IS NULL OR id < $1)
ORDER BY users.id DESC
LIMIT $2;

-- name: update_user
-- Updates name and metadata of a user. A user has no version: the last write wins.
UPDATE {ledger}.users
SET name = CASE WHEN $2 THEN $3 ELSE name END,
    metadata = CASE WHEN $4 THEN $5::json ELSE metadata END
WHERE id = $1
RETURNING id::text, name, metadata::text, created_at;

-- name: insert_outcome
-- Inserts the outcome of a key whose request moves no money, in the transaction of the change. No row means
-- that another request has stored an outcome for the key.
INSERT INTO {ledger}.outcomes (
    client_id, key, fingerprint, status, render_version, transfer_id, body, created_at)
VALUES ($1, $2, $3, $4, $5, NULL, $6, now())
ON CONFLICT DO NOTHING
RETURNING 1;

-- name: take_lease
-- The relay that has locked this row publishes until its transaction ends. Other relays do not wait for it.
SELECT ledger FROM {ledger}.relay_leases WHERE ledger = $1 FOR UPDATE SKIP LOCKED;

-- name: read_outbox
-- The oldest rows, with up to $1 events, in the order of their times, then of `seq`. For one wallet this is the order
-- of its changes: its times never decrease, and both are drawn under its lock. The query never asks for rows after
-- the last one that was read, because groups of different wallets do not commit in this order. The version of the
-- webhooks comes from the same snapshot: it includes each webhook that may get an event of these rows.
SELECT seq, created_at, events::text, (SELECT version FROM {ledger}.webhooks_version) AS webhooks_version
FROM (
    SELECT seq, created_at, events,
           sum(event_count) OVER (ORDER BY created_at, seq) - event_count AS before
    FROM (
        SELECT seq, created_at, event_count, events FROM {ledger}.outbox
        ORDER BY created_at, seq LIMIT $1
    ) oldest
) counted
WHERE before < $1
ORDER BY created_at, seq;

-- name: outbox_has_rows
-- Whether the outbox has rows: a cheap query for a poll that mostly finds nothing.
SELECT EXISTS (SELECT 1 FROM {ledger}.outbox);

-- name: outbox_size
-- The number of events that wait to be published and the age of the oldest, for the metrics.
SELECT coalesce(sum(event_count), 0)::bigint AS events,
       extract(epoch FROM clock_timestamp() - min(created_at))::float8 AS oldest_s
FROM {ledger}.outbox;

-- name: delete_outbox
-- Deletes published rows in the transaction that inserts their deliveries.
DELETE FROM {ledger}.outbox WHERE seq = ANY ($1::bigint[]);

-- name: insert_outbox
-- Inserts events that are published once more.
INSERT INTO {ledger}.outbox (created_at, event_count, events)
VALUES (clock_timestamp(), $1, $2::json);

-- name: insert_webhook
-- Inserts an endpoint.
INSERT INTO {ledger}.webhooks (
    id, client_id, url, events, wallet_id, secret, status, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, 0, now(), now())
RETURNING id::text, url, events, wallet_id::text, status, disabled_reason, secret, previous_secret,
          previous_secret_until, old_secrets, old_secrets_until, created_at, updated_at;

-- name: read_webhooks
-- One endpoint, or all endpoints for a notifier.
SELECT id::text, url, events, wallet_id::text, status, disabled_reason, secret, previous_secret,
       previous_secret_until, old_secrets, old_secrets_until, created_at, updated_at
FROM {ledger}.webhooks
WHERE $1::uuid IS NULL OR id = $1;

-- name: list_webhooks
-- Newest first by id.
SELECT id::text, url, events, wallet_id::text, status, disabled_reason, secret, previous_secret,
       previous_secret_until, old_secrets, old_secrets_until, created_at, updated_at
FROM {ledger}.webhooks
WHERE $1::uuid IS NULL OR id < $1
ORDER BY webhooks.id DESC
LIMIT $2;

-- name: update_webhook
-- Updates the columns whose parameter is not null. An endpoint that becomes active loses its reason of
-- disabling.
UPDATE {ledger}.webhooks
SET url = coalesce($2, url), events = coalesce($3, events), status = coalesce($4, status),
    disabled_reason = CASE WHEN $4::smallint = 0 THEN NULL WHEN $4::smallint = 1 THEN $5::text
                      ELSE disabled_reason END,
    updated_at = now()
WHERE id = $1
RETURNING id::text, url, events, wallet_id::text, status, disabled_reason, secret, previous_secret,
          previous_secret_until, old_secrets, old_secrets_until, created_at, updated_at;

-- name: lock_webhook
-- One endpoint, locked, and the time. Two rotations of its secret run one after the other, so each keeps the
-- secrets of the one before.
SELECT id::text, url, events, wallet_id::text, status, disabled_reason, secret, previous_secret,
       previous_secret_until, old_secrets, old_secrets_until, created_at, updated_at, now() AS now
FROM {ledger}.webhooks
WHERE id = $1
FOR NO KEY UPDATE;

-- name: rotate_webhook
-- Stores a new secret. The secret before it signs until $3 seconds from now, the secrets in $4 until the
-- times in $5.
UPDATE {ledger}.webhooks
SET previous_secret = secret, previous_secret_until = now() + make_interval(secs => $3),
    old_secrets = array_prepend(secret, $4::text[]),
    old_secrets_until = array_prepend(now() + make_interval(secs => $3), $5::timestamptz[]),
    secret = $2, updated_at = now()
WHERE id = $1
RETURNING id::text, url, events, wallet_id::text, status, disabled_reason, secret, previous_secret,
          previous_secret_until, old_secrets, old_secrets_until, created_at, updated_at;

-- name: delete_webhook
-- Deletes an endpoint and its delivery log. Dead deliveries stay, because an operator decides about them.
WITH log AS (
    DELETE FROM {ledger}.deliveries
    WHERE endpoint_id = $1 AND NOT (status = 3 AND dead_reason IS NOT NULL)
)
DELETE FROM {ledger}.webhooks WHERE id = $1 RETURNING 1;

-- name: count_webhook_change
-- Increments the version of the webhooks in the transaction of a change.
UPDATE {ledger}.webhooks_version SET version = version + 1;

-- name: webhooks_version
-- The version of the webhooks: a worker reads them again when it has changed.
SELECT version FROM {ledger}.webhooks_version;

-- name: insert_deliveries
-- Inserts deliveries of the events in $5 to $7, in order; $2 is the position of each delivery's event,
-- counted from 1. Their numbers follow those of the deliveries before; the lease $9, which the relay has locked,
-- has the last one. A row that exists stays as it is: its event was published before.
WITH numbered AS (
    UPDATE {ledger}.relay_leases SET delivery_number = delivery_number + cardinality($1::uuid[])
    WHERE ledger = $9
    RETURNING delivery_number - cardinality($1::uuid[]) AS last
)
INSERT INTO {ledger}.deliveries (
    id, number, event_id, endpoint_id, event_type, status, attempts, error, event, created_at, updated_at)
SELECT id, last + row_number() OVER (ORDER BY event_number), event_id, endpoint_id, event_type, status, 0,
       error, event::json, now(), now()
FROM numbered
CROSS JOIN unnest($1::uuid[], $2::integer[], $3::uuid[], $4::smallint[], $8::text[])
    AS d (id, event_number, endpoint_id, status, error)
JOIN unnest($5::text[], $6::text[], $7::text[]) WITH ORDINALITY
    AS e (event_id, event_type, event, event_number) USING (event_number)
ON CONFLICT DO NOTHING;

-- name: read_waiting
-- The due deliveries of some endpoints, up to $2 for each, without the ones in $3 and $4, which are in
-- flight; the last row has the version of the webhooks. Two index ranges: first retries whose time has come,
-- then deliveries without a time, in order. A retry of the log sink that the version before has left has its
-- event in its message.
WITH in_flight (endpoint_id, event_id) AS MATERIALIZED (
    SELECT * FROM unnest($3::uuid[], $4::text[])
)
SELECT w.endpoint_id::text, w.event_id, w.status, w.attempts, w.failures, w.event::text, NULL::bigint AS version
FROM unnest($1::uuid[], $2::integer[]) AS e (endpoint_id, room)
CROSS JOIN LATERAL (
    (SELECT * FROM {ledger}.deliveries d
     WHERE d.endpoint_id = e.endpoint_id AND d.status IN (0, 2) AND d.next_attempt_at <= now()
       AND d.event IS NOT NULL
       AND (d.endpoint_id, d.event_id) NOT IN (SELECT endpoint_id, event_id FROM in_flight)
     ORDER BY d.next_attempt_at, d.number LIMIT e.room)
    UNION ALL
    (SELECT * FROM {ledger}.deliveries d
     WHERE d.endpoint_id = e.endpoint_id AND d.status IN (0, 2) AND d.next_attempt_at IS NULL
       AND d.event IS NOT NULL
       AND (d.endpoint_id, d.event_id) NOT IN (SELECT endpoint_id, event_id FROM in_flight)
     ORDER BY d.next_attempt_at, d.number LIMIT e.room)
    LIMIT e.room
) w
UNION ALL
SELECT NULL, NULL, NULL, NULL, NULL, NULL, version FROM {ledger}.webhooks_version;

-- name: endpoints_waiting
-- The endpoints that have due deliveries. The query jumps in the index from one endpoint to the next.
WITH RECURSIVE endpoints (id) AS (
    (SELECT endpoint_id FROM {ledger}.deliveries WHERE status IN (0, 2) ORDER BY endpoint_id LIMIT 1)
    UNION ALL
    SELECT (SELECT endpoint_id FROM {ledger}.deliveries d
            WHERE d.endpoint_id > endpoints.id AND d.status IN (0, 2) ORDER BY endpoint_id LIMIT 1)
    FROM endpoints WHERE id IS NOT NULL
)
SELECT id::text FROM endpoints
WHERE id IS NOT NULL
  AND coalesce(
      (SELECT true FROM {ledger}.deliveries
       WHERE endpoint_id = endpoints.id AND status IN (0, 2) AND next_attempt_at IS NULL LIMIT 1),
      (SELECT true FROM {ledger}.deliveries
       WHERE endpoint_id = endpoints.id AND status IN (0, 2) AND next_attempt_at <= now() LIMIT 1),
      false);

-- name: record_deliveries
-- Writes the results of attempts; -1 means skipped, without an attempt. Only a waiting row gets a result: a
-- row that is delivered stays delivered when a slower notifier writes a failure. A delivered row of the log
-- sink ($9) drops its event. Citus refuses to compute a time in SET.
WITH r AS MATERIALIZED (
    SELECT event_id, endpoint_id, status, response_status, error, excerpt, dead_reason,
           now() + make_interval(secs => wait_s) AS next_attempt_at
    FROM unnest($1::text[], $2::uuid[], $3::smallint[], $4::smallint[], $5::text[], $6::text[], $7::text[],
                $8::float8[])
        AS results (event_id, endpoint_id, status, response_status, error, excerpt, dead_reason, wait_s)
)
UPDATE {ledger}.deliveries d
SET status = r.status, attempts = d.attempts + (r.status <> -1)::integer,
    failures = d.failures + (r.error IS NOT NULL)::integer,
    response_status = r.response_status, error = r.error, response_excerpt = r.excerpt,
    dead_reason = r.dead_reason, next_attempt_at = r.next_attempt_at,
    event = CASE WHEN r.status <> 1 OR r.endpoint_id <> $9 THEN d.event END, updated_at = now()
FROM r
WHERE d.event_id = r.event_id AND d.endpoint_id = r.endpoint_id AND d.status IN (0, 2);

-- name: carry_deliveries
-- Takes over what the version before has left: messages that contain the event and the number of attempts,
-- and dead letters without an endpoint. They come before deliveries of this version, so their number is 0. A
-- retry whose message has arrived becomes due; any other existing row stays as it is.
INSERT INTO {ledger}.deliveries AS d (
    id, number, event_id, endpoint_id, event_type, status, attempts, failures, event, dead_reason, created_at, updated_at)
SELECT id, 0, event_id, endpoint_id, event_type,
       CASE WHEN dead_reason IS NOT NULL THEN 3 WHEN attempts > 0 THEN 2 ELSE 0 END, attempts, attempts,
       event::json, dead_reason, now(), now()
FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::text[], $5::integer[], $6::text[], $7::text[])
    AS c (id, event_id, endpoint_id, event_type, attempts, event, dead_reason)
ON CONFLICT (event_id, endpoint_id) DO UPDATE
SET next_attempt_at = NULL, failures = excluded.failures, event = coalesce(d.event, excluded.event)
WHERE d.status = 2 AND excluded.status = 2;

-- name: has_waiting_deliveries
-- Whether a delivery waits for an attempt. The order lets PostgreSQL choose the small index of waiting deliveries.
SELECT EXISTS (
    SELECT 1 FROM (
        SELECT endpoint_id FROM {ledger}.deliveries WHERE status IN (0, 2) ORDER BY endpoint_id LIMIT 1
    ) first
);

-- name: waiting_deliveries
-- The number of waiting deliveries, at most $1, and the age of the oldest of these that is due. The metrics
-- read it every few seconds, so a long backlog is not counted to its end.
SELECT count(*) AS deliveries,
       extract(epoch FROM clock_timestamp() - min(created_at) FILTER (
           WHERE next_attempt_at IS NULL))::float8 AS oldest_s
FROM (SELECT created_at, next_attempt_at FROM {ledger}.deliveries WHERE status IN (0, 2) LIMIT $1) waiting;

-- name: list_deliveries
-- A page of an endpoint's delivery log, newest first.
SELECT id::text, event_id, event_type, status, attempts, response_status, error, response_excerpt,
       next_attempt_at, created_at, updated_at, event::text
FROM {ledger}.deliveries
WHERE endpoint_id = $1
  AND ($2::smallint IS NULL OR status = $2)
  AND ($3::uuid IS NULL OR id < $3)
ORDER BY deliveries.id DESC
LIMIT $4;

-- name: ask_again
-- Makes a delivery wait for another attempt, with as many retries as a new delivery has.
UPDATE {ledger}.deliveries
SET status = 0, failures = 0, dead_reason = NULL, next_attempt_at = NULL, updated_at = now()
WHERE endpoint_id = $1 AND id = $2 AND event IS NOT NULL
RETURNING id::text, event_id, event_type, status, attempts, response_status, error,
          response_excerpt, next_attempt_at, created_at, updated_at, event::text;

-- name: endpoints_with_deliveries
-- The endpoints that have a delivery log. The query jumps in the index from one endpoint to the next.
WITH RECURSIVE endpoints (id) AS (
    (SELECT endpoint_id FROM {ledger}.deliveries ORDER BY endpoint_id LIMIT 1)
    UNION ALL
    SELECT (SELECT endpoint_id FROM {ledger}.deliveries d WHERE d.endpoint_id > endpoints.id
            ORDER BY endpoint_id LIMIT 1)
    FROM endpoints WHERE id IS NOT NULL
)
SELECT id::text FROM endpoints WHERE id IS NOT NULL;

-- name: prune_deliveries
-- Deletes the oldest deliveries of an endpoint that are older than the window, up to a number of rows; $2 is
-- an id (UUIDv7) with the time of the window. Waiting and dead deliveries stay.
DELETE FROM {ledger}.deliveries
WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM {ledger}.deliveries
    WHERE endpoint_id = $1 AND id < $2 AND status NOT IN (0, 2)
      AND NOT (status = 3 AND dead_reason IS NOT NULL)
    ORDER BY id LIMIT $3))
RETURNING 1;

-- name: take_unaddressed_letters
-- Takes the dead letters of the version before that name an event and no endpoint: each endpoint gets a
-- delivery of its own.
DELETE FROM {ledger}.dead_letters WHERE event_id IS NOT NULL AND endpoint_id IS NULL
RETURNING body, reason;

-- name: insert_dead_letters
-- Inserts messages that are not events. A message that arrives again exists already.
INSERT INTO {ledger}.dead_letters (
    id, endpoint_id, event_id, event_type, reason, detail, attempts, body, died_at)
SELECT id, NULL, NULL, NULL, 'undeliverable', detail, 0, body, now()
FROM unnest($1::uuid[], $2::text[], $3::bytea[]) AS l (id, detail, body)
ON CONFLICT DO NOTHING;

-- name: fold_dead_letters
-- A worker of the version before stores a dead delivery as a letter beside the row. The row takes its
-- content, and the letter is deleted.
WITH letters AS (
    DELETE FROM {ledger}.dead_letters
    WHERE endpoint_id IS NOT NULL AND event_id IS NOT NULL
    RETURNING id, endpoint_id, event_id, event_type, reason, detail, attempts, body, died_at
)
INSERT INTO {ledger}.deliveries AS d (
    id, event_id, endpoint_id, event_type, status, attempts, error, event, dead_reason, created_at, updated_at)
SELECT id, event_id, endpoint_id, event_type, 3, attempts, detail, convert_from(body, 'UTF8')::json, reason,
       died_at, died_at
FROM (SELECT DISTINCT ON (event_id, endpoint_id) * FROM letters ORDER BY event_id, endpoint_id, id DESC) latest
ON CONFLICT (event_id, endpoint_id) DO UPDATE
SET dead_reason = excluded.dead_reason, event = excluded.event
WHERE d.status = 3;

-- name: list_dead_letters
-- Dead deliveries and messages that are not events, oldest first. A filter that is null does not filter.
SELECT id::text, endpoint_id::text, event_id, event_type, reason, detail, attempts, body, died_at
FROM (
    SELECT id, endpoint_id, event_id, event_type, dead_reason AS reason, coalesce(error, '') AS detail, attempts,
           convert_to(event::text, 'UTF8') AS body, updated_at AS died_at
    FROM {ledger}.deliveries WHERE status = 3 AND dead_reason IS NOT NULL
    UNION ALL
    SELECT id, endpoint_id, event_id, event_type, reason, detail, attempts, body, died_at
    FROM {ledger}.dead_letters
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
-- The number of dead letters that pass the same filters.
SELECT count(*) AS count
FROM (
    SELECT id, endpoint_id, event_type, dead_reason AS reason, updated_at AS died_at
    FROM {ledger}.deliveries WHERE status = 3 AND dead_reason IS NOT NULL
    UNION ALL
    SELECT id, endpoint_id, event_type, reason, died_at FROM {ledger}.dead_letters
) letters
WHERE ($1::uuid IS NULL OR endpoint_id = $1)
  AND ($2::text IS NULL OR event_type = $2)
  AND ($3::text IS NULL OR reason = $3)
  AND ($4::timestamptz IS NULL OR died_at < $4)
  AND ($5::uuid[] IS NULL OR id = ANY ($5));

-- name: redrive_dead_letters
-- Makes dead deliveries wait for an attempt again, if their endpoint exists or is the log sink.
UPDATE {ledger}.deliveries d
SET status = 0, failures = 0, dead_reason = NULL, next_attempt_at = NULL, updated_at = now()
WHERE id = ANY ($1::uuid[]) AND status = 3 AND dead_reason IS NOT NULL AND event IS NOT NULL
  AND (endpoint_id = $2 OR endpoint_id IN (SELECT id FROM {ledger}.webhooks))
RETURNING id::text, endpoint_id::text, event::text;

-- name: delete_dead_letters
-- Deletes dead letters, and returns how many existed.
WITH rows AS (
    DELETE FROM {ledger}.deliveries
    WHERE id = ANY ($1::uuid[]) AND status = 3 AND dead_reason IS NOT NULL RETURNING 1
), letters AS (
    DELETE FROM {ledger}.dead_letters WHERE id = ANY ($1::uuid[]) RETURNING 1
)
SELECT (SELECT count(*) FROM rows) + (SELECT count(*) FROM letters) AS count;

-- name: wallet_versions
-- The versions of the watched wallets, in one query for all event streams of a replica.
SELECT id::text, version FROM {ledger}.wallets WHERE id = ANY ($1::uuid[]);

-- name: changes_after
-- The changes of a wallet that are not transfers, oldest first, for its event stream.
SELECT c.wallet_id::text, c.version, c.kind, c.status, c.balance_after, c.overdraft_limit,
       c.created_at, w.user_id::text, w.currency, c.held_after, c.hold_id::text, c.hold_status,
       c.hold_amount, c.hold_captured, c.hold_released, c.hold_expires_at,
       h.destination_wallet_id::text, h.final_transfer_id::text, h.reference, h.metadata::text,
       h.created_at AS hold_created_at
FROM {ledger}.wallets w
JOIN {ledger}.wallet_changes c ON c.wallet_id = w.id
LEFT JOIN {ledger}.holds h ON h.id = c.hold_id
WHERE c.wallet_id = $1 AND c.version > $2
ORDER BY c.version
LIMIT $3;

-- name: transfers_after
-- The transfers in which a wallet is source or destination, after a version, oldest first, for its event
-- stream.
SELECT * FROM (
    (SELECT id::text, kind, source_wallet_id::text, destination_wallet_id::text, amount, currency,
            reference, metadata::text, source_version, source_balance_after, destination_version,
            destination_balance_after, reverses_transfer_id::text, created_at, hold_id::text,
            source_version AS wallet_version
     FROM {ledger}.transfers
     WHERE source_wallet_id = $1 AND source_version > $2
     ORDER BY source_version LIMIT $3)
    UNION ALL
    (SELECT id::text, kind, source_wallet_id::text, destination_wallet_id::text, amount, currency,
            reference, metadata::text, source_version, source_balance_after, destination_version,
            destination_balance_after, reverses_transfer_id::text, created_at, hold_id::text,
            destination_version AS wallet_version
     FROM {ledger}.transfers
     WHERE destination_wallet_id = $1 AND destination_version > $2
     ORDER BY destination_version LIMIT $3)
) transfers
ORDER BY wallet_version
LIMIT $3;

-- name: applied_to_ledger
-- The migrations of the ledger, which it records itself: so a backup of its schema has its version.
SELECT '{ledger}' AS schema, name FROM {ledger}.migrations;

-- name: ledger_counts
-- What waits in a ledger, for operators: rows of the outbox, deliveries, and holds.
SELECT
    (SELECT count(*) FROM {ledger}.outbox) AS outbox_rows,
    (SELECT count(*) FROM {ledger}.deliveries WHERE status IN (0, 2)) AS deliveries_waiting,
    (SELECT count(*) FROM {ledger}.holds WHERE status = {hold_active}) AS active_holds;

-- name: table_sizes
-- The tables of a ledger with their bytes, indexes included, and about how many rows they have. PostgreSQL counts
-- the rows when it vacuums or analyzes a table; -1 means never. On a node of Citus each table has a second one, with
-- the rows, whose name ends in a number.
SELECT regexp_replace(relname, '_\d+$', '') AS name, max(pg_total_relation_size(oid)) AS bytes,
    nullif(max(reltuples), -1)::bigint AS rows_about
FROM pg_class
WHERE relnamespace = to_regnamespace('{ledger}') AND relkind = 'r'
GROUP BY 1
ORDER BY bytes DESC, name;

-- name: ledger_state
-- The migrations of a ledger, and whether it lacks a currency of $1. `migrate` reads this of several ledgers in one
-- round trip.
SELECT '{ledger}' AS schema,
    ARRAY(SELECT name FROM {ledger}.migrations ORDER BY name) AS names,
    ARRAY(SELECT sha256 FROM {ledger}.migrations ORDER BY name) AS sums,
    EXISTS (
        SELECT FROM unnest($1::text[]) AS known (code) LEFT JOIN {ledger}.currencies USING (code)
        WHERE funding_wallet_id IS NULL
    ) AS lacks_currency;
