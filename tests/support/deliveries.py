"""Rows of a webhook's delivery log, as a notifier would have written them."""

import time
from typing import Any

import orjson

from tests.conftest import Database
from transferd.domain.ledger import MAIN, Ledger
from transferd.domain.webhook import DeliveryStatus
from transferd.ledger.ids import id_at, new_id
from transferd.ledger.store.deliveries import NUMBERS

_DAY_S = 24 * 3600.0
# The row of a delivery whose first attempt has failed.
_FAILED: dict[str, Any] = {
    "event_type": "transfer.posted",
    "status": "retrying",
    "attempts": 1,
    "response_status": 500,
    "error": "answered 500",
    "response_excerpt": "oh no",
    "dead_reason": None,
    "days": 0.0,
}


def sent_event(id: str, type: str = "transfer.posted") -> dict[str, Any]:
    """A CloudEvent as it was sent, with numbers that an inexact parser changes."""
    return {
        "specversion": "1.0",
        "id": id,
        "source": "/transferd",
        "type": type,
        "data": {"id": id, "amount": 9_007_199_254_740_991, "metadata": {"rate": 1e-7}},
    }


async def logged_delivery(
    database: Database, webhook: str, ledger: Ledger = MAIN, /, **changes: object
) -> str:
    """The id of a new row. `changes` are columns; `days` is its age; `event=None` stores none."""
    own = new_id(ledger)
    values = _FAILED | {"event_id": own, "event": sent_event(own)} | changes
    # The first digits of a UUIDv7 are its time; the others make it unique.
    id = id_at(time.time() - values["days"] * _DAY_S)[:19] + own[19:] if values["days"] else own
    event = values["event"]
    await database.fetch(
        f"INSERT INTO {ledger.schema}.deliveries (id, endpoint_id, event_id, event_type, status,"
        " attempts, response_status, error, response_excerpt, event, dead_reason, next_attempt_at,"
        " created_at, updated_at)"
        " VALUES ($1::uuid, $2::uuid, $3, $4, $5, $6, $7, $8, $9, $10::json, $11,"
        " CASE WHEN $5::smallint = 2 THEN now() + interval '1 hour' END, now(), now())",
        id,
        webhook,
        values["event_id"],
        values["event_type"],
        NUMBERS[DeliveryStatus(values["status"])],
        values["attempts"],
        values["response_status"],
        values["error"],
        values["response_excerpt"],
        None if event is None else orjson.dumps(event).decode(),
        values["dead_reason"],
    )
    return id
