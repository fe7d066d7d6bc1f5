"""The baseline: one row-locking transaction per request.

It does the same work as the service on the same tables and indexes: claim and replay in Redis, a
durable outcome, balances with versions, the transfer, the outbox, and deleted snapshots of both
wallets. Like the service it reads TRANSFERD_PORT, TRANSFERD_DATABASE_URL and TRANSFERD_REDIS_URL.
"""

import hashlib
import os
from typing import Any

import asyncpg
import orjson
import uvloop
from aiohttp import web
from redis.asyncio import Redis

from loadtest.bench.ceiling import serve
from transferd.domain.ledger import MAIN
from transferd.ledger.ids import new_id
from transferd.web.schemas import NewTransfer

# On two cores more connections do not raise the throughput.
_CONNECTIONS = 20
_CLIENT = 1
# Connections to Redis. All requests in flight may use Redis at the same time.
_REDIS_CONNECTIONS_MAX = 1024

_KEEP = """
INSERT INTO ledger_00.outcomes
    (client_id, key, fingerprint, status, render_version, transfer_id, created_at)
VALUES ($1, $2, $3, 201, 1, $4, now()) ON CONFLICT DO NOTHING RETURNING 1"""
_LOCK = """
SELECT id::text, currency, balance, overdraft_limit, status, funding, version
FROM ledger_00.wallets WHERE id = ANY ($1::uuid[]) ORDER BY id FOR NO KEY UPDATE"""
_POST = """
INSERT INTO ledger_00.transfers
    (id, kind, source_wallet_id, destination_wallet_id, amount, currency, source_version,
     source_balance_after, destination_version, destination_balance_after, created_at)
VALUES ($1, 0, $2, $3, $4, $5, $6, $7, $8, $9, now())"""
_MOVE = """
UPDATE ledger_00.wallets SET balance = $2, version = $3, updated_at = now() WHERE id = $1"""
_SEND = "INSERT INTO ledger_00.outbox (created_at, event_count, events) VALUES (now(), 1, $1)"


class Baseline:
    """The handler with its connections to PostgreSQL and Redis."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", redis: Redis) -> None:
        self._pool = pool
        self._redis = redis

    async def transfer(self, request: web.Request) -> web.Response:
        raw = await request.read()
        body = NewTransfer.model_validate_json(raw)
        key = request.headers["Idempotency-Key"]
        fingerprint = hashlib.blake2b(raw, digest_size=16).digest()
        redis_key = f"base:{key}"
        if not await self._redis.set(redis_key, b"claimed", nx=True, px=3000):
            replay = await self._redis.get(redis_key)
            if replay is not None and replay != b"claimed":
                return web.Response(status=201, body=replay, content_type="application/json")
            return web.Response(status=409)
        status, answer = await self._commit(body, key, fingerprint)
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.set(redis_key, answer, ex=24 * 3600)
            pipeline.delete(f"w:{body.source_wallet_id}", f"w:{body.destination_wallet_id}")
            await pipeline.execute()
        return web.Response(status=status, body=answer, content_type="application/json")

    async def _commit(self, body: NewTransfer, key: str, fingerprint: bytes) -> tuple[int, bytes]:
        id = new_id(MAIN)
        async with self._pool.acquire() as connection, connection.transaction():
            if not await connection.fetchval(_KEEP, _CLIENT, key, fingerprint, id):
                return 409, b"{}"
            rows = await connection.fetch(
                _LOCK, [body.source_wallet_id, body.destination_wallet_id]
            )
            wallets = {row["id"]: row for row in rows}
            source = wallets[body.source_wallet_id]
            destination = wallets[body.destination_wallet_id]
            if source["balance"] + source["overdraft_limit"] < body.amount:
                return 422, b"{}"
            source_after = source["balance"] - body.amount
            destination_after = destination["balance"] + body.amount
            await connection.execute(
                _POST,
                id,
                body.source_wallet_id,
                body.destination_wallet_id,
                body.amount,
                body.currency,
                source["version"] + 1,
                source_after,
                destination["version"] + 1,
                destination_after,
            )
            await connection.execute(_MOVE, source["id"], source_after, source["version"] + 1)
            await connection.execute(
                _MOVE, destination["id"], destination_after, destination["version"] + 1
            )
            answer = orjson.dumps(_view(id, body, source["version"] + 1, source_after))
            await connection.execute(_SEND, answer.decode())
        return 201, answer


def _view(id: str, body: NewTransfer, version: int, balance: int) -> dict[str, Any]:
    return {
        "id": id,
        **body.model_dump(),
        "status": "posted",
        "source_version": version,
        "source_balance_after": balance,
    }


async def _healthz(_: web.Request) -> web.Response:
    return web.Response()


async def main() -> None:
    """Serve until killed."""
    url = os.environ["TRANSFERD_DATABASE_URL"]
    pool = await asyncpg.create_pool(url, min_size=_CONNECTIONS, max_size=_CONNECTIONS)
    baseline = Baseline(
        pool,
        Redis.from_url(os.environ["TRANSFERD_REDIS_URL"], max_connections=_REDIS_CONNECTIONS_MAX),
    )
    application = web.Application()
    application.router.add_post("/transfers", baseline.transfer)
    application.router.add_get("/healthz", _healthz)
    await serve(application)


if __name__ == "__main__":
    uvloop.run(main())
