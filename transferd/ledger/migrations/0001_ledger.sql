-- What belongs to no ledger: people, API clients and the outcomes of their keys.
-- A key is looked up by (client, key) and never by wallet, because a repeated request may name
-- another wallet and must still be found.

CREATE TABLE transferd.users (
    id          uuid PRIMARY KEY,
    name        text CHECK (length(name) <= 140),
    metadata    json NOT NULL,
    created_at  timestamptz NOT NULL
);

CREATE TABLE transferd.clients (
    id          integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name        text NOT NULL UNIQUE,
    created_at  timestamptz NOT NULL DEFAULT now()
);
-- Client 1 is everybody while authentication is off.
INSERT INTO transferd.clients (name) VALUES ('local');

-- Only the SHA-256 of a secret of 256 random bits is stored; there is nothing to guess or to crack.
CREATE TABLE transferd.api_keys (
    id             text PRIMARY KEY,
    client_id      integer NOT NULL REFERENCES transferd.clients (id),
    secret_sha256  bytea NOT NULL CHECK (length(secret_sha256) = 32),
    scopes         text[] NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now(),
    expires_at     timestamptz,
    revoked_at     timestamptz,
    last_used_at   timestamptz
);

-- One row per used key, written in the transaction of the money. A posted transfer is rendered again
-- from its row (render_version says how); everything else keeps its bytes.
CREATE TABLE transferd.outcomes (
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

-- The money. Nothing in here refers to another schema.

-- Each currency has a wallet that may go below zero: money enters and leaves through it, so the sum
-- over all wallets of a currency is always zero.
CREATE TABLE ledger_00.currencies (
    code               text PRIMARY KEY CHECK (code ~ '^[A-Z]{3}$'),
    name               text NOT NULL,
    exponent           smallint NOT NULL CHECK (exponent BETWEEN 0 AND 4),
    funding_wallet_id  uuid NOT NULL UNIQUE
);

-- No index holds a column that a transfer changes and pages keep room, so that updates stay HOT.
-- The last check is the net below `decide`: no transaction can leave a wallet below its limit.
CREATE TABLE ledger_00.wallets (
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
    CHECK (funding = (user_id IS NULL)),
    CHECK (funding OR balance - held >= -overdraft_limit),
    CHECK (status <> 2 OR balance = 0)
) WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX wallets_by_user ON ledger_00.wallets (user_id, id);

-- One row per transfer, and the row is both its entries. The two unique keys make it impossible to
-- store two changes of a wallet under one version; they also serve statements and lists.
CREATE TABLE ledger_00.transfers (
    id                         uuid PRIMARY KEY,
    source_wallet_id           uuid NOT NULL,
    destination_wallet_id      uuid NOT NULL,
    amount                     bigint NOT NULL CHECK (amount > 0),
    source_version             bigint NOT NULL CHECK (source_version > 0),
    source_balance_after       bigint NOT NULL,
    destination_version        bigint NOT NULL CHECK (destination_version > 0),
    destination_balance_after  bigint NOT NULL,
    created_at                 timestamptz NOT NULL,
    kind                       smallint NOT NULL CHECK (kind BETWEEN 0 AND 1),
    currency                   text NOT NULL,
    reference                  text CHECK (length(reference) <= 140),
    metadata                   json,
    reverses_transfer_id       uuid,
    UNIQUE (source_wallet_id, source_version),
    UNIQUE (destination_wallet_id, destination_version),
    CHECK (source_wallet_id <> destination_wallet_id),
    CHECK ((kind = 1) = (reverses_transfer_id IS NOT NULL))
);
CREATE INDEX transfers_by_original ON ledger_00.transfers (reverses_transfer_id)
    WHERE reverses_transfer_id IS NOT NULL;

-- Every change of a wallet that is not a side of a transfer; creation is version 0.
CREATE TABLE ledger_00.wallet_changes (
    wallet_id        uuid NOT NULL,
    version          bigint NOT NULL CHECK (version >= 0),
    created_at       timestamptz NOT NULL,
    balance_after    bigint NOT NULL,
    overdraft_limit  bigint NOT NULL,
    kind             smallint NOT NULL CHECK (kind BETWEEN 0 AND 4),
    status           smallint NOT NULL,
    PRIMARY KEY (wallet_id, version)
);

-- News on its way out: one row per group. The sequence is drawn with the wallet locks held, so for
-- one wallet its order is the order of the changes.
CREATE TABLE ledger_00.outbox (
    seq          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    created_at   timestamptz NOT NULL,
    event_count  integer NOT NULL CHECK (event_count > 0),
    events       json NOT NULL
);

-- History cannot be rewritten, not even by the role that owns it (a superuser still can; the audit
-- would tell).
REVOKE UPDATE, DELETE, TRUNCATE ON
    ledger_00.transfers, ledger_00.wallet_changes, transferd.outcomes
    FROM CURRENT_USER;
REVOKE DELETE, TRUNCATE ON ledger_00.wallets, ledger_00.currencies FROM CURRENT_USER;
