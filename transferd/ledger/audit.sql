-- Every query of the audit. {ledger} is the schema that is audited. A check returns one row per
-- finding: the name of the check, the subject and the detail. Arithmetic is numeric, because damaged
-- numbers may not fit a bigint. $1 and $2 of a check are the first and the last id of a chunk.

-- name: row_counts
-- The numbers of rows, for the progress and the summary, from the same snapshot as everything else.
SELECT (SELECT count(*) FROM {ledger}.currencies) AS currencies,
       (SELECT count(*) FROM {ledger}.wallets) AS wallets,
       (SELECT count(*) FROM {ledger}.transfers) AS transfers,
       (SELECT count(*) FROM {ledger}.holds) AS holds,
       (SELECT count(*) FROM {ledger}.outcomes) AS outcomes;

-- name: wallets_page
-- The ids of a chunk and one more: the last id is the start of the next chunk.
SELECT id::text FROM {ledger}.wallets WHERE id >= $1 ORDER BY wallets.id LIMIT $2;

-- name: transfers_page
-- As `wallets_page`. Ids grow with time, so the rows of a chunk are close to each other on disk.
SELECT id::text FROM {ledger}.transfers WHERE id >= $1 ORDER BY transfers.id LIMIT $2;

-- name: outcomes_page
-- Outcomes with their bodies. A body that is not JSON, or not even text, would end a statement of PostgreSQL,
-- so Python checks bodies. Bodies of batches are long and are read one by one with `outcome_body`.
SELECT o.client_id, o.key, o.status, o.render_version, length(o.fingerprint) AS fingerprint_bytes,
       o.transfer_id::text, o.body IS NOT NULL AS has_body,
       CASE WHEN o.render_version <> 2 THEN o.body END AS body, t.id IS NOT NULL AS is_stored
FROM (
    SELECT * FROM {ledger}.outcomes
    WHERE (client_id, key) >= ($1::integer, $2::text)
    ORDER BY client_id, key
    LIMIT $3
) o
LEFT JOIN {ledger}.transfers t ON t.id = o.transfer_id
ORDER BY o.client_id, o.key;

-- name: outcome_body
-- The stored body of one batch.
SELECT body FROM {ledger}.outcomes WHERE client_id = $1 AND key = $2;

-- name: missing_transfers
-- Ids of a batch without a transfer, up to a number.
SELECT id::text FROM unnest($1::uuid[]) AS wanted (id)
WHERE NOT EXISTS (SELECT FROM {ledger}.transfers t WHERE t.id = wanted.id)
LIMIT $2;

-- name: currency_sums
-- Money neither appears nor vanishes: the balances of a currency, its funding wallet included, add up to
-- zero.
SELECT 'currency-sum' AS "check", currency AS subject,
       format('all wallets together hold %s, not 0', sum(balance)) AS detail
FROM {ledger}.wallets
GROUP BY currency
HAVING sum(balance) <> 0
LIMIT $1;

-- name: funding_wallets
-- A wallet without a limit can create money: each currency has exactly one such wallet.
(SELECT 'funding-wallet' AS "check", c.code AS subject,
        CASE WHEN w.id IS NULL THEN format('its funding wallet %s is missing', c.funding_wallet_id)
             WHEN NOT w.funding THEN format('wallet %s is not marked as funding', w.id)
             WHEN w.currency <> c.code THEN format('wallet %s holds %s', w.id, w.currency)
             ELSE format('wallet %s is not active (status %s)', w.id, w.status) END AS detail
 FROM {ledger}.currencies c
 LEFT JOIN {ledger}.wallets w ON w.id = c.funding_wallet_id
 WHERE w.id IS NULL OR NOT w.funding OR w.currency <> c.code OR w.status <> {status_active}
 LIMIT $1)
UNION ALL
(SELECT 'funding-wallet', w.id::text, format('may go below zero, but no currency names it')
 FROM {ledger}.wallets w
 WHERE w.funding
   AND NOT EXISTS (SELECT FROM {ledger}.currencies c WHERE c.funding_wallet_id = w.id)
 LIMIT $1)
UNION ALL
(SELECT 'funding-wallet', held.currency, 'wallets hold it, but there is no such currency'
 FROM (SELECT DISTINCT currency FROM {ledger}.wallets) held
 WHERE NOT EXISTS (SELECT FROM {ledger}.currencies c WHERE c.code = held.currency)
 LIMIT $1);

-- name: holds_page
-- As `wallets_page`.
SELECT id::text FROM {ledger}.holds WHERE id >= $1 ORDER BY holds.id LIMIT $2;

-- name: orphans
-- History whose wallet does not exist; the checks by wallet do not read it.
SELECT 'orphan' AS "check", c.wallet_id::text AS subject,
       format('there is no such wallet, but %s rows of wallet_changes', count(*)) AS detail
FROM {ledger}.wallet_changes c
WHERE NOT EXISTS (SELECT FROM {ledger}.wallets w WHERE w.id = c.wallet_id)
GROUP BY c.wallet_id
LIMIT $1;

-- name: wallet_history
-- Each version exists once, each balance is the one before plus the amount, and times do not decrease. Where
-- a version is missing or double, balances are not compared, because that would report one fault twice.
WITH history AS (
    SELECT source_wallet_id AS id, source_version AS version, -amount::numeric AS amount,
           source_balance_after::numeric AS balance_after, created_at
    FROM {ledger}.transfers
    WHERE source_wallet_id BETWEEN $1 AND $2
    UNION ALL
    SELECT destination_wallet_id, destination_version, amount, destination_balance_after, created_at
    FROM {ledger}.transfers
    WHERE destination_wallet_id BETWEEN $1 AND $2
    UNION ALL
    SELECT wallet_id, version, 0, balance_after, created_at
    FROM {ledger}.wallet_changes
    WHERE wallet_id BETWEEN $1 AND $2
), linked AS (
    SELECT id, version, amount, balance_after, created_at,
           version - lag(version, 1, -1::bigint) OVER past AS step,
           balance_after - lag(balance_after, 1, 0::numeric) OVER past AS growth,
           lag(created_at, 1, '-infinity') OVER past AS earlier,
           lead(version) OVER past = version AS is_doubled
    FROM history
    WINDOW past AS (PARTITION BY id ORDER BY version)
), judged AS (
    SELECT w.id, w.version, w.balance, w.updated_at, count(l.id) AS entries,
           max(l.version) AS last, min(l.version) FILTER (WHERE l.step > 1) AS after_gap,
           min(l.version) FILTER (WHERE l.step = 0) AS twice,
           min(l.version) FILTER (WHERE l.step = 1 AND l.is_doubled IS NOT TRUE
                                        AND l.growth <> l.amount) AS wrong_balance,
           max(l.balance_after) FILTER (WHERE l.version = w.version) AS last_balance,
           min(l.version) FILTER (WHERE l.created_at < l.earlier) AS wrong_time,
           max(l.created_at) FILTER (WHERE l.version = w.version) AS last_time
    FROM {ledger}.wallets w
    LEFT JOIN linked l ON l.id = w.id
    WHERE w.id BETWEEN $1 AND $2
    GROUP BY w.id
)
SELECT finding."check", j.id::text AS subject, finding.detail
FROM judged j
CROSS JOIN LATERAL (VALUES
    ('versions', j.entries <> j.version + 1 OR j.after_gap IS NOT NULL OR j.twice IS NOT NULL,
     CASE WHEN j.after_gap IS NOT NULL THEN format('version %s is missing', j.after_gap - 1)
          WHEN j.twice IS NOT NULL THEN format('version %s is there twice', j.twice)
          ELSE format('is at version %s, but its history ends at %s', j.version, j.last) END),
    ('balance-chain', j.wrong_balance IS NOT NULL OR j.last_balance <> j.balance,
     CASE WHEN j.wrong_balance IS NOT NULL
          THEN format('the balance after version %s is not the one before plus its amount',
                      j.wrong_balance)
          ELSE format('holds %s, but %s by its history', j.balance, j.last_balance) END),
    ('times', j.wrong_time IS NOT NULL OR j.last_time <> j.updated_at,
     CASE WHEN j.wrong_time IS NOT NULL
          THEN format('version %s is older than the one before', j.wrong_time)
          ELSE format('was updated at %s, but at %s by its history', j.updated_at, j.last_time) END)
) AS finding ("check", is_wrong, detail)
WHERE finding.is_wrong;

-- name: wallet_states
-- Status and limits of each wallet, compared with its history and its balance.
SELECT finding."check", w.id::text AS subject, finding.detail
FROM {ledger}.wallets w
LEFT JOIN LATERAL (
    SELECT status, overdraft_limit FROM {ledger}.wallet_changes
    WHERE wallet_id = w.id
    ORDER BY version DESC LIMIT 1
) last ON true
CROSS JOIN LATERAL (VALUES
    ('wallet-limit', w.held < 0 OR w.overdraft_limit < 0
        OR NOT w.funding AND w.balance::numeric - w.held < -w.overdraft_limit::numeric,
     format('balance %s, held %s, overdraft limit %s', w.balance, w.held, w.overdraft_limit)),
    ('closed-wallet', w.status = {status_closed} AND (w.balance <> 0 OR w.held <> 0),
     format('is closed with balance %s, held %s', w.balance, w.held)),
    ('wallet-settings',
     (w.status, w.overdraft_limit) IS DISTINCT FROM (last.status, last.overdraft_limit),
     format('status %s, overdraft limit %s, but %s and %s by its history', w.status,
            w.overdraft_limit, last.status, last.overdraft_limit))
) AS finding ("check", is_wrong, detail)
WHERE w.id BETWEEN $1 AND $2 AND finding.is_wrong;

-- name: transfer_wallets
-- Both wallets of a transfer exist. The schema has no foreign keys for them, because wallets are locked
-- often.
SELECT CASE WHEN s.id IS NULL OR d.id IS NULL THEN 'transfer-wallets'
            ELSE 'transfer-currency' END AS "check",
       t.id::text AS subject,
       CASE WHEN s.id IS NULL THEN format('its source %s is missing', t.source_wallet_id)
            WHEN d.id IS NULL THEN format('its destination %s is missing', t.destination_wallet_id)
            ELSE format('moves %s from %s to %s', t.currency, s.currency, d.currency)
            END AS detail
FROM {ledger}.transfers t
LEFT JOIN {ledger}.wallets s ON s.id = t.source_wallet_id
LEFT JOIN {ledger}.wallets d ON d.id = t.destination_wallet_id
WHERE t.id BETWEEN $1 AND $2
  AND (s.currency IS DISTINCT FROM t.currency OR d.currency IS DISTINCT FROM t.currency);

-- name: reversals
-- A reversal moves money back between the wallets of its original, and is itself never reversed.
SELECT finding."check", r.id::text AS subject, finding.detail
FROM {ledger}.transfers r
LEFT JOIN {ledger}.transfers o ON o.id = r.reverses_transfer_id
CROSS JOIN LATERAL (VALUES
    ('reversal-original',
     r.kind <> {kind_reversal} OR o.id IS NULL OR o.kind = {kind_reversal}
         OR o.reverses_transfer_id IS NOT NULL,
     CASE WHEN r.kind <> {kind_reversal} THEN format('is no reversal, but names an original')
          WHEN o.id IS NULL THEN format('its original %s is missing', r.reverses_transfer_id)
          ELSE format('its original %s is a reversal itself', o.id) END),
    ('reversal-sides', r.source_wallet_id <> o.destination_wallet_id
                       OR r.destination_wallet_id <> o.source_wallet_id,
     format('moves money from %s to %s, its original from %s to %s', r.source_wallet_id,
            r.destination_wallet_id, o.source_wallet_id, o.destination_wallet_id)),
    ('reversal-currency', r.currency <> o.currency,
     format('is in %s, its original in %s', r.currency, o.currency))
) AS finding ("check", is_wrong, detail)
WHERE r.id BETWEEN $1 AND $2
  AND (r.kind = {kind_reversal} OR r.reverses_transfer_id IS NOT NULL)
  AND finding.is_wrong;

-- name: reversal_sums
-- The reversals of a transfer do not exceed its amount.
SELECT 'reversal-sum' AS "check", o.id::text AS subject,
       format('of %s %s %s was given back', o.amount, o.currency, sum(r.amount)) AS detail
FROM {ledger}.transfers o
JOIN {ledger}.transfers r ON r.reverses_transfer_id = o.id
WHERE o.id BETWEEN $1 AND $2
GROUP BY o.id
HAVING sum(r.amount) > o.amount;

-- name: wallet_holds
-- What a wallet holds is the sum of what is left of its active holds, and so it is in its history; and none of
-- them expires before the time that the wallet names.
SELECT finding."check", w.id::text AS subject, finding.detail
FROM {ledger}.wallets w
LEFT JOIN LATERAL (
    SELECT count(*) AS holds, sum(amount::numeric - captured - released) AS held,
           min(expires_at) AS expires_at
    FROM {ledger}.holds
    WHERE source_wallet_id = w.id AND status = {hold_active}
) active ON true
LEFT JOIN LATERAL (
    SELECT held_after FROM {ledger}.wallet_changes
    WHERE wallet_id = w.id AND held_after IS NOT NULL
    ORDER BY version DESC LIMIT 1
) last ON true
CROSS JOIN LATERAL (VALUES
    ('held-sum', w.held <> coalesce(active.held, 0) OR w.open_holds <> active.holds,
     format('holds %s in %s holds, but %s is left of %s active holds', w.held, w.open_holds,
            coalesce(active.held, 0), active.holds)),
    ('held-history', w.held <> coalesce(last.held_after, 0),
     format('holds %s, but %s by its history', w.held, coalesce(last.held_after, 0))),
    ('hold-expiry', active.holds > 0
        AND (w.hold_expires_at IS NULL OR w.hold_expires_at > active.expires_at),
     format('names %s as the first expiry, but a hold expires at %s', w.hold_expires_at,
            active.expires_at))
) AS finding ("check", is_wrong, detail)
WHERE w.id BETWEEN $1 AND $2 AND finding.is_wrong;

-- name: hold_captures
-- The captures of a wallet's holds, from one pass over what the wallets of a chunk have paid: what a hold counts as
-- captured is the sum of its captures, each of which is in its currency.
WITH captured AS (
    SELECT hold_id AS id, source_wallet_id, currency, sum(amount) AS amount
    FROM {ledger}.transfers
    WHERE source_wallet_id BETWEEN $1 AND $2 AND hold_id IS NOT NULL
    GROUP BY hold_id, source_wallet_id, currency
), held AS (
    SELECT id, source_wallet_id, currency, captured FROM {ledger}.holds
    WHERE source_wallet_id BETWEEN $1 AND $2
)
SELECT 'hold-captures' AS "check", coalesce(h.id, c.id)::text AS subject,
       CASE WHEN h.id IS NULL THEN format('wallet %s paid captures of it, but has no such hold',
                                          c.source_wallet_id)
            WHEN c.currency <> h.currency THEN format('is in %s, but was captured in %s',
                                                      h.currency, c.currency)
            ELSE format('counts %s as captured, but its captures are %s', h.captured,
                        coalesce(c.amount, 0)) END AS detail
FROM held h
FULL JOIN captured c ON c.id = h.id AND c.source_wallet_id = h.source_wallet_id
WHERE h.id IS NULL OR c.currency <> h.currency OR h.captured <> coalesce(c.amount, 0);

-- name: hold_histories
-- The holds of wallets are in the state of the last change of them, from one pass over the changes of the wallets of a
-- chunk.
WITH last AS (
    SELECT DISTINCT ON (hold_id) hold_id, hold_status, hold_amount, hold_captured, hold_released,
           hold_expires_at
    FROM {ledger}.wallet_changes
    WHERE wallet_id BETWEEN $1 AND $2 AND hold_id IS NOT NULL
    ORDER BY hold_id, version DESC
)
SELECT 'hold-history' AS "check", h.id::text AS subject,
       'is not in the state of the last change of it' AS detail
FROM {ledger}.holds h
LEFT JOIN last ON last.hold_id = h.id
WHERE h.source_wallet_id BETWEEN $1 AND $2
  AND (h.status, h.amount, h.captured, h.released, h.expires_at) IS DISTINCT FROM
      (last.hold_status, last.hold_amount, last.hold_captured, last.hold_released,
       last.hold_expires_at);

-- name: hold_states
-- Each hold adds up and has a wallet in its currency.
SELECT finding."check", h.id::text AS subject, finding.detail
FROM {ledger}.holds h
LEFT JOIN {ledger}.wallets w ON w.id = h.source_wallet_id
CROSS JOIN LATERAL (VALUES
    ('hold-amounts',
     CASE WHEN h.status = {hold_active} THEN h.released <> 0 OR h.captured > h.amount
          ELSE h.captured::numeric + h.released <> h.amount END,
     format('amount %s, captured %s, released %s with status %s', h.amount, h.captured, h.released,
            h.status)),
    ('hold-wallet', w.id IS NULL OR w.currency <> h.currency,
     format('is in %s, its wallet in %s', h.currency, coalesce(w.currency, 'nothing: it is missing')))
) AS finding ("check", is_wrong, detail)
WHERE h.id BETWEEN $1 AND $2 AND finding.is_wrong;
