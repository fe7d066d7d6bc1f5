-- Webhooks keep their promises: each secret signs until its time, and the events of a disabled webhook are in
-- its log.

-- -1: skipped, because the endpoint was disabled. The version before reads it as dead (-1 is the last of the
-- four that it knows), shows it and does not send it. Not validated: all rows have passed the narrower check,
-- and a scan of the log would make workers wait.
ALTER TABLE transferd.deliveries
    DROP CONSTRAINT deliveries_status_check,
    ADD CONSTRAINT deliveries_status_check CHECK (status BETWEEN -1 AND 3) NOT VALID;

-- Every secret that was replaced and still signs, newest first, with the end of each. `previous_secret` is
-- written as before: a worker of the version before signs with it, and a replica of that version writes only it.
-- So a secret in there may be missing here; but none that is here is lost by what such a replica does.
ALTER TABLE transferd.webhooks
    ADD COLUMN old_secrets text[] NOT NULL DEFAULT '{}',
    ADD COLUMN old_secrets_until timestamptz[] NOT NULL DEFAULT '{}',
    ADD CONSTRAINT webhooks_old_secrets_check
        CHECK (cardinality(old_secrets) = cardinality(old_secrets_until));
UPDATE transferd.webhooks
SET old_secrets = ARRAY[previous_secret], old_secrets_until = ARRAY[previous_secret_until]
WHERE previous_secret_until > now();
