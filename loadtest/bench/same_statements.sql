-- pgbench: a transfer as one SQL transaction: its outcome, row locks, both balances, the transfer and
-- its event. Wallets are numbered from 1 to :wallets.
\set a random(1, :wallets)
\set b 1 + (:a + random(0, :wallets - 2)) % :wallets
BEGIN;
INSERT INTO ledger_00.outcomes (client_id, key, fingerprint, status, render_version, transfer_id, created_at) VALUES (1, gen_random_uuid()::text, '\x00112233445566778899aabbccddeeff', 201, 1, gen_random_uuid(), now()) ON CONFLICT DO NOTHING;
SELECT id, balance, version, status FROM ledger_00.wallets WHERE id IN (('00000000-0000-7000-8000-' || lpad(to_hex(:a::bigint), 12, '0'))::uuid, ('00000000-0000-7000-8000-' || lpad(to_hex(:b::bigint), 12, '0'))::uuid) ORDER BY id FOR NO KEY UPDATE;
WITH source AS (UPDATE ledger_00.wallets SET balance = balance - 1, version = version + 1, updated_at = now() WHERE id = ('00000000-0000-7000-8000-' || lpad(to_hex(:a::bigint), 12, '0'))::uuid RETURNING id, version, balance), destination AS (UPDATE ledger_00.wallets SET balance = balance + 1, version = version + 1, updated_at = now() WHERE id = ('00000000-0000-7000-8000-' || lpad(to_hex(:b::bigint), 12, '0'))::uuid RETURNING id, version, balance) INSERT INTO ledger_00.transfers (id, kind, source_wallet_id, destination_wallet_id, amount, currency, source_version, source_balance_after, destination_version, destination_balance_after, created_at) SELECT gen_random_uuid(), 0, s.id, d.id, 1, 'USD', s.version, s.balance, d.version, d.balance, now() FROM source s, destination d;
INSERT INTO ledger_00.outbox (created_at, event_count, events) VALUES (now(), 1, '[{"id": "00000000-0000-7000-8000-000000000000", "type": "transfer.posted", "time": "2030-01-01T00:00:00.000000Z", "data": {"amount": 1, "currency": "USD", "source_wallet_id": "00000000-0000-7000-8000-000000000000", "destination_wallet_id": "00000000-0000-7000-8000-000000000000"}}]');
COMMIT;
