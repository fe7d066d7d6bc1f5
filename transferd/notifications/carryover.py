"""Turns the messages and dead letters of the version before into rows of deliveries.

That version sent each event through `notify.work` to its notifier, which kept the state of a
delivery in headers of messages, and dead letters in a table beside the deliveries.
"""

import asyncio
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from transferd.config import Limits
from transferd.ledger.store.database import LedgerDatabase, Transaction
from transferd.ledger.store.dead_letters import (
    fold_dead_letters,
    insert_dead_letters,
    take_unaddressed_letters,
)
from transferd.ledger.store.deliveries import CarriedDelivery, EventText, carry_deliveries
from transferd.ledger.store.errors import StoreError
from transferd.ledger.store.webhooks import webhooks_version
from transferd.notifications.directory import Directory
from transferd.notifications.event import Event, Unreadable
from transferd.observability.facts import DeadLettersKept, Facts, NotifierFailed

ENDPOINT = "x-transferd-endpoint"
ATTEMPTS = "x-transferd-attempts"


class Carryover:
    """Takes messages that are not wake-ups. One that is not an event becomes a dead letter."""

    def __init__(
        self, database: LedgerDatabase, directory: Directory, limits: Limits, facts: Facts
    ) -> None:
        self._database = database
        self._directory = directory
        self._limits = limits
        self._facts = facts

    async def take(self, body: bytes, headers: Mapping[str, Any]) -> list[str]:
        """Write the deliveries that a message names, however long PostgreSQL is away; the ids of
        their endpoints."""
        while True:
            try:
                return await self._take(body, headers)
            except StoreError as error:
                self._facts.emit(NotifierFailed(error))
                await asyncio.sleep(self._limits.relay_wait_max_s)

    async def _take(self, body: bytes, headers: Mapping[str, Any]) -> list[str]:
        try:
            event = Event.read(body)
        except Unreadable as error:
            await self._keep(body, str(error))
            return []
        if event.ledger != self._database.ledger.name:
            # Another program has put it there: no message of this version is an event.
            await self._keep(body, "an event of another ledger")
            return []
        endpoint_id = _id(headers.get(ENDPOINT))
        attempts = _count(headers.get(ATTEMPTS))
        async with self._database.transaction() as transaction:
            return await self._carry(transaction, event, body, endpoint_id, attempts=attempts)

    async def _keep(self, body: bytes, reason: str) -> None:
        async with self._database.transaction() as transaction:
            await insert_dead_letters(transaction, {body: reason})
        self._facts.emit(DeadLettersKept(1))

    async def letters(self) -> None:
        """Give each dead letter its delivery. Raises StoreError."""
        await fold_dead_letters(self._database)
        async with self._database.transaction() as transaction:
            for body, reason in await take_unaddressed_letters(transaction):
                if not await self._carry(transaction, Event.read(body), body, dead_reason=reason):
                    await insert_dead_letters(transaction, {body: "no webhook wants the event"})

    async def _carry(
        self,
        transaction: Transaction,
        event: Event,
        body: bytes,
        endpoint_id: str | None = None,
        **state: Any,
    ) -> list[str]:
        """Write deliveries in this state, to one endpoint or to all that want the event; to which
        endpoints."""
        await self._directory.refresh(transaction, await webhooks_version(transaction))
        targets = self._directory.wanting(event.type, event.wallets)
        if endpoint_id is not None:
            targets = [endpoint_id] if self._directory.exists(endpoint_id) else []
        text = EventText(event.id, event.type, body.decode())
        carried = [CarriedDelivery(text, target, **state) for target in targets]
        await carry_deliveries(transaction, carried)
        return targets


def _id(value: object) -> str | None:
    """An id that can be stored; other programs may publish too, with anything in its place."""
    try:
        return str(UUID(value)) if isinstance(value, str) else None
    except ValueError:
        return None


def _count(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < 1_000_000 else 0
