"""New ledgers, and the migrations of ledgers. A ledger records its migrations in its own schema."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import asyncpg
from iso4217 import Currency

from transferd.domain.ledger import MAIN, Ledger
from transferd.domain.wallet import ChangeKind, WalletStatus
from transferd.ledger import citus
from transferd.ledger.ids import new_id
from transferd.ledger.steps import Migration, MigrationError, ledger_migrations, missing
from transferd.ledger.store.numbers import CHANGE_KIND_NUMBERS, WALLET_STATUS_NUMBERS
from transferd.ledger.store.queries import query

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

# A new schema takes about 60 locks, and PostgreSQL by default has room for 6,400.
_LEDGERS_PER_TRANSACTION = 16
_CURRENCIES = [
    (currency.code, currency.currency_name, currency.exponent)
    for currency in Currency
    if currency.exponent is not None
]


class _State(NamedTuple):
    """The applied migrations by name with their SHA-256, and whether a currency is missing."""

    applied: dict[str, str]
    lacks_currency: bool


async def ledger_numbers(connection: Connection) -> list[int]:
    """The numbers of all ledgers; empty if the database has no list of ledgers yet."""
    if await connection.fetchval("SELECT to_regclass('transferd.ledgers')") is None:
        return []
    rows = await connection.fetch("SELECT number FROM transferd.ledgers ORDER BY number")
    return [row["number"] for row in rows]


def batches(numbers: Sequence[int]) -> list[Sequence[int]]:
    """The ledgers of each transaction."""
    starts = range(0, len(numbers), _LEDGERS_PER_TRANSACTION)
    return [numbers[start : start + _LEDGERS_PER_TRANSACTION] for start in starts]


async def migrate_batch(
    connection: Connection, numbers: Sequence[int], known: Sequence[Migration]
) -> tuple[Counter[str], list[str]]:
    """Bring ledgers up to date, in the transaction of the caller.

    How many got each migration, and a sentence about each ledger that could not; the others are
    up to date all the same. Raises asyncpg.LockNotAvailableError.
    """
    rows = await connection.fetch(
        "SELECT number, name, schema FROM transferd.ledgers WHERE number = ANY ($1)", numbers
    )
    ledgers = [Ledger(*row) for row in rows]
    states = await _states(connection, ledgers)
    applied: Counter[str] = Counter()
    failures = []
    for ledger in ledgers:
        try:
            async with connection.transaction():
                applied.update(await _bring_up(connection, ledger, known, states.get(ledger)))
        except asyncpg.LockNotAvailableError:
            raise
        except (asyncpg.PostgresError, MigrationError) as error:
            failures.append(f"the ledger {ledger.name} is not up to date: {error}")
    return applied, failures


async def insert_ledger(connection: Connection, name: str, number: int | None) -> Ledger:
    """A new ledger with its tables, in the transaction of the caller. Raises MigrationError.

    Without a number it gets a random one that is free: clients see the number in their ids, and
    serial ones would tell how many ledgers there are.
    """
    if await connection.fetchval("SELECT 1 FROM transferd.ledgers WHERE name = $1", name):
        raise MigrationError(f"there is a ledger {name} already")
    if number is None:
        number = await connection.fetchval(
            "SELECT n FROM generate_series(1, 4095) AS n"
            " WHERE n NOT IN (SELECT number FROM transferd.ledgers) ORDER BY random() LIMIT 1"
        )
    if number is None:
        raise MigrationError("all 4,096 numbers of ledgers are in use")
    ledger = Ledger(number, name, f"ledger_{number:02d}")
    await connection.execute(
        "INSERT INTO transferd.ledgers (number, name, schema) VALUES ($1, $2, $3)",
        ledger.number,
        ledger.name,
        ledger.schema,
    )
    await connection.execute(f"CREATE SCHEMA {ledger.schema}")
    await _bring_up(connection, ledger, ledger_migrations(), None)
    return ledger


async def _states(connection: Connection, ledgers: Sequence[Ledger]) -> dict[Ledger, _State]:
    """The states of the ledgers, in one round trip; none if one of them cannot be read."""
    sql = " UNION ALL ".join(query(each.schema, "ledger_state") for each in ledgers)
    of_schema = {each.schema: each for each in ledgers}
    try:
        async with connection.transaction():
            rows = await connection.fetch(sql, [code for code, _, _ in _CURRENCIES])
    except asyncpg.LockNotAvailableError:
        raise
    except asyncpg.PostgresError:
        # The caller reads them one by one and so finds the one that cannot be read.
        return {}
    return {
        of_schema[row["schema"]]: _State(
            dict(zip(row["names"], row["sums"], strict=True)), row["lacks_currency"]
        )
        for row in rows
    }


async def _bring_up(
    connection: Connection, ledger: Ledger, known: Sequence[Migration], state: _State | None
) -> list[str]:
    """Apply what the ledger lacks. Without its state, which is then read, it may have no table."""
    if state is not None and not missing(known, state.applied) and not state.lacks_currency:
        return []
    await _enter(connection, ledger)
    done = await _recorded(connection) if state is None else state.applied
    applied = []
    for migration in missing(known, done):
        # The tables of main were made by migrations of the shared schema.
        if done or ledger.number != MAIN.number:
            await citus.apply(connection, migration)
            applied.append(migration.name)
        done[migration.name] = migration.sha256
        await connection.execute(
            "INSERT INTO migrations (name, sha256) VALUES ($1, $2)",
            migration.name,
            migration.sha256,
        )
    if state is None or state.lacks_currency:
        await add_currencies(connection, ledger)
    return applied


async def _recorded(connection: Connection) -> dict[str, str]:
    """The migrations of the ledger that was entered; makes their table if it is missing."""
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS migrations ("
        " name text PRIMARY KEY, sha256 text NOT NULL,"
        " applied_at timestamptz NOT NULL DEFAULT now())"
    )
    rows = await connection.fetch("SELECT name, sha256 FROM migrations")
    return {row["name"]: row["sha256"] for row in rows}


async def add_currencies(connection: Connection, ledger: Ledger) -> None:
    """Every ISO 4217 currency that has minor units, with its funding wallet at version 0."""
    await _enter(connection, ledger)
    present = {row["code"] for row in await connection.fetch("SELECT code FROM currencies")}
    absent = [(*each, new_id(ledger)) for each in _CURRENCIES if each[0] not in present]
    await connection.executemany(
        "INSERT INTO currencies (code, name, exponent, funding_wallet_id) VALUES ($1, $2, $3, $4)",
        absent,
    )
    await connection.executemany(
        "WITH wallet AS (INSERT INTO wallets (id, balance, held, overdraft_limit,"
        " version, created_at, updated_at, status, funding, currency, metadata)"
        " VALUES ($1, 0, 0, 0, 0, now(), now(), $3, true, $2, '{}') RETURNING id, created_at)"
        " INSERT INTO wallet_changes (wallet_id, version, created_at, balance_after,"
        " overdraft_limit, kind, status) SELECT id, 0, created_at, 0, 0, $4::smallint, $3"
        " FROM wallet",
        [
            (
                wallet_id,
                code,
                WALLET_STATUS_NUMBERS[WalletStatus.ACTIVE],
                CHANGE_KIND_NUMBERS[ChangeKind.CREATED],
            )
            for code, _, _, wallet_id in absent
        ],
    )


async def _enter(connection: Connection, ledger: Ledger) -> None:
    """Let names without a schema mean the ledger's tables until the transaction ends."""
    await connection.execute(f"SET LOCAL search_path TO {ledger.schema}")
