-- Every ledger has a schema with all of its tables. The shared schema keeps the list of ledgers, the clients and
-- their keys. What the database had until now becomes the ledger `main`.

-- `schema` is where the tables are: nothing derives it from the number. The number is in the ids of the ledger, which
-- its clients see, so a new ledger gets a random one. A raised `cache_generation` makes replicas forget what Redis has.
CREATE TABLE transferd.ledgers (
    number            integer PRIMARY KEY CHECK (number BETWEEN 0 AND 4095),
    name              text NOT NULL UNIQUE CHECK (name ~ '^[a-z][a-z0-9-]{0,39}$'),
    schema            text NOT NULL UNIQUE,
    cache_generation  integer NOT NULL DEFAULT 0,
    created_at        timestamptz NOT NULL DEFAULT now()
);
INSERT INTO transferd.ledgers (number, name, schema) VALUES (0, 'main', 'ledger_00');

-- A client has one ledger for ever. Clients of different ledgers may have the same name.
ALTER TABLE transferd.clients
    ADD COLUMN ledger_number integer NOT NULL DEFAULT 0 REFERENCES transferd.ledgers (number),
    DROP CONSTRAINT clients_name_key,
    ADD CONSTRAINT clients_ledger_number_name_key UNIQUE (ledger_number, name);

-- Only the catalog changes. Indexes, constraints, statistics, options and privileges move with their table. A group
-- locks outcomes in its first statement, so the first line waits for the running groups, and new ones wait for it.
ALTER TABLE transferd.outcomes SET SCHEMA ledger_00;
ALTER TABLE transferd.users SET SCHEMA ledger_00;
ALTER TABLE transferd.webhooks SET SCHEMA ledger_00;
ALTER TABLE transferd.webhooks_version SET SCHEMA ledger_00;
ALTER TABLE transferd.deliveries SET SCHEMA ledger_00;
ALTER TABLE transferd.relay_leases SET SCHEMA ledger_00;
ALTER TABLE transferd.dead_letters SET SCHEMA ledger_00;

-- For processes of the version before, until the next version. PostgreSQL passes reads, writes, ON CONFLICT and row
-- locks through to the tables. A view has no `ctid`, so their workers remove no old deliveries. A sequence cannot have a
-- view, so transferd.delivery_numbers stays for their relays.
CREATE VIEW transferd.users AS SELECT * FROM ledger_00.users;
CREATE VIEW transferd.outcomes AS SELECT * FROM ledger_00.outcomes;
CREATE VIEW transferd.webhooks AS SELECT * FROM ledger_00.webhooks;
CREATE VIEW transferd.webhooks_version AS SELECT * FROM ledger_00.webhooks_version;
CREATE VIEW transferd.deliveries AS SELECT * FROM ledger_00.deliveries;
CREATE VIEW transferd.relay_leases AS SELECT * FROM ledger_00.relay_leases;
CREATE VIEW transferd.dead_letters AS SELECT * FROM ledger_00.dead_letters;

-- Deliveries are numbered in their lease, which the relay has locked.
ALTER TABLE ledger_00.relay_leases ADD COLUMN delivery_number bigint NOT NULL DEFAULT 0;
UPDATE ledger_00.relay_leases
SET delivery_number = (SELECT last_value FROM transferd.delivery_numbers)
WHERE ledger = 'ledger_00';
