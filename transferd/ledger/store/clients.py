"""API keys, and the clients whom idempotency keys belong to."""

from dataclasses import dataclass
from datetime import datetime

from transferd.ledger.store.database import Database


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A stored API key; of its secret only the SHA-256 is known."""

    client_id: int
    secret_sha256: bytes
    scopes: frozenset[str]
    expires_at: datetime | None
    revoked_at: datetime | None


async def read_api_key(database: Database, id: str) -> ApiKey | None:
    """The key with that public id, or None."""
    rows = await database.fetch("read_api_key", id)
    if not rows:
        return None
    row = rows[0]
    return ApiKey(
        row["client_id"],
        row["secret_sha256"],
        frozenset(row["scopes"]),
        row["expires_at"],
        row["revoked_at"],
    )
