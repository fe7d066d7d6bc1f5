#!/bin/sh
# The image runs this once on each node, when the data directory is new. It creates the role of the service, which is
# not a superuser, and the database with the extension. The nodes connect to each other with these passwords.
set -eu
psql --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname postgres \
    --set password="$TRANSFERD_DATABASE_PASSWORD" --set superuser_password="$POSTGRES_PASSWORD" <<'SQL'
CREATE ROLE transferd LOGIN PASSWORD :'password';
CREATE DATABASE transferd OWNER transferd;
\connect transferd
CREATE EXTENSION citus;
INSERT INTO pg_dist_authinfo (nodeid, rolename, authinfo)
SELECT 0, role, concat('password=''', replace(replace(secret, '\', '\\'), '''', '\'''), '''')
FROM (VALUES ('transferd', :'password'), ('postgres', :'superuser_password')) AS roles (role, secret);
SQL
