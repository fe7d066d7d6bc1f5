"""Reads of past balances and statements, and a change that is not committed yet."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import asyncpg

from tests.conftest import Database
from tests.support.api import Api, Reply


def text_of(instant: datetime) -> str:
    """An instant as the API writes it."""
    return f"{instant:%Y-%m-%dT%H:%M:%S.%fZ}"


async def clock_of(database: Database) -> datetime:
    """The current time of the database."""
    [row] = await database.fetch("SELECT clock_timestamp() AS now")
    now: datetime = row["now"]
    return now


async def at(api: Api, wallet: str, instant: datetime | str) -> Reply:
    """The wallet as it was before the instant."""
    text = instant if isinstance(instant, str) else text_of(instant)
    return await api.get(f"/wallets/{wallet}?at={text}")


async def entries(api: Api, wallet: str, query: str = "") -> list[dict[str, Any]]:
    """All pages of a statement, newest first."""
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        reply = await api.get(f"/wallets/{wallet}/statement?limit=200&{query}{cursor}")
        assert reply.status == 200, reply
        found += reply.json["data"]
        if not reply.json["has_more"]:
            return found
        cursor = f"&cursor={reply.json['next_cursor']}"


@asynccontextmanager
async def unfinished_change(database: Database, wallet: str) -> AsyncIterator[datetime]:
    """A change whose time is fixed, and which commits when the block ends.

    Yields a time of the database after that of the change.
    """
    connection = await asyncpg.connect(database.servers.database_url(database.name, superuser=True))
    try:
        async with connection.transaction():
            await connection.execute(
                database.in_ledger(
                    "SELECT FROM ledger_00.wallets WHERE id = $1::text::uuid FOR NO KEY UPDATE"
                ),
                wallet,
            )
            changed_at = await connection.fetchval("SELECT clock_timestamp()")
            await connection.execute(
                database.in_ledger(
                    "INSERT INTO ledger_00.wallet_changes (wallet_id, version, kind, status,"
                    " balance_after, overdraft_limit, created_at)"
                    " SELECT id, version + 1, 4, status, balance, 7, $2 FROM ledger_00.wallets"
                    " WHERE id = $1::text::uuid"
                ),
                wallet,
                changed_at,
            )
            await connection.execute(
                database.in_ledger(
                    "UPDATE ledger_00.wallets SET version = version + 1, overdraft_limit = 7,"
                    " updated_at = $2 WHERE id = $1::text::uuid"
                ),
                wallet,
                changed_at,
            )
            yield await connection.fetchval("SELECT clock_timestamp()")
    finally:
        await connection.close()
