-- The row (event, endpoint) is the one owner of a delivery's state. The relay writes it in the transaction that
-- removes the event from the outbox; messages in RabbitMQ only wake the notifier up.

-- The order in which events left the outbox: first attempts follow it. NULL in rows of the version before.
CREATE SEQUENCE transferd.delivery_numbers;

-- `failures` are the failed attempts since the delivery was last asked for; `attempts` are all. `dead_reason` is why
-- a delivery was given up. A dead row without a reason belongs to the version before, and its dead letter, if it is
-- still there, is in transferd.dead_letters. Constant defaults: no row is rewritten.
ALTER TABLE transferd.deliveries
    ADD COLUMN number bigint,
    ADD COLUMN failures integer NOT NULL DEFAULT 0,
    ADD COLUMN dead_reason text;

-- What waits for an attempt at an endpoint (pending or retrying): due at once, in order; or from its time on.
CREATE INDEX deliveries_waiting ON transferd.deliveries (endpoint_id, next_attempt_at, number)
    WHERE status IN (0, 2);
-- What was given up, oldest first, until an operator decides.
CREATE INDEX deliveries_dead ON transferd.deliveries (id) WHERE dead_reason IS NOT NULL;
