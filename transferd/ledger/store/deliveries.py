"""The delivery log: what became of each event at each endpoint, and thereby what was consumed."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from transferd.domain.webhook import DeliveryStatus
from transferd.ledger.store.database import Database, Row, Transaction

# How a status is stored. -1, because that is the last of a list to the version before, which knows
# the first four: so it takes a skipped delivery for a dead one, and neither stops nor sends it.
NUMBERS = {
    DeliveryStatus.PENDING: 0,
    DeliveryStatus.DELIVERED: 1,
    DeliveryStatus.RETRYING: 2,
    DeliveryStatus.DEAD: 3,
    DeliveryStatus.SKIPPED: -1,
}
STATUSES = {number: status for status, number in NUMBERS.items()}


class DeliveryRecord(NamedTuple):
    """The result of `attempts` more attempts; `wait_s` until the next; `event` may be kept."""

    id: str
    event_id: str
    endpoint_id: str
    event_type: str
    status: DeliveryStatus
    attempts: int
    response_status: int | None
    error: str | None
    response_excerpt: str | None
    event: str | None
    wait_s: float | None


class Delivery(NamedTuple):
    """A row of an endpoint's log. `event` is what was sent, as JSON text."""

    id: str
    event_id: str
    event_type: str
    status: DeliveryStatus
    attempts: int
    response_status: int | None
    error: str | None
    response_excerpt: str | None
    next_attempt_at: datetime | None
    created_at: datetime
    updated_at: datetime
    event: str | None


class Known(NamedTuple):
    """What is known of some events, by (event, endpoint); and the version of the webhooks."""

    statuses: dict[tuple[str, str], DeliveryStatus]
    webhooks_version: int


async def read_known(database: Database, event_ids: Sequence[str]) -> Known:
    """What was consumed of these events already."""
    rows = await database.fetch("read_deliveries", list(event_ids))
    statuses = {(row[0], row[1]): STATUSES[row[2]] for row in rows if row[0] is not None}
    [version] = [row["version"] for row in rows if row[0] is None]
    return Known(statuses, version)


async def record_deliveries(transaction: Transaction, records: Sequence[DeliveryRecord]) -> None:
    """Write results; each (event, endpoint) at most once in `records`."""
    # In one order everywhere: two notifiers that meet at the same rows must not wait in a circle.
    ordered = sorted(records, key=lambda record: (record.event_id, record.endpoint_id))
    await transaction.fetch(
        "record_deliveries",
        [r.id for r in ordered],
        [r.event_id for r in ordered],
        [r.endpoint_id for r in ordered],
        [r.event_type for r in ordered],
        [NUMBERS[r.status] for r in ordered],
        [r.attempts for r in ordered],
        [r.response_status for r in ordered],
        [r.error for r in ordered],
        [r.response_excerpt for r in ordered],
        [r.event for r in ordered],
        [r.wait_s for r in ordered],
    )


async def list_deliveries(
    database: Database,
    endpoint_id: str,
    *,
    status: DeliveryStatus | None,
    before_id: str | None,
    limit: int,
) -> list[Delivery]:
    """The log of an endpoint, newest first."""
    number = None if status is None else NUMBERS[status]
    rows = await database.fetch("list_deliveries", endpoint_id, number, before_id, limit)
    return [_delivery_of(row) for row in rows]


async def ask_again(transaction: Transaction, endpoint_id: str, id: str) -> Delivery | None:
    """Mark a delivery as wanted once more; None if there is none."""
    rows = await transaction.fetch("ask_again", endpoint_id, id)
    return _delivery_of(rows[0]) if rows else None


async def ask_again_for(transaction: Transaction, wanted: Sequence[tuple[str, str]]) -> None:
    """The same for pairs of event and endpoint; those without a row need no mark."""
    await transaction.fetch(
        "ask_again_for_events", [event for event, _ in wanted], [to for _, to in wanted]
    )


async def endpoints_with_deliveries(database: Database) -> list[str]:
    """The ids of all endpoints that have a log, deleted ones and the log sink's among them."""
    return [row["id"] for row in await database.fetch("endpoints_with_deliveries")]


async def prune_deliveries(
    database: Database, endpoint_id: str, *, before_id: str, limit: int
) -> int:
    """Remove up to `limit` finished rows that are older than the id; how many there were."""
    return len(await database.fetch("prune_deliveries", endpoint_id, before_id, limit))


def _delivery_of(row: Row) -> Delivery:
    values = dict(row) | {"status": STATUSES[row["status"]]}
    return Delivery(**values)
