"""Helpers for the HTTP contract: API keys, raw requests, footprints, invalid requests."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from yarl import URL

from tests.conftest import Database
from tests.support.api import Api, Reply
from transferd.domain.api_key import digest_of
from transferd.domain.ledger import MAIN, Ledger

# A valid id that no row has.
UNKNOWN_ID = "01900000-0000-7000-8000-000000000000"
AMOUNT_MAX = 2**53 - 1
BALANCE_MAX = 2**63 - 1
BALANCE_MIN = -(2**63)


async def footprint(database: Database) -> dict[str, Any]:
    """Counts of every table that a request may write to, with checksums of users and wallets."""
    [row] = await database.fetch(
        """
        SELECT (SELECT md5(string_agg(u::text, ';' ORDER BY id)) FROM ledger_00.users u) AS users,
               (SELECT count(*) FROM ledger_00.outcomes) AS outcomes,
               (SELECT md5(string_agg(w::text, ';' ORDER BY id))
                FROM ledger_00.wallets w) AS wallets,
               (SELECT count(*) FROM ledger_00.transfers) AS transfers,
               (SELECT count(*) FROM ledger_00.wallet_changes) AS changes,
               (SELECT count(*) FROM ledger_00.outbox) AS events
        """
    )
    return dict(row)


async def contents(database: Database, schema: str) -> dict[str, str | None]:
    """A checksum of the rows of every table of a schema."""
    tables = await database.fetch("SELECT tablename FROM pg_tables WHERE schemaname = $1", schema)
    sums = [
        f"SELECT '{name}', md5(string_agg(row::text, ';' ORDER BY row::text))"
        f" FROM {schema}.{name} AS row"
        for [name] in tables
    ]
    return dict(tuple(row) for row in await database.fetch(" UNION ALL ".join(sums)))


async def set_balance(database: Database, wallet: str, balance_minor: int) -> None:
    """Set a balance directly in the database."""
    await database.fetch(
        "UPDATE ledger_00.wallets SET balance = $2 WHERE id = $1::uuid", wallet, balance_minor
    )


async def exactly(
    api: Api, method: str, path: str, *, headers: Mapping[str, str] | None = None
) -> Reply:
    """Send a request whose path and query are not escaped or normalized."""
    url = URL(api.url + path, encoded=True)
    async with api.session.request(method, url, headers=headers) as response:
        return Reply(response.status, response.headers, await response.read())


async def api_key(
    database: Database,
    name: str,
    *scopes: str,
    client: str | None = None,
    ledger: Ledger = MAIN,
    expires_at: datetime | None = None,
    revoked_at: datetime | None = None,
) -> str:
    """The token of a new key with these scopes, for `client` or for a new client `name`."""
    if ledger == MAIN:
        ledger = database.ledger
    token = f"td_{name}_{uuid4().hex}"
    await database.fetch(
        "INSERT INTO transferd.clients (name, ledger_number) VALUES ($1, $2)"
        " ON CONFLICT DO NOTHING",
        client or name,
        ledger.number,
    )
    await database.fetch(
        "INSERT INTO transferd.api_keys"
        " (id, client_id, secret_sha256, scopes, expires_at, revoked_at)"
        " SELECT $1, id, $3, $4, $5, $6 FROM transferd.clients"
        " WHERE name = $2 AND ledger_number = $7",
        name,
        client or name,
        digest_of(token, ledger),
        list(scopes),
        expires_at,
        revoked_at,
        ledger.number,
    )
    return token


class ApiWithKey(Api):
    """Calls that carry an API key."""

    def __init__(self, api: Api, token: str) -> None:
        super().__init__(api.session, api.url)
        self.headers = {"Authorization": f"Bearer {token}"}


def transfer_body(
    source: str, destination: str, amount: int = 1, **more: object
) -> dict[str, object]:
    """The body of POST /transfers."""
    return {
        "source_wallet_id": source,
        "destination_wallet_id": destination,
        "amount": amount,
        "currency": "USD",
        **more,
    }


def assert_is_id(text: str) -> None:
    """AssertionError unless the text is a UUIDv7 in canonical form."""
    assert str(UUID(text)) == text
    assert UUID(text).version == 7


def time_of(text: str) -> datetime:
    """The time. AssertionError unless it is RFC 3339 in UTC with microseconds."""
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", text), text
    return datetime.fromisoformat(text)


@dataclass(frozen=True)
class Target:
    """A replica with two wallets and a transfer, which invalid requests must not change."""

    api: Api
    database: Database
    user: str
    ada: str
    bob: str
    paid: str
    before: dict[str, Any]

    def body(self, **changes: object) -> dict[str, object]:
        """The body of a valid transfer, with these changes."""
        return transfer_body(self.ada, self.bob, 5) | changes


def assert_invalid(reply: Reply, *pointers: str) -> None:
    """AssertionError unless the reply is 422 `invalid-request` with exactly these pointers."""
    assert (reply.status, reply.code) == (422, "invalid-request"), reply
    assert [error["pointer"] for error in reply.json["errors"]] == list(pointers), reply.json
    for error in reply.json["errors"]:
        assert list(error) == ["pointer", "code", "message"]
        assert error["code"]
        assert error["message"]
