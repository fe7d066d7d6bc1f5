-- What leaves: who wants to know, what was delivered, and what could not be. It belongs to no ledger.

-- One relay at a time publishes a ledger's outbox: whoever holds the lock on its row.
CREATE TABLE transferd.relay_leases (
    ledger  text PRIMARY KEY
);
INSERT INTO transferd.relay_leases (ledger) VALUES ('ledger_00');

-- An endpoint has to sign, so its secret is stored as it is. The one before is valid for a while.
CREATE TABLE transferd.webhooks (
    id                     uuid PRIMARY KEY,
    wallet_id              uuid,
    created_at             timestamptz NOT NULL,
    updated_at             timestamptz NOT NULL,
    previous_secret_until  timestamptz,
    client_id              integer NOT NULL,
    status                 smallint NOT NULL CHECK (status BETWEEN 0 AND 1),
    url                    text NOT NULL CHECK (length(url) <= 2048),
    events                 text[] NOT NULL,
    secret                 text NOT NULL,
    previous_secret        text,
    disabled_reason        text,
    CHECK ((previous_secret IS NULL) = (previous_secret_until IS NULL))
);

-- Counts the changes of webhooks, in the transaction of each, so that a notifier sees in passing
-- whether the ones it knows are still right.
CREATE TABLE transferd.webhooks_version (
    single   boolean PRIMARY KEY DEFAULT true CHECK (single),
    version  bigint NOT NULL
);
INSERT INTO transferd.webhooks_version (version) VALUES (0);

-- One row per (event, endpoint): the delivery log, and what a repeated message is recognized by for
-- as long as the row is kept. `event` is what was sent; the log sink's rows need none.
CREATE TABLE transferd.deliveries (
    id                uuid NOT NULL,
    endpoint_id       uuid NOT NULL,
    created_at        timestamptz NOT NULL,
    updated_at        timestamptz NOT NULL,
    next_attempt_at   timestamptz,
    attempts          integer NOT NULL CHECK (attempts >= 0),
    status            smallint NOT NULL CHECK (status BETWEEN 0 AND 3),
    response_status   smallint,
    event_id          text NOT NULL,
    event_type        text NOT NULL,
    error             text,
    response_excerpt  text,
    event             json,
    PRIMARY KEY (event_id, endpoint_id)
) WITH (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.05);
-- For the log of an endpoint, newest first, and to remove what is older than the window.
CREATE INDEX deliveries_by_endpoint ON transferd.deliveries (endpoint_id, id);

-- What was given up, with the reason, until an operator sends it again or throws it away. Without an
-- endpoint it is a message that the broker or the notifier could not even begin with.
CREATE TABLE transferd.dead_letters (
    id           uuid PRIMARY KEY,
    endpoint_id  uuid,
    died_at      timestamptz NOT NULL,
    attempts     integer NOT NULL,
    reason       text NOT NULL,
    detail       text NOT NULL,
    event_id     text,
    event_type   text,
    body         bytea NOT NULL
);

-- A message that the broker gave up comes again if the worker ends before it has said that it has it.
CREATE UNIQUE INDEX dead_letters_once ON transferd.dead_letters (
    md5(body), coalesce(endpoint_id, '00000000-0000-0000-0000-000000000000')
) WHERE reason = 'undeliverable';

-- Every row of the outbox is deleted a moment after it was written. Without this the relay would walk
-- over all that was deleted since the last vacuum, which by default is a fifth of everything.
ALTER TABLE ledger_00.outbox SET (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
    toast.autovacuum_vacuum_scale_factor = 0, toast.autovacuum_vacuum_threshold = 1000
);
