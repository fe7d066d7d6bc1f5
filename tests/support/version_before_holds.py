"""Writes a ledger as a replica of the version before holds does, with its statements.

The statements are the ones of commit d849110, with numbers in place of the names of parameters.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, NamedTuple

import asyncpg

from tests.conftest import Database
from transferd.domain.ledger import MAIN
from transferd.ledger.ids import new_id

CREATED, FREEZE, UNFREEZE, UPDATE = 0, 1, 2, 4
ACTIVE, FROZEN = 0, 1

_LOCK = """
WITH locked AS MATERIALIZED (
    SELECT id::text, balance, held, overdraft_limit, status, version, metadata::text, updated_at
    FROM ledger_00.wallets
    WHERE id = ANY ($1::uuid[])
    ORDER BY wallets.id
    FOR NO KEY UPDATE
)
SELECT locked.*, NULL::timestamptz AS at FROM locked
UNION ALL
SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, clock_timestamp()
"""
_WRITE_GROUP = """
WITH moved AS (
    INSERT INTO ledger_00.transfers (
        id, kind, source_wallet_id, destination_wallet_id, amount, currency, reference, metadata,
        source_version, source_balance_after, destination_version, destination_balance_after,
        reverses_transfer_id, created_at)
    SELECT id, kind, source, destination, amount, currency, reference, metadata::json,
           source_version, source_after, destination_version, destination_after, reverses, $1
    FROM unnest(
        $2::uuid[], $3::smallint[], $4::uuid[], $5::uuid[], $6::bigint[], $7::text[], $8::text[],
        $9::text[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::uuid[])
        AS t (id, kind, source, destination, amount, currency, reference, metadata,
              source_version, source_after, destination_version, destination_after, reverses)
), updated AS (
    UPDATE ledger_00.wallets w
    SET balance = c.balance, version = c.version, updated_at = $1
    FROM unnest($15::uuid[], $16::bigint[], $17::bigint[], $18::bigint[])
        AS c (id, version_read, version, balance)
    WHERE w.id = c.id AND w.version = c.version_read
    RETURNING 1
)
SELECT (SELECT count(*) FROM updated) AS wallets
"""
_SET_WALLETS = """
UPDATE ledger_00.wallets w
SET balance = c.balance, version = c.version, updated_at = $1, status = c.status,
    overdraft_limit = c.overdraft_limit, metadata = c.metadata::json
FROM unnest($2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[], $6::smallint[], $7::bigint[],
            $8::text[])
    AS c (id, version_read, version, balance, status, overdraft_limit, metadata)
WHERE w.id = c.id AND w.version = c.version_read
RETURNING 1
"""
_INSERT_WALLETS = """
INSERT INTO ledger_00.wallets (
    id, user_id, currency, balance, held, overdraft_limit, status, funding, version, metadata,
    created_at, updated_at)
SELECT id, user_id, currency, 0, 0, overdraft_limit, 0, false, 0, metadata::json, $1, $1
FROM unnest($2::uuid[], $3::uuid[], $4::text[], $5::bigint[], $6::text[])
    AS w (id, user_id, currency, overdraft_limit, metadata)
"""
_INSERT_WALLET_CHANGES = """
INSERT INTO ledger_00.wallet_changes (
    wallet_id, version, kind, status, balance_after, overdraft_limit, created_at)
SELECT wallet_id, version, kind, status, balance, overdraft_limit, $1
FROM unnest($2::uuid[], $3::bigint[], $4::smallint[], $5::smallint[], $6::bigint[], $7::bigint[])
    AS c (wallet_id, version, kind, status, balance, overdraft_limit)
"""
_CHANGES_AFTER = """
SELECT c.wallet_id::text, c.version, c.kind, c.status, c.balance_after, c.overdraft_limit,
       c.created_at, w.user_id::text, w.currency
FROM ledger_00.wallet_changes c
JOIN ledger_00.wallets w ON w.id = c.wallet_id
WHERE c.wallet_id = $1 AND c.version > $2
ORDER BY c.version
LIMIT $3
"""


class Refused(Exception):
    """The wallet cannot pay the amount."""


class _Wallet(NamedTuple):
    id: str
    balance: int
    held: int
    overdraft_limit: int
    status: int
    version: int
    metadata: str
    updated_at: datetime


class ReplicaBefore:
    """A replica of the version before holds; `replica_before` makes it. Each call is one group."""

    def __init__(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        self._connection = connection

    @property
    def pid(self) -> int:
        """The process of PostgreSQL that serves it."""
        return self._connection.get_server_pid()

    async def changes_after(self, wallet: str, version: int) -> int:
        """The number of changes of a wallet after a version, as its event stream reads them."""
        return len(await self._connection.fetch(_CHANGES_AFTER, wallet, version, 100))

    async def create_wallet(self, balance: int = 0, overdraft_limit: int = 0) -> str:
        """The id of a new wallet in USD, with an initial balance."""
        id, user = new_id(MAIN), new_id(MAIN)
        funding = await self._connection.fetchval(
            "SELECT funding_wallet_id::text FROM ledger_00.currencies WHERE code = 'USD'"
        )
        async with self._connection.transaction():
            wallets, at = await self._lock(funding)
            await self._connection.execute(
                "INSERT INTO transferd.users (id, name, metadata, created_at)"
                " VALUES ($1, NULL, '{}', $2)",
                user,
                at,
            )
            await self._connection.fetch(
                _INSERT_WALLETS, at, [id], [user], ["USD"], [overdraft_limit], ["{}"]
            )
            if balance:
                wallets[id] = _Wallet(id, 0, 0, overdraft_limit, ACTIVE, 0, "{}", at)
                await self._post(at, wallets[funding], wallets[id], balance)
            row = [[id], [0], [CREATED], [ACTIVE], [0], [overdraft_limit]]
            await self._connection.fetch(_INSERT_WALLET_CHANGES, at, *row)
        return id

    async def transfer(self, source: str, destination: str, amount: int) -> datetime:
        """Post a transfer; returns its time. Raises Refused if the source lacks the money."""
        async with self._connection.transaction():
            wallets, at = await self._lock(source, destination)
            payer = wallets[source]
            if amount > payer.balance - payer.held + payer.overdraft_limit:
                raise Refused
            await self._post(at, payer, wallets[destination], amount)
        return at

    async def change(
        self, wallet: str, kind: int, *, status: int = ACTIVE, overdraft_limit: int = 0
    ) -> datetime:
        """Freeze, unfreeze or update a wallet; returns the time of the change."""
        async with self._connection.transaction():
            wallets, at = await self._lock(wallet)
            before = wallets[wallet]
            version, rest = before.version + 1, [[status], [overdraft_limit]]
            rows = await self._connection.fetch(
                _SET_WALLETS,
                at,
                [wallet],
                [before.version],
                [version],
                [before.balance],
                *rest,
                [before.metadata],
            )
            assert len(rows) == 1
            row = [[wallet], [version], [kind], [status], [before.balance], [overdraft_limit]]
            await self._connection.fetch(_INSERT_WALLET_CHANGES, at, *row)
        return at

    async def _lock(self, *ids: str) -> tuple[dict[str, _Wallet], datetime]:
        *rows, last = await self._connection.fetch(_LOCK, list(ids))
        wallets = {row["id"]: _Wallet(*list(row)[:-1]) for row in rows}
        at = max([last["at"], *(wallet.updated_at for wallet in wallets.values())])
        return wallets, at

    async def _post(self, at: datetime, source: _Wallet, destination: _Wallet, amount: int) -> None:
        after = (
            (source, source.balance - amount),
            (destination, destination.balance + amount),
        )
        transfer: list[list[Any]] = [[new_id(MAIN)], [0], [source.id], [destination.id], [amount]]
        transfer += [["USD"], [None], [None]]
        transfer += [
            [number] for wallet, balance in after for number in (wallet.version + 1, balance)
        ]
        [row] = await self._connection.fetch(
            _WRITE_GROUP,
            at,
            *transfer,
            [None],
            [wallet.id for wallet, _ in after],
            [wallet.version for wallet, _ in after],
            [wallet.version + 1 for wallet, _ in after],
            [balance for _, balance in after],
        )
        assert row["wallets"] == 2


@asynccontextmanager
async def replica_before(database: Database) -> AsyncIterator[ReplicaBefore]:
    """A replica of the version before holds, on one connection with the role of the service."""
    settings = database.settings()
    connection = await asyncpg.connect(
        settings.required("database_url"),
        statement_cache_size=100 if settings.prepared_statements else 0,
    )
    try:
        yield ReplicaBefore(connection)
    finally:
        await connection.close()
