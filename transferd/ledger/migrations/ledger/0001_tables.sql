-- All tables of a ledger, as the migrations 0001 to 0007 have left them in the ledger main, which does not run this
-- file. The files say why each table is as it is. Names have no schema: the search path names the one of the ledger.

CREATE TABLE users (
    id          uuid PRIMARY KEY,
    name        text CHECK (length(name) <= 140),
    metadata    json NOT NULL,
    created_at  timestamptz NOT NULL
);

CREATE TABLE outcomes (
    transfer_id     uuid,
    created_at      timestamptz NOT NULL,
    client_id       integer NOT NULL,
    status          smallint NOT NULL,
    render_version  smallint NOT NULL,
    fingerprint     bytea NOT NULL CHECK (length(fingerprint) = 16),
    key             text NOT NULL,
    body            bytea,
    PRIMARY KEY (client_id, key),
    CHECK ((transfer_id IS NULL) <> (body IS NULL))
);

CREATE TABLE currencies (
    code               text PRIMARY KEY CHECK (code ~ '^[A-Z]{3}$'),
    name               text NOT NULL,
    exponent           smallint NOT NULL CHECK (exponent BETWEEN 0 AND 4),
    funding_wallet_id  uuid NOT NULL UNIQUE
);

CREATE TABLE wallets (
    id               uuid PRIMARY KEY,
    user_id          uuid,
    balance          bigint NOT NULL,
    held             bigint NOT NULL CHECK (held >= 0),
    overdraft_limit  bigint NOT NULL CHECK (overdraft_limit >= 0),
    version          bigint NOT NULL CHECK (version >= 0),
    created_at       timestamptz NOT NULL,
    updated_at       timestamptz NOT NULL,
    status           smallint NOT NULL CHECK (status BETWEEN 0 AND 2),
    funding          boolean NOT NULL,
    currency         text NOT NULL,
    metadata         json NOT NULL,
    hold_expires_at  timestamptz,
    open_holds       integer NOT NULL DEFAULT 0 CHECK (open_holds >= 0),
    CHECK (funding = (user_id IS NULL)),
    CHECK (funding OR balance - held >= -overdraft_limit),
    CHECK (status <> 2 OR balance = 0)
) WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX wallets_by_user ON wallets (user_id, id);

CREATE TABLE transfers (
    id                         uuid PRIMARY KEY,
    source_wallet_id           uuid NOT NULL,
    destination_wallet_id      uuid NOT NULL,
    amount                     bigint NOT NULL CHECK (amount > 0),
    source_version             bigint NOT NULL CHECK (source_version > 0),
    source_balance_after       bigint NOT NULL,
    destination_version        bigint NOT NULL CHECK (destination_version > 0),
    destination_balance_after  bigint NOT NULL,
    created_at                 timestamptz NOT NULL,
    kind                       smallint NOT NULL CHECK (kind BETWEEN 0 AND 2),
    currency                   text NOT NULL,
    reference                  text CHECK (length(reference) <= 140),
    metadata                   json,
    reverses_transfer_id       uuid,
    hold_id                    uuid,
    UNIQUE (source_wallet_id, source_version),
    UNIQUE (destination_wallet_id, destination_version),
    CHECK (source_wallet_id <> destination_wallet_id),
    CHECK ((kind = 1) = (reverses_transfer_id IS NOT NULL)),
    CONSTRAINT transfers_hold_check CHECK ((kind = 2) = (hold_id IS NOT NULL))
);
CREATE INDEX transfers_by_original ON transfers (reverses_transfer_id)
    WHERE reverses_transfer_id IS NOT NULL;

CREATE TABLE wallet_changes (
    wallet_id        uuid NOT NULL,
    version          bigint NOT NULL CHECK (version >= 0),
    created_at       timestamptz NOT NULL,
    balance_after    bigint NOT NULL,
    overdraft_limit  bigint NOT NULL,
    kind             smallint NOT NULL CHECK (kind BETWEEN 0 AND 9),
    status           smallint NOT NULL,
    held_after       bigint,
    hold_id          uuid,
    hold_amount      bigint,
    hold_captured    bigint,
    hold_released    bigint,
    hold_expires_at  timestamptz,
    hold_status      smallint,
    PRIMARY KEY (wallet_id, version),
    CONSTRAINT wallet_changes_hold_check CHECK ((kind >= 5) = (hold_id IS NOT NULL))
);

CREATE TABLE holds (
    id                     uuid PRIMARY KEY,
    source_wallet_id       uuid NOT NULL,
    destination_wallet_id  uuid,
    final_transfer_id      uuid,
    amount                 bigint NOT NULL CHECK (amount > 0),
    captured               bigint NOT NULL CHECK (captured >= 0),
    released               bigint NOT NULL CHECK (released >= 0),
    created_at             timestamptz NOT NULL,
    updated_at             timestamptz NOT NULL,
    expires_at             timestamptz NOT NULL,
    status                 smallint NOT NULL CHECK (status BETWEEN 0 AND 3),
    currency               text NOT NULL,
    reference              text CHECK (length(reference) <= 140),
    metadata               json NOT NULL,
    CHECK (captured + released <= amount),
    CHECK (CASE WHEN status = 0 THEN released = 0 ELSE captured + released = amount END)
) WITH (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX holds_by_wallet ON holds (source_wallet_id, id);
CREATE INDEX holds_active_by_wallet ON holds (source_wallet_id, expires_at) WHERE status = 0;
CREATE INDEX holds_active ON holds (expires_at) WHERE status = 0;

CREATE TABLE outbox (
    seq          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    created_at   timestamptz NOT NULL,
    event_count  integer NOT NULL CHECK (event_count > 0),
    events       json NOT NULL
) WITH (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
    toast.autovacuum_vacuum_scale_factor = 0, toast.autovacuum_vacuum_threshold = 1000
);
ALTER TABLE outbox ALTER COLUMN events SET STORAGE EXTERNAL;
CREATE INDEX outbox_in_order ON outbox (created_at, seq);

CREATE TABLE relay_leases (
    ledger           text PRIMARY KEY,
    delivery_number  bigint NOT NULL DEFAULT 0
);
INSERT INTO relay_leases (ledger) VALUES (current_schema()), (current_schema() || '/expiry');

CREATE TABLE webhooks (
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
    old_secrets            text[] NOT NULL DEFAULT '{}',
    old_secrets_until      timestamptz[] NOT NULL DEFAULT '{}',
    CHECK ((previous_secret IS NULL) = (previous_secret_until IS NULL)),
    CONSTRAINT webhooks_old_secrets_check
        CHECK (cardinality(old_secrets) = cardinality(old_secrets_until))
);

CREATE TABLE webhooks_version (
    single   boolean PRIMARY KEY DEFAULT true CHECK (single),
    version  bigint NOT NULL
);
INSERT INTO webhooks_version (version) VALUES (0);

CREATE TABLE deliveries (
    id                uuid NOT NULL,
    endpoint_id       uuid NOT NULL,
    created_at        timestamptz NOT NULL,
    updated_at        timestamptz NOT NULL,
    next_attempt_at   timestamptz,
    attempts          integer NOT NULL CHECK (attempts >= 0),
    status            smallint NOT NULL CHECK (status BETWEEN -1 AND 3),
    response_status   smallint,
    event_id          text NOT NULL,
    event_type        text NOT NULL,
    error             text,
    response_excerpt  text,
    event             json,
    number            bigint,
    failures          integer NOT NULL DEFAULT 0,
    dead_reason       text,
    PRIMARY KEY (event_id, endpoint_id)
) WITH (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX deliveries_by_endpoint ON deliveries (endpoint_id, id);
CREATE INDEX deliveries_waiting ON deliveries (endpoint_id, next_attempt_at, number)
    WHERE status IN (0, 2);
CREATE INDEX deliveries_dead ON deliveries (id) WHERE dead_reason IS NOT NULL;

CREATE TABLE dead_letters (
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
CREATE UNIQUE INDEX dead_letters_once ON dead_letters (
    md5(body), coalesce(endpoint_id, '00000000-0000-0000-0000-000000000000')
) WHERE reason = 'undeliverable';

REVOKE UPDATE, DELETE, TRUNCATE ON transfers, wallet_changes, outcomes FROM CURRENT_USER;
REVOKE DELETE, TRUNCATE ON wallets, currencies, holds FROM CURRENT_USER;
