-- The queries about Citus. `placements` runs only where the extension is present.

-- name: has_citus
-- Whether the database has the extension. Without it every ledger is where the shared schema is.
SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'citus') AS found;

-- name: placements
-- The node of each distributed ledger: that of its table of wallets, because Citus keeps the tables of a schema
-- together. These are catalogs of the coordinator, so no other node is asked.
SELECT namespace.nspname AS schema, node.nodename AS host, node.nodeport AS port, node.groupid = 0 AS is_coordinator
FROM pg_dist_schema
JOIN pg_namespace AS namespace ON namespace.oid = pg_dist_schema.schemaid
JOIN pg_class AS wallets ON wallets.relnamespace = namespace.oid AND wallets.relname = 'wallets'
JOIN pg_dist_shard ON pg_dist_shard.logicalrelid = wallets.oid
JOIN pg_dist_placement USING (shardid)
JOIN pg_dist_node AS node ON node.groupid = pg_dist_placement.groupid AND node.noderole = 'primary';

-- name: undistributed
-- The ledgers whose tables are still on the coordinator. A ledger whose schema is missing is reported by its migration.
SELECT number, name, schema FROM transferd.ledgers
WHERE to_regnamespace(schema) IS NOT NULL AND NOT EXISTS (SELECT FROM pg_dist_schema WHERE schemaid = to_regnamespace(schema)) ORDER BY number;

-- name: lock_tables
-- Groups lock outcomes before any other table, so this waits for the running ones, and new ones wait for it. Reads
-- go on.
LOCK TABLE {ledger}.outcomes, {ledger}.wallets, {ledger}.transfers, {ledger}.wallet_changes, {ledger}.holds,
    {ledger}.users, {ledger}.outbox, {ledger}.relay_leases, {ledger}.webhooks, {ledger}.webhooks_version,
    {ledger}.deliveries, {ledger}.dead_letters, {ledger}.currencies, {ledger}.migrations IN EXCLUSIVE MODE;

-- name: distribute
-- Moves the tables of a schema to the node that has the fewest.
SELECT citus_schema_distribute('{ledger}');

-- name: local_copies
-- Tables of distributed ledgers, or of one of them, whose rows are still on the coordinator too, where no query reads them. A table that
-- the coordinator itself holds has its rows in a shard, so its own size is zero as well.
SELECT ledgers.schema, relname AS table_name FROM transferd.ledgers AS ledgers
JOIN pg_dist_schema ON schemaid = to_regnamespace(ledgers.schema)
JOIN pg_class ON relnamespace = schemaid
JOIN pg_dist_partition ON logicalrelid = pg_class.oid
WHERE relkind = 'r' AND pg_relation_size(pg_class.oid) > 0 AND ($1::text IS NULL OR ledgers.schema = $1)
ORDER BY ledgers.number, relname;

-- name: drop_local_copy
-- Removes the rows of a table that are on the coordinator although another node has them.
SELECT truncate_local_data_after_distributing_table($1::text::regclass);

-- name: repairs
-- The statements that give all nodes what the coordinator's tables have: the rights that the owner gave up, and the
-- options of TOAST tables. Citus copies neither to a node that gets a table.
WITH tables AS MATERIALIZED (
    SELECT oid, relacl, relowner, reltoastrelid FROM pg_class
    WHERE relnamespace = '{ledger}'::regnamespace AND relkind = 'r' AND (
        oid IN (SELECT logicalrelid FROM pg_dist_partition)
        OR NOT EXISTS (SELECT FROM pg_dist_schema WHERE schemaid = relnamespace)
    )
)
SELECT format('REVOKE %s ON %s FROM %I', string_agg(given_up, ', '), tables.oid::regclass, pg_get_userbyid(relowner))
    AS statement
FROM tables CROSS JOIN unnest(ARRAY['UPDATE', 'DELETE', 'TRUNCATE']) AS given_up
WHERE given_up NOT IN (
    SELECT privilege_type FROM aclexplode(coalesce(relacl, acldefault('r', relowner))) WHERE grantee = relowner
)
GROUP BY tables.oid, relowner
UNION ALL
SELECT format('ALTER TABLE %s SET (%s)', tables.oid::regclass, string_agg('toast.' || option, ', '))
FROM tables JOIN pg_class AS toast ON toast.oid = tables.reltoastrelid CROSS JOIN unnest(toast.reloptions) AS option
GROUP BY tables.oid;

-- name: rights_too_many
-- Rights that the role of the service must not have on tables of a ledger. On the node that holds the ledger this
-- includes the table with the rows, whose name ends in a number there.
SELECT relname AS table_name, privilege_type AS privilege
FROM pg_class CROSS JOIN aclexplode(coalesce(relacl, acldefault('r', relowner)))
WHERE relnamespace = '{ledger}'::regnamespace AND relkind = 'r' AND grantee = relowner
    AND (regexp_replace(relname, '_\d+$', ''), privilege_type) IN ({withheld})
ORDER BY relname, privilege_type;

-- name: damaged
-- The ledgers for which some node has too many rights, as after a move that `transferd ledgers move` did not make.
-- Each node is asked once.
SELECT ledgers.number, ledgers.name, ledgers.schema FROM transferd.ledgers AS ledgers
WHERE schema IN (
    SELECT unnest(string_to_array(result, ' ')) FROM run_command_on_all_nodes($$
        SELECT string_agg(DISTINCT nspname::text, ' ') FROM pg_dist_schema
        JOIN pg_namespace ON pg_namespace.oid = schemaid
        JOIN pg_class ON relnamespace = schemaid
        CROSS JOIN aclexplode(coalesce(relacl, acldefault('r', relowner)))
        WHERE relkind = 'r' AND grantee = relowner
            AND (regexp_replace(relname, '_\d+$', ''), privilege_type) IN ({withheld})
    $$) WHERE success
)
ORDER BY number;

-- name: withheld
-- What migrations have revoked, for `rights_too_many` and `damaged`.
VALUES ('transfers', 'UPDATE'), ('transfers', 'DELETE'), ('transfers', 'TRUNCATE'),
    ('wallet_changes', 'UPDATE'), ('wallet_changes', 'DELETE'), ('wallet_changes', 'TRUNCATE'),
    ('outcomes', 'UPDATE'), ('outcomes', 'DELETE'), ('outcomes', 'TRUNCATE'),
    ('wallets', 'DELETE'), ('wallets', 'TRUNCATE'), ('currencies', 'DELETE'), ('currencies', 'TRUNCATE'),
    ('holds', 'DELETE'), ('holds', 'TRUNCATE');

-- name: nodes
-- The nodes that can hold ledgers.
SELECT nodename AS host, nodeport AS port FROM pg_dist_node
WHERE noderole = 'primary' AND isactive AND shouldhaveshards ORDER BY nodename, nodeport;

-- name: size
-- Bytes of a ledger on disk, on the node that holds it.
SELECT coalesce(sum(size), 0)::bigint AS bytes FROM citus_shard_sizes()
JOIN pg_dist_shard ON pg_dist_shard.shardid = shard_id
JOIN pg_class ON pg_class.oid = logicalrelid
WHERE relnamespace = '{ledger}'::regnamespace;

-- name: sizes
-- Bytes of each distributed ledger on disk. Asks every node once.
SELECT nspname AS schema, sum(size)::bigint AS bytes FROM citus_shard_sizes()
JOIN pg_dist_shard ON pg_dist_shard.shardid = shard_id
JOIN pg_class ON pg_class.oid = logicalrelid
JOIN pg_namespace ON pg_namespace.oid = relnamespace
GROUP BY nspname;

-- name: move
-- Copies the tables of a ledger to another node, and drops them at the old one.
SELECT citus_schema_move($1::text::regnamespace, $2, $3, $4);

-- name: write_nothing
-- A write that changes no row: it waits as long as any other write of the ledger.
UPDATE {ledger}.webhooks_version SET version = version WHERE version < 0;

-- name: copied
-- Bytes of the move in progress, copied and in all. No row before the copy begins.
SELECT coalesce(sum(least(target_shard_size, source_shard_size)), 0)::bigint AS done,
    coalesce(sum(source_shard_size), 0)::bigint AS total
FROM get_rebalance_progress();

-- name: role_limit
-- The role's time limit for statements in this database; null without one.
SELECT (
    SELECT split_part(setting, '=', 2) FROM pg_db_role_setting CROSS JOIN unnest(setconfig) AS setting
    WHERE setrole = current_user::regrole AND setting LIKE 'statement_timeout=%'
        AND setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
) AS limit_of_role, quote_ident(current_user) || ' IN DATABASE ' || quote_ident(current_database()) AS role;
