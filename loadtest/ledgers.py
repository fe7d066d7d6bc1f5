"""Ledgers for load, each with a client of the same name and its API key."""

import secrets
from typing import NamedTuple

from transferd.config import load_settings
from transferd.domain.api_key import ADMIN, digest_of, token_of
from transferd.domain.ledger import MAIN, Ledger
from transferd.ledger.migrate import create_ledger
from transferd.ledger.store.clients import SimilarClient, insert_api_key
from transferd.ledger.store.database import Database

_CLIENT = "load"


class KeyedLedger(NamedTuple):
    """A ledger, and the token of a key with scope admin of its client."""

    ledger: Ledger
    token: str

    @property
    def headers(self) -> dict[str, str]:
        """The header of its client's requests."""
        return {"Authorization": f"Bearer {self.token}"}


async def make_ledgers(database_url: str, limits: str, count: int) -> list[KeyedLedger]:
    """`main` and new ledgers `load-2`, `load-3` and so on, `count` in all.

    The database is migrated. Raises MigrationError and StoreError.
    """
    settings = load_settings(database_url=database_url, limits=limits)
    applied = settings.limits_of()
    names = [f"load-{number}" for number in range(2, count + 1)]
    ledgers = [MAIN, *[await create_ledger(settings, applied, name) for name in names]]
    async with Database(settings, applied, connections=1) as database:
        return [KeyedLedger(each, await _key(database, each)) for each in ledgers]


async def _key(database: Database, ledger: Ledger) -> str:
    """The token of a new key."""
    id = secrets.token_hex(8)
    token = token_of(id, secrets.token_hex(32))
    made = await insert_api_key(
        database,
        ledger=ledger,
        id=id,
        client=_CLIENT,
        secret_sha256=digest_of(token, ledger),
        scopes=[ADMIN],
        expires_at=None,
    )
    assert not isinstance(made, SimilarClient)
    return token
