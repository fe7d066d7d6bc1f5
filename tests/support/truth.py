"""What PostgreSQL itself says of the money, whatever the service believes."""

from tests.conftest import Database


async def faults_in(database: Database) -> list[str]:
    """One line for each wallet or currency whose books do not add up; empty if all is well."""
    sums = await database.fetch(
        "SELECT currency, sum(balance)::bigint AS total FROM ledger_00.wallets"
        " GROUP BY currency HAVING sum(balance) <> 0"
    )
    wallets = await database.fetch(
        """
        SELECT w.id, w.balance, w.version, coalesce(sum(e.amount), 0)::bigint AS moved,
               count(e.version) AS changes, count(DISTINCT e.version) AS versions
        FROM ledger_00.wallets w
        LEFT JOIN (
            SELECT source_wallet_id AS id, -amount AS amount, source_version AS version
            FROM ledger_00.transfers
            UNION ALL
            SELECT destination_wallet_id, amount, destination_version FROM ledger_00.transfers
            UNION ALL
            SELECT wallet_id, 0, version FROM ledger_00.wallet_changes WHERE version > 0
        ) e ON e.id = w.id
        GROUP BY w.id
        HAVING w.balance <> coalesce(sum(e.amount), 0) OR w.version <> count(e.version)
            OR count(e.version) <> count(DISTINCT e.version)
        """
    )
    return [f"{row['currency']} adds up to {row['total']}" for row in sums] + [
        f"wallet {row['id']} has {row['balance']} at version {row['version']}, but"
        f" {row['moved']} in {row['changes']} changes of {row['versions']} versions"
        for row in wallets
    ]


async def transfers_of(database: Database, *references: str) -> dict[str, int]:
    """How many transfers carry each of these references; those with none are missing."""
    rows = await database.fetch(
        "SELECT reference, count(*) AS count FROM ledger_00.transfers"
        " WHERE reference = ANY ($1::text[]) GROUP BY reference",
        list(references),
    )
    return {row["reference"]: row["count"] for row in rows}


async def row_count(database: Database, table: str) -> int:
    """How many rows a table has."""
    [row] = await database.fetch(f"SELECT count(*) FROM {table}")
    count: int = row[0]
    return count
