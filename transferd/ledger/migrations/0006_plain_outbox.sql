-- A row of the outbox lives for a moment and consists mostly of random ids, so compressing it costs a fifth of the
-- time of a group and saves nothing.
ALTER TABLE ledger_00.outbox ALTER COLUMN events SET STORAGE EXTERNAL;
