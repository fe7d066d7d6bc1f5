"""Checks of the ledger in PostgreSQL, without the service."""

from tests.conftest import Database
from tests.support.store import open_main
from transferd.config import Limits
from transferd.ledger.audit import Finding, Progress, audit


async def faults_in(
    database: Database, limits: Limits | None = None, progress: Progress = lambda *_: None
) -> list[Finding]:
    """The findings of the audit, run with the role of the service; empty if there are none."""
    async with open_main(database.settings()) as store:
        return await audit(store, progress, limits)


async def transfers_of(database: Database, *references: str) -> dict[str, int]:
    """The number of transfers by reference; references without a transfer are left out."""
    rows = await database.fetch(
        "SELECT reference, count(*) AS count FROM ledger_00.transfers"
        " WHERE reference = ANY ($1::text[]) GROUP BY reference",
        list(references),
    )
    return {row["reference"]: row["count"] for row in rows}


async def row_count(database: Database, table: str) -> int:
    """The number of rows of a table."""
    [row] = await database.fetch(f"SELECT count(*) FROM {table}")
    count: int = row[0]
    return count
