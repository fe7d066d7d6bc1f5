"""API keys, and the clients that own idempotency keys."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from transferd.domain.client import similar_name
from transferd.domain.ledger import Ledger
from transferd.ledger.store.database import Database


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A stored API key, with the SHA-256 of its token (`digest_of`) and its client's ledger."""

    client_id: int
    ledger: Ledger
    secret_sha256: bytes
    scopes: frozenset[str]
    expires_at: datetime | None
    revoked_at: datetime | None


class ListedKey(NamedTuple):
    """The columns of a key that may be shown. `last_used_at` is up to a minute late."""

    id: str
    client: str
    scopes: Sequence[str]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


class CreatedKey(NamedTuple):
    """A key, and whether its client was created with it."""

    key: ListedKey
    client_is_new: bool


class SimilarClient(NamedTuple):
    """Nothing was created: this client's name is another spelling of the one that was given."""

    name: str


async def insert_api_key(
    database: Database,
    *,
    ledger: Ledger,
    id: str,
    client: str,
    secret_sha256: bytes,
    scopes: Sequence[str],
    expires_at: datetime | None,
) -> CreatedKey | SimilarClient:
    """A new key of the ledger's client with that name, which is created with its first key."""
    async with database.transaction() as transaction:
        await transaction.fetch("lock_clients")
        rows = await transaction.fetch("client_names", ledger.number)
        names = [row["name"] for row in rows]
        is_new = client not in names
        if is_new:
            if (similar := similar_name(client, names)) is not None:
                return SimilarClient(similar)
            await transaction.fetch("insert_client", ledger.number, client)
        [row] = await transaction.fetch(
            "insert_api_key", ledger.number, client, id, secret_sha256, list(scopes), expires_at
        )
    return CreatedKey(ListedKey(*row), is_new)


async def read_api_key(database: Database, id: str) -> ApiKey | None:
    """The key with that public id, or None."""
    rows = await database.fetch("read_api_key", id)
    if not rows:
        return None
    row = rows[0]
    return ApiKey(
        row["client_id"],
        Ledger(row["number"], row["name"], row["schema"], row["cache_generation"]),
        row["secret_sha256"],
        frozenset(row["scopes"]),
        row["expires_at"],
        row["revoked_at"],
    )


async def list_api_keys(
    database: Database, *, ledger: Ledger, client: str | None
) -> list[ListedKey]:
    """The keys of a ledger, or of one of its clients, in the order of their creation."""
    rows = await database.fetch("list_api_keys", ledger.number, client)
    return [ListedKey(*row) for row in rows]


async def has_usable_api_key(database: Database) -> bool:
    """Whether any key is neither revoked nor expired, in any ledger: a replica serves all."""
    [row] = await database.fetch("has_usable_api_key")
    return bool(row["found"])


async def revoke_api_keys(database: Database, ids: Sequence[str]) -> set[str]:
    """Revoke keys; returns the ids that exist. A revoked key keeps its first time."""
    async with database.transaction() as transaction:
        rows = await transaction.fetch("revoke_api_keys", list(ids))
    return {row["id"] for row in rows}


async def record_key_uses(database: Database, used_at: Mapping[str, datetime]) -> None:
    """Store the times of the last uses of keys. An earlier time changes nothing."""
    async with database.transaction() as transaction:
        await transaction.fetch("record_key_uses", list(used_at), list(used_at.values()))
