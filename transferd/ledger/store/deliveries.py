"""Deliveries: the state of each event at each endpoint, in one row that is also the log."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from transferd.domain.webhook import DeliveryStatus
from transferd.ledger.ids import new_id
from transferd.ledger.store.database import LedgerDatabase, Row, Transaction
from transferd.ledger.store.outbox import lease_of

# How a status is stored. The version before knows the first four and finds them by their place in a
# list, so it reads -1 as dead: it shows a skipped delivery and does not send it.
NUMBERS = {
    DeliveryStatus.PENDING: 0,
    DeliveryStatus.DELIVERED: 1,
    DeliveryStatus.RETRYING: 2,
    DeliveryStatus.DEAD: 3,
    DeliveryStatus.SKIPPED: -1,
}
STATUSES = {number: status for status, number in NUMBERS.items()}


# The log sink is an endpoint like any other, so that its events are counted, retried and recognized
# as theirs are.
LOG = "00000000-0000-0000-0000-000000000000"

# Questions about all ledgers (`ledger.watch`): whether deliveries wait, retries too, and how many;
# and the endpoints at which something is due, deleted ones among them.
HAS_WAITING = "has_waiting_deliveries"
WAITING = "waiting_deliveries"
ENDPOINTS_WAITING = "endpoints_waiting"


class NewDelivery(NamedTuple):
    """A delivery to write for the event at position `event_number`, counted from 1.

    `error` says why a skipped one is skipped.
    """

    event_number: int
    endpoint_id: str
    status: DeliveryStatus
    error: str | None = None


class EventText(NamedTuple):
    """An event to deliver; `text` is the CloudEvent as JSON."""

    id: str
    type: str
    text: str


class WaitingDelivery(NamedTuple):
    """A delivery that is due. `failures` since it was last asked for; `attempts` in all."""

    endpoint_id: str
    event_id: str
    status: DeliveryStatus
    attempts: int
    failures: int
    event: str

    @property
    def key(self) -> "DeliveryKey":
        """What identifies it."""
        return (self.event_id, self.endpoint_id)


# (event, endpoint): the identity of a delivery.
DeliveryKey = tuple[str, str]


class DeliveryRecord(NamedTuple):
    """The result of an attempt. `wait_s` until the next one; `dead_reason` if there is none."""

    event_id: str
    endpoint_id: str
    status: DeliveryStatus
    response_status: int | None = None
    error: str | None = None
    response_excerpt: str | None = None
    dead_reason: str | None = None
    wait_s: float | None = None


class CarriedDelivery(NamedTuple):
    """A delivery as a message or a dead letter of the version before names it."""

    event: EventText
    endpoint_id: str
    attempts: int = 0
    dead_reason: str | None = None


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


async def insert_deliveries(
    transaction: Transaction, events: Sequence[EventText], deliveries: Sequence[NewDelivery]
) -> None:
    """Write new deliveries, in the order in which first attempts follow. Known ones stay."""
    await transaction.fetch(
        "insert_deliveries",
        [new_id(transaction.ledger) for _ in deliveries],
        [d.event_number for d in deliveries],
        [d.endpoint_id for d in deliveries],
        [NUMBERS[d.status] for d in deliveries],
        [event.id for event in events],
        [event.type for event in events],
        [event.text for event in events],
        [d.error for d in deliveries],
        lease_of(transaction.ledger),
    )


async def read_waiting(
    database: LedgerDatabase, room: Mapping[str, int], in_flight: Sequence[DeliveryKey]
) -> tuple[list[WaitingDelivery], int]:
    """The due deliveries of each endpoint in `room`, up to its number, without `in_flight`; and the
    version of the webhooks."""
    rows = await database.fetch(
        "read_waiting",
        list(room),
        list(room.values()),
        [endpoint_id for _, endpoint_id in in_flight],
        [event_id for event_id, _ in in_flight],
    )
    found = [
        WaitingDelivery(row[0], row[1], STATUSES[row[2]], row[3], row[4], row[5])
        for row in rows
        if row[0] is not None
    ]
    [version] = [row["version"] for row in rows if row[0] is None]
    return found, version


async def record_deliveries(transaction: Transaction, records: Sequence[DeliveryRecord]) -> None:
    """Write results; each (event, endpoint) at most once in `records`."""
    # In one order everywhere: two notifiers that meet at the same rows must not wait in a circle.
    ordered = sorted(records, key=lambda record: (record.event_id, record.endpoint_id))
    await transaction.fetch(
        "record_deliveries",
        [r.event_id for r in ordered],
        [r.endpoint_id for r in ordered],
        [NUMBERS[r.status] for r in ordered],
        [r.response_status for r in ordered],
        [r.error for r in ordered],
        [r.response_excerpt for r in ordered],
        [r.dead_reason for r in ordered],
        [r.wait_s for r in ordered],
        LOG,
    )


async def carry_deliveries(transaction: Transaction, carried: Sequence[CarriedDelivery]) -> None:
    """Write deliveries of the version before, each at most once in `carried`."""
    ordered = sorted(carried, key=lambda each: (each.event.id, each.endpoint_id))
    await transaction.fetch(
        "carry_deliveries",
        [new_id(transaction.ledger) for _ in ordered],
        [c.event.id for c in ordered],
        [c.endpoint_id for c in ordered],
        [c.event.type for c in ordered],
        [c.attempts for c in ordered],
        [c.event.text for c in ordered],
        [c.dead_reason for c in ordered],
    )


async def list_deliveries(
    database: LedgerDatabase,
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
    """Let a delivery wait for another attempt; None if there is none that can be sent again."""
    rows = await transaction.fetch("ask_again", endpoint_id, id)
    return _delivery_of(rows[0]) if rows else None


async def endpoints_with_deliveries(database: LedgerDatabase) -> list[str]:
    """The ids of all endpoints that have a log, deleted ones and the log sink's among them."""
    return [row["id"] for row in await database.fetch("endpoints_with_deliveries")]


async def prune_deliveries(
    database: LedgerDatabase, endpoint_id: str, *, before_id: str, limit: int
) -> int:
    """Remove up to `limit` finished rows that are older than the id; how many there were."""
    return len(await database.fetch("prune_deliveries", endpoint_id, before_id, limit))


def _delivery_of(row: Row) -> Delivery:
    values = dict(row) | {"status": STATUSES[row["status"]]}
    return Delivery(**values)
