"""Webhooks and the rows of their deliveries, without a replica."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from tests.conftest import Database
from tests.support.store import open_ledger, open_main
from transferd.domain.ledger import MAIN, Ledger
from transferd.domain.webhook import DeliveryStatus
from transferd.ledger.ids import new_id
from transferd.ledger.store import webhooks
from transferd.ledger.store.dead_letters import Filter, list_dead_letters
from transferd.ledger.store.deliveries import STATUSES

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


async def new_webhook(
    database: Database,
    url: str,
    *events: str,
    wallet: str | None = None,
    secret: str = SECRET,
    ledger: Ledger = MAIN,
) -> str:
    """The id of a new webhook, for these events or for all."""
    async with (
        open_ledger(database.settings(), ledger) as store,
        store.transaction() as transaction,
    ):
        webhook = await webhooks.insert_webhook(
            transaction,
            id=new_id(ledger),
            client_id=0,
            url=url,
            events=events or ("*",),
            wallet_id=wallet,
            secret=secret,
        )
    return webhook.id


async def update_webhook(database: Database, id: str, **changes: Any) -> None:
    """Change columns of a webhook."""
    async with (
        open_main(database.settings()) as store,
        store.transaction() as transaction,
    ):
        assert await webhooks.update_webhook(transaction, id, **changes)


async def rotate_webhook(database: Database, id: str, secret: str) -> None:
    """Replace the secret of a webhook; the previous secret signs for one more minute."""
    async with (
        open_main(database.settings()) as store,
        store.transaction() as transaction,
    ):
        locked = await webhooks.lock_webhook(transaction, id)
        assert locked is not None
        promised = locked[0].promised(locked[1])
        await webhooks.rotate_webhook(
            transaction, id, secret=secret, overlap_s=60.0, promised=promised
        )


async def delete_webhook(database: Database, id: str) -> None:
    """Delete a webhook and its delivery log."""
    async with (
        open_main(database.settings()) as store,
        store.transaction() as transaction,
    ):
        assert await webhooks.delete_webhook(transaction, id)


@dataclass(frozen=True)
class Delivery:
    """A row of the delivery log."""

    status: DeliveryStatus
    attempts: int
    response_status: int | None
    response_excerpt: str | None
    error: str | None
    created_at: datetime
    updated_at: datetime
    next_attempt_at: datetime | None
    event_type: str
    event: str | None

    @property
    def wait_s(self) -> float | None:
        """The time from the last change of the row to the next attempt."""
        if self.next_attempt_at is None:
            return None
        return (self.next_attempt_at - self.updated_at).total_seconds()


async def deliveries(
    database: Database, endpoint: str, ledger: Ledger = MAIN
) -> dict[str, Delivery]:
    """The delivery log of an endpoint by the id of the event."""
    rows = await database.fetch(
        "SELECT event_id, status, attempts, response_status, response_excerpt, error, created_at,"
        " updated_at, next_attempt_at, event_type, event::text"
        f" FROM {ledger.schema}.deliveries WHERE endpoint_id = $1 ORDER BY id",
        UUID(endpoint),
    )
    return {row[0]: Delivery(STATUSES[row[1]], *row[2:]) for row in (tuple(r) for r in rows)}


async def delivery(
    database: Database, endpoint: str, event: str, ledger: Ledger = MAIN
) -> Delivery | None:
    """The row of one event at one endpoint; None if there is none."""
    return (await deliveries(database, endpoint, ledger)).get(event)


async def status_of(
    database: Database, endpoint: str, event: str, ledger: Ledger = MAIN
) -> DeliveryStatus | None:
    """The status in that row; None if there is none."""
    found = await delivery(database, endpoint, event, ledger)
    return None if found is None else found.status


@dataclass(frozen=True)
class Letter:
    """A dead letter."""

    id: str
    endpoint: str | None
    event: str | None
    reason: str
    detail: str
    attempts: int
    body: bytes


async def letters(database: Database, ledger: Ledger = MAIN) -> list[Letter]:
    """All dead letters of a ledger, oldest first."""
    async with open_ledger(database.settings(), ledger) as store:
        found = await list_dead_letters(store, Filter(), after_id=None, limit=10_000)
    return [
        Letter(
            each.id,
            each.endpoint_id,
            each.event_id,
            each.reason,
            each.detail,
            each.attempts,
            each.body,
        )
        for each in found
    ]
