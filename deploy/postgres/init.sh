#!/bin/sh
# Run once by the image, when the data directory is new: the service's own role, which is no superuser and
# so cannot rewrite the history that it has written.
set -eu
psql --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname postgres \
    --set password="$TRANSFERD_DATABASE_PASSWORD" <<'SQL'
CREATE ROLE transferd LOGIN PASSWORD :'password';
CREATE DATABASE transferd OWNER transferd;
SQL
