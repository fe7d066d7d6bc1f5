"""From rows of the outbox to messages."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from transferd.commit.events import cloud_event, event_of_transfer
from transferd.domain.transfer import PostedTransfer
from transferd.ledger.store.database import Database, Transaction
from transferd.ledger.store.outbox import OutboxRow
from transferd.ledger.store.transfers import read_transfers
from transferd.notifications.messages import Outgoing


async def unpack(source: Database | Transaction, rows: Sequence[OutboxRow]) -> list[list[Outgoing]]:
    """The messages of each row, in order. Raises StoreError.

    An item is an event as `commit.events` writes it, of a batch without what it says; or
    `{"endpoint", "event"}`: a CloudEvent that was sent before and is wanted again, by that endpoint
    or by all.
    """
    groups: list[list[dict[str, Any]]] = [orjson.loads(row.events) for row in rows]
    bare = [item["id"] for items in groups for item in items if _is_bare(item)]
    transfers = await read_transfers(source, bare) if bare else {}
    return [[_outgoing(item, transfers) for item in items] for items in groups]


def _is_bare(item: dict[str, Any]) -> bool:
    return "data" not in item and "event" not in item


def _outgoing(item: dict[str, Any], transfers: Mapping[str, PostedTransfer]) -> Outgoing:
    if (again := item.get("event")) is not None:
        body = orjson.dumps(again)
        traceparent = again.get("traceparent")
        return Outgoing(again["id"], again["type"], body, traceparent, item["endpoint"])
    event = item
    if _is_bare(item):
        event = event_of_transfer(transfers[item["id"]])._asdict() | item
    return Outgoing(event["id"], event["type"], cloud_event(event), event["traceparent"])
