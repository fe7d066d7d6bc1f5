#!/bin/sh
# Make the nodes one cluster: the coordinator, which PGHOST names, and its workers, which are the arguments (HOST:PORT).
# May run again, with more workers.
set -eu
run() { psql --quiet --no-psqlrc --output=/dev/null --set ON_ERROR_STOP=1 --dbname transferd "$@"; }

# The workers connect to the coordinator at this address, too.
run --command "SELECT citus_set_coordinator_host('$PGHOST', ${PGPORT:-5432})"
for worker in "$@"; do
    run --command "SELECT citus_add_node('${worker%:*}', ${worker##*:})"
done
# Citus creates a role on the workers with its first distributed table, which only a superuser may do.
run --command "SET citus.enable_schema_based_sharding = on" \
    --command "CREATE SCHEMA introduction AUTHORIZATION transferd" \
    --command "CREATE TABLE introduction.of_role ()" \
    --command "ALTER TABLE introduction.of_role OWNER TO transferd" \
    --command "DROP SCHEMA introduction CASCADE"
echo "the cluster has $# workers"
