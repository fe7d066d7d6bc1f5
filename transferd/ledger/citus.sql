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
