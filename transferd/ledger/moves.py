"""Moves a ledger to another node of Citus, which copies its tables."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import asyncpg

from transferd.config import Limits, Settings
from transferd.domain.ledger import Ledger
from transferd.ledger.citus import Connection, is_present, repair, sql
from transferd.ledger.steps import LOCK, MigrationError
from transferd.ledger.store.errors import translated
from transferd.ledger.store.placement import Node
from transferd.ledger.store.pools import APPLICATION_NAME
from transferd.ledger.store.queries import query


@dataclass(frozen=True, slots=True)
class Move:
    """A move that can begin. `size` is in bytes."""

    ledger: Ledger
    source: Node
    target: Node
    size: int


@dataclass(frozen=True, slots=True)
class Moved:
    """What a move took: its duration, and the longest time for which a write waited."""

    took_s: float
    write_waited_s: float


class Mover:
    """Moves a ledger with one connection, which must not go through a pooler; `opened` makes it."""

    def __init__(self, settings: Settings, limits: Limits, connection: Connection) -> None:
        self._settings = settings
        self._limits = limits
        self._connection = connection

    async def plan(self, name: str, node: str) -> Move:
        """A move of the ledger `name` to a node, which is "HOST:PORT", or HOST if that is enough.

        Raises MigrationError if it cannot begin, and StoreError.
        """
        with translated():
            return await self._plan(name, node)

    async def run(
        self, move: Move, *, block_writes: bool, report: Callable[[int, int], None]
    ) -> Moved:
        """Move the ledger; `report` gets the bytes that are copied, and all bytes.

        With `block_writes` writes of the ledger wait until the end. Raises StoreError. A move that
        was cut short leaves the ledger where it was, and a process that was killed leaves the role
        without its limit and perhaps the node with too many rights: `transferd migrate` sets them.
        """
        with translated():
            async with self._without_limit(), AsyncExitStack() as stack:
                # Sessions that began before have the limit, as have their sessions on other nodes.
                mover, writer, watcher = [
                    await stack.enter_async_context(_connected(self._settings, self._limits))
                    for _ in range(3)
                ]
                waits = _Waits(writer, move.ledger.schema)
                copied = _watched(watcher, self._limits, report)
                tasks = [asyncio.create_task(each) for each in (waits.measure(), copied)]
                started = time.monotonic()
                try:
                    await mover.fetch(
                        sql("move"),
                        move.ledger.schema,
                        *move.target,
                        "block_writes" if block_writes else "force_logical",
                    )
                finally:
                    took_s = time.monotonic() - started
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)
                    await repair(self._connection, move.ledger.schema)
        return Moved(took_s, waits.longest_s)

    async def _plan(self, name: str, node: str) -> Move:
        if not await is_present(self._connection):
            raise MigrationError(
                "the database has no extension citus, so its ledgers have no other node"
            )
        if not await self._connection.fetchval("SELECT pg_try_advisory_lock($1)", LOCK):
            raise MigrationError("a migration or another move is running: try again after it")
        row = await self._connection.fetchrow(query("transferd", "read_ledger", "shared.sql"), name)
        if row is None:
            raise MigrationError(f"there is no ledger {name}")
        ledger = Ledger(*row)
        found = await self._connection.fetch(sql("placements"))
        places = {row["schema"]: Node(row["host"], row["port"]) for row in found}
        if ledger.schema not in places:
            raise MigrationError(f"the ledger {name} has no node yet: run `transferd migrate`")
        target = _named(node, [Node(*row) for row in await self._connection.fetch(sql("nodes"))])
        if target == places[ledger.schema]:
            raise MigrationError(f"the ledger {name} is on {target} already")
        size = await self._connection.fetchval(sql("size", ledger.schema))
        return Move(ledger, places[ledger.schema], target, size)

    @asynccontextmanager
    async def _without_limit(self) -> AsyncIterator[None]:
        """Without the role's limit on statements: nodes connect to each other as this role."""
        [row] = await self._connection.fetch(sql("role_limit"))
        role, limit = row["role"], row["limit_of_role"]
        await self._connection.execute(f"ALTER ROLE {role} SET statement_timeout = 0")
        try:
            yield
        finally:
            await self._connection.execute(
                f"ALTER ROLE {role} RESET statement_timeout"
                if limit is None
                else f"ALTER ROLE {role} SET statement_timeout = '{limit}'"
            )


class _Waits:
    """Writes to a ledger again and again, without changing it; the longest time that took."""

    def __init__(self, connection: Connection, schema: str) -> None:
        self._connection = connection
        self._sql = sql("write_nothing", schema)
        self.longest_s = 0.0

    async def measure(self) -> None:
        for limit in ("statement_timeout", "lock_timeout"):
            await self._connection.execute(f"SET {limit} = 0")
        while True:
            started = time.monotonic()
            try:
                await self._connection.execute(self._sql)
            finally:
                self.longest_s = max(self.longest_s, time.monotonic() - started)
            await asyncio.sleep(0.02)


@asynccontextmanager
async def opened(settings: Settings, limits: Limits) -> AsyncIterator[Mover]:
    """Connected. Raises StoreError."""
    with translated():
        async with _connected(settings, limits) as connection:
            # Otherwise the move would end with the limit that it takes from others.
            await connection.execute("SET statement_timeout = 0")
            yield Mover(settings, limits, connection)


@asynccontextmanager
async def _connected(settings: Settings, limits: Limits) -> AsyncIterator[Connection]:
    password = settings.database_password
    connection = await asyncpg.connect(
        settings.required("database_url"),
        password=password.get_secret_value() if password else None,
        timeout=limits.command_timeout_s,
        statement_cache_size=0,
        server_settings={"application_name": APPLICATION_NAME},
    )
    try:
        yield connection
    finally:
        await connection.close(timeout=limits.command_timeout_s)


async def _watched(
    connection: Connection, limits: Limits, report: Callable[[int, int], None]
) -> None:
    while True:
        [row] = await connection.fetch(sql("copied"))
        if row["total"]:
            report(row["done"], row["total"])
        await asyncio.sleep(limits.move_report_s)


def _named(node: str, nodes: Sequence[Node]) -> Node:
    found = [each for each in nodes if node in (str(each), each.host)]
    if len(found) != 1:
        listed = ", ".join(map(str, nodes))
        raise MigrationError(f"{node} is not the name of one node; there are {listed}")
    return found[0]
