"""Rows of the outbox as a replica writes them, without a replica."""

from typing import Any

import orjson

from tests.conftest import Database
from tests.support.store import open_main
from transferd.commit.events import cloud_event, completed, is_bare
from transferd.domain.ledger import MAIN, Ledger
from transferd.ledger.ids import new_id
from transferd.ledger.store.transfers import read_transfers

TRACEPARENT = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


def transfer_event(
    source: str | None = None, destination: str | None = None, **changes: object
) -> dict[str, Any]:
    """A transfer of 123,456 minor units; without arguments, between two invented wallets."""
    id = new_id(MAIN)
    data = {
        "id": id,
        "kind": "transfer",
        "source_wallet_id": source or new_id(MAIN),
        "destination_wallet_id": destination or new_id(MAIN),
        "amount": 123_456,
        "currency": "USD",
        "reference": None,
        "metadata": {},
        "source_version": 1,
        "source_balance_after": 1,
        "destination_version": 1,
        "destination_balance_after": 123_456,
        "reverses_transfer_id": None,
    }
    return {
        "id": id,
        "type": "transfer.posted",
        "time": "2030-01-02T03:04:05.678901Z",
        "traceparent": TRACEPARENT,
        "request_id": "request-1",
        "data": data,
    } | changes


def wallet_event(
    wallet: str | None = None, type: str = "wallet.frozen", version: int = 7
) -> dict[str, Any]:
    """A change that gave a wallet this version."""
    wallet = wallet or new_id(MAIN)
    return transfer_event() | {
        "id": f"{wallet}:{version}",
        "type": type,
        "data": {"id": wallet, "balance": 123_456, "version": version},
    }


def again(event: dict[str, Any], endpoint: str | None) -> dict[str, Any]:
    """The same event, to be sent again to one endpoint, or to all."""
    return {"endpoint": endpoint, "event": orjson.loads(cloud_event(event, MAIN.name))}


async def put(database: Database, *rows: list[dict[str, Any]], ledger: Ledger = MAIN) -> None:
    """Insert rows into the outbox in one statement, each with the events of one group."""
    await database.fetch(
        f"INSERT INTO {ledger.schema}.outbox (created_at, event_count, events)"
        " SELECT clock_timestamp(), event_count, events::json"
        " FROM unnest($1::integer[], $2::text[]) WITH ORDINALITY"
        " AS n (event_count, events, position) ORDER BY position",
        [len(events) for events in rows],
        [orjson.dumps(events).decode() for events in rows],
    )


async def events_in(database: Database) -> list[dict[str, Any]]:
    """The events in the outbox, in their order, complete as the relay sends them."""
    rows = await database.fetch("SELECT events::text FROM ledger_00.outbox ORDER BY seq")
    events = [event for row in rows for event in orjson.loads(row["events"])]
    bare = [event["id"] for event in events if is_bare(event)]
    async with open_main(database.settings()) as store:
        transfers = await read_transfers(store, bare)
    whole = [dict(completed(event, transfers)) for event in events]
    decoded: list[dict[str, Any]] = orjson.loads(orjson.dumps(whole, option=orjson.OPT_UTC_Z))
    return decoded


async def left(database: Database, ledger: Ledger = MAIN) -> list[list[str]]:
    """The ids of the events in the outbox, row by row."""
    rows = await database.fetch(f"SELECT events::text FROM {ledger.schema}.outbox ORDER BY seq")
    return [
        [(item.get("event") or item)["id"] for item in orjson.loads(row["events"])] for row in rows
    ]
