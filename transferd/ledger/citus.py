"""Citus places the schema of each ledger on a node. The shared schema is on the coordinator."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeAlias

import asyncpg

from transferd.domain.ledger import Ledger
from transferd.ledger.steps import Migration, MigrationError
from transferd.ledger.store.database import Database, LedgerDatabase
from transferd.ledger.store.placement import Node
from transferd.ledger.store.queries import query

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Work: TypeAlias = Callable[[Connection], Awaitable[None]]

_FILE = "citus.sql"


def sql(name: str, schema: str = "transferd") -> str:
    """The query `name` of citus.sql about a schema."""
    return query(schema, name, _FILE)


async def is_present(connection: Connection) -> bool:
    """Whether the database has the extension."""
    return bool(await connection.fetchval(sql("has_citus")))


async def lift_limits(connection: Connection) -> None:
    """Let the rest of this transaction take any time, on all nodes.

    Nodes connect to each other as the role of the service, whose limits are for short transactions.
    """
    # Without Citus the first one is an unknown setting that has no effect.
    await connection.execute("SET LOCAL citus.propagate_set_commands = 'local'")
    for limit in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
        await connection.execute(f"SET LOCAL {limit} = 0")


async def apply(connection: Connection, migration: Migration) -> None:
    """Run a migration in the transaction of the caller."""
    if await is_present(connection):
        # Citus refuses several definitions in one message.
        for statement in migration.statements():
            await connection.execute(statement)
    else:
        await connection.execute(migration.sql)


async def work_to_do(connection: Connection) -> list[Work]:
    """What Citus needs after migrations, each a transaction of its own; nothing without Citus."""
    if not await is_present(connection):
        return []
    steps: list[Work] = [limit_visibility]
    for row in await connection.fetch(sql("undistributed")):
        steps.append(partial(_distribute, ledger=Ledger(*row)))
        steps.append(partial(_drop_local_copies, schema=row["schema"]))
    # Left by a run that was interrupted.
    steps.extend(
        partial(_drop_local_copies, schema=schema)
        for schema in {row["schema"] for row in await connection.fetch(sql("local_copies"), None)}
    )
    damaged = await connection.fetch(sql("damaged"))
    steps.extend(partial(repair, schema=row["schema"]) for row in damaged)
    return steps


async def distribute_new(connection: Connection, ledger: Ledger) -> None:
    """Place a ledger that this transaction has made. Nothing is done without Citus."""
    if await is_present(connection):
        await _distribute(connection, ledger)
        await _drop_local_copies(connection, ledger.schema)


async def limit_visibility(connection: Connection) -> None:
    """Show the tables of other nodes only to this program: to hide them from it takes seconds."""
    role = (await connection.fetch(sql("role_limit")))[0]["role"]
    await connection.execute(
        f"ALTER ROLE {role} SET citus.show_shards_for_app_name_prefixes = 'transferd'"
    )


async def repair(connection: Connection, schema: str) -> None:
    """Give the node of a ledger the rights and options that the coordinator's tables have."""
    for row in await connection.fetch(sql("repairs", schema)):
        await connection.execute(row["statement"])


async def _distribute(connection: Connection, ledger: Ledger) -> None:
    schema = ledger.schema
    try:
        async with _right_to_truncate(connection, schema):
            await connection.execute(sql("lock_tables", schema))
            await connection.execute(sql("distribute", schema))
    except asyncpg.LockNotAvailableError:
        raise
    except asyncpg.PostgresError as error:
        raise MigrationError(f"Citus does not place the ledger {ledger.name}: {error}") from error


async def _drop_local_copies(connection: Connection, schema: str) -> None:
    copies = await connection.fetch(sql("local_copies"), schema)
    if not copies:
        return
    async with _right_to_truncate(connection, schema):
        for row in copies:
            await connection.fetch(sql("drop_local_copy"), f"{schema}.{row['table_name']}")


@asynccontextmanager
async def _right_to_truncate(connection: Connection, schema: str) -> AsyncIterator[None]:
    """Have the right on each table of the schema that the role has given up, until the block ends.

    It is what a lock against writers needs. No other transaction sees that the role has it.
    """
    repairs = await connection.fetch(sql("repairs", schema))
    await connection.execute(f"GRANT TRUNCATE ON ALL TABLES IN SCHEMA {schema} TO CURRENT_USER")
    yield
    # Last, because Citus gives the rights back to a node that gets the tables.
    for row in repairs:
        await connection.execute(row["statement"])


async def placements(database: Database) -> dict[str, Node | None]:
    """The node of each ledger by its schema; None is the coordinator. Empty without Citus.

    Raises StoreError.
    """
    if not (await database.read(sql("has_citus"), ()))[0]["found"]:
        return {}
    return {
        row["schema"]: None if row["is_coordinator"] else Node(row["host"], row["port"])
        for row in await database.read(sql("placements"), ())
    }


async def sizes(database: Database) -> dict[str, int]:
    """Bytes on disk of each distributed ledger, by its schema. Needs Citus. Raises StoreError."""
    return {row["schema"]: row["bytes"] for row in await database.read(sql("sizes"), ())}


async def rights_too_many(database: LedgerDatabase, *, query_timeout_s: float) -> list[str]:
    """Rights to change history, such as "UPDATE on transfers", that the service must not have.

    Also without Citus. Raises StoreError.
    """
    async with database.snapshot(file=_FILE, query_timeout_s=query_timeout_s) as view:
        rows = await view.fetch("rights_too_many")
    return [f"{row['privilege']} on {row['table_name']}" for row in rows]
