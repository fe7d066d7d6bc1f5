#!/bin/sh
# The image runs this once, when the data directory is new. It creates the role of the service, which is not a
# superuser, so it cannot change stored history.
set -eu
psql --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname postgres \
    --set password="$TRANSFERD_DATABASE_PASSWORD" <<'SQL'
CREATE ROLE transferd LOGIN PASSWORD :'password';
CREATE DATABASE transferd OWNER transferd;
SQL
