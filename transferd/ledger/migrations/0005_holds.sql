-- Holds: money of a wallet that is reserved for a later payment.

-- A row is changed only by a transaction that has locked the wallet that pays. `released` is what the end of the
-- hold gave back; a hold that has ended reserves nothing.
CREATE TABLE ledger_00.holds (
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
CREATE INDEX holds_by_wallet ON ledger_00.holds (source_wallet_id, id);
-- The active holds of a wallet that are due, and those of all wallets.
CREATE INDEX holds_active_by_wallet ON ledger_00.holds (source_wallet_id, expires_at) WHERE status = 0;
CREATE INDEX holds_active ON ledger_00.holds (expires_at) WHERE status = 0;
REVOKE DELETE, TRUNCATE ON ledger_00.holds FROM CURRENT_USER;

-- Groups lock these tables in this order, so the exclusive locks cannot deadlock with them. A read of an event stream
-- of the version before can: PostgreSQL ends that read after a second, and the stream reads again. No row is
-- rewritten or scanned: the new columns have constant defaults, and the new checks hold for all rows.

-- `hold_expires_at` is a lower bound of the expiries of the wallet's active holds; `open_holds` is their number.
ALTER TABLE ledger_00.wallets
    ADD COLUMN hold_expires_at timestamptz,
    ADD COLUMN open_holds integer NOT NULL DEFAULT 0,
    ADD CONSTRAINT wallets_open_holds_check CHECK (open_holds >= 0) NOT VALID;

ALTER TABLE ledger_00.transfers
    ADD COLUMN hold_id uuid,
    DROP CONSTRAINT transfers_kind_check,
    ADD CONSTRAINT transfers_kind_check CHECK (kind BETWEEN 0 AND 2) NOT VALID,
    ADD CONSTRAINT transfers_hold_check CHECK ((kind = 2) = (hold_id IS NOT NULL)) NOT VALID;

-- `held_after` is null in rows of the version before: the change left it as it was. The columns `hold_...` are the
-- state of a hold after a change of it, and null in other rows.
ALTER TABLE ledger_00.wallet_changes
    ADD COLUMN held_after bigint,
    ADD COLUMN hold_id uuid,
    ADD COLUMN hold_amount bigint,
    ADD COLUMN hold_captured bigint,
    ADD COLUMN hold_released bigint,
    ADD COLUMN hold_expires_at timestamptz,
    ADD COLUMN hold_status smallint,
    DROP CONSTRAINT wallet_changes_kind_check,
    ADD CONSTRAINT wallet_changes_kind_check CHECK (kind BETWEEN 0 AND 9) NOT VALID,
    ADD CONSTRAINT wallet_changes_hold_check CHECK ((kind >= 5) = (hold_id IS NOT NULL)) NOT VALID;

-- One replica at a time looks for holds that are due.
INSERT INTO transferd.relay_leases (ledger) VALUES ('ledger_00/expiry');
