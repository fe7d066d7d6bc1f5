"""Questions about the past of a wallet, and rules for all their answers together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import asyncpg

from tests.conftest import Database
from tests.support.api import Api, Reply

# Before every wallet.
BEGINNING = "2020-01-01T00:00:00.000000Z"


def text_of(instant: datetime) -> str:
    """An instant as the API writes it."""
    return f"{instant:%Y-%m-%dT%H:%M:%S.%fZ}"


async def clock_of(database: Database) -> datetime:
    """The time of the database now."""
    [row] = await database.fetch("SELECT clock_timestamp() AS now")
    now: datetime = row["now"]
    return now


class NoAnswer(Exception):
    """The service cannot answer now."""


async def at(api: Api, wallet: str, instant: datetime | str) -> Reply:
    """The wallet as it was before the instant. Raises NoAnswer."""
    text = instant if isinstance(instant, str) else text_of(instant)
    return _answer(await api.get(f"/wallets/{wallet}?at={text}"))


async def entries(api: Api, wallet: str, query: str = "") -> list[dict[str, Any]]:
    """All pages of a statement, newest first. Raises NoAnswer."""
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        reply = _answer(await api.get(f"/wallets/{wallet}/statement?limit=200&{query}{cursor}"))
        assert reply.status == 200, reply
        found += reply.json["data"]
        if not reply.json["has_more"]:
            return found
        cursor = f"&cursor={reply.json['next_cursor']}"


def _answer(reply: Reply) -> Reply:
    if reply.status >= 500:
        raise NoAnswer(reply)
    return reply


@asynccontextmanager
async def unfinished_change(database: Database, wallet: str) -> AsyncIterator[datetime]:
    """A writer that has drawn the time of its change and commits at the end of the block.

    Gives a later time of the database than the change has.
    """
    connection = await asyncpg.connect(database.servers.database_url(database.name, superuser=True))
    try:
        async with connection.transaction():
            await connection.execute(
                "SELECT FROM ledger_00.wallets WHERE id = $1::text::uuid FOR NO KEY UPDATE", wallet
            )
            changed_at = await connection.fetchval("SELECT clock_timestamp()")
            await connection.execute(
                "INSERT INTO ledger_00.wallet_changes (wallet_id, version, kind, status,"
                " balance_after, overdraft_limit, created_at)"
                " SELECT id, version + 1, 4, status, balance, 7, $2 FROM ledger_00.wallets"
                " WHERE id = $1::text::uuid",
                wallet,
                changed_at,
            )
            await connection.execute(
                "UPDATE ledger_00.wallets SET version = version + 1, overdraft_limit = 7,"
                " updated_at = $2 WHERE id = $1::text::uuid",
                wallet,
                changed_at,
            )
            yield await connection.fetchval("SELECT clock_timestamp()")
    finally:
        await connection.close()


@dataclass
class Said:
    """The answers about one wallet: of instants, and of windows that meet."""

    wallet: str
    instants: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    # (from, to, its entries newest first)
    windows: list[tuple[str, str, list[dict[str, Any]]]] = field(default_factory=list)

    async def faults(self, api: Api) -> list[str]:
        """The answers that differ from the current ones or contradict the whole statement."""
        found = []
        for instant, told in self.instants:
            again = await at(api, self.wallet, instant)
            if again.json != told:
                found.append(f"at {instant} was {told}, is {again.json}")
        for since, until, told_entries in self.windows:
            again_entries = await entries(api, self.wallet, f"from={since}&to={until}")
            if again_entries != told_entries:
                found.append(f"[{since}, {until}) was told otherwise")
            opening, closing = await at(api, self.wallet, since), await at(api, self.wallet, until)
            moved = sum(entry["amount"] for entry in told_entries)
            before = 0 if opening.status == 404 else opening.json["balance"]
            if before + moved != closing.json["balance"]:
                found.append(f"[{since}, {until}): {before} + {moved} != {closing.json['balance']}")
        if self.windows:
            end = self.windows[-1][1]
            seen = [entry["version"] for *_, window in self.windows for entry in window]
            there = [e["version"] for e in await entries(api, self.wallet, f"to={end}")]
            if sorted(seen) != sorted(there):
                lost, twice = set(there) - set(seen), len(seen) - len(set(seen))
                found.append(f"versions in no window: {sorted(lost)}; {twice} in two")
        return found
