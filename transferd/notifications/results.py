"""Writes the results of attempts to the rows of their deliveries."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from transferd.config import Limits
from transferd.domain.webhook import WebhookStatus
from transferd.ledger.store.database import Database
from transferd.ledger.store.deliveries import (
    DeliveryKey,
    DeliveryRecord,
    delete_waiting,
    record_deliveries,
)
from transferd.ledger.store.errors import Rejected, StoreError
from transferd.ledger.store.webhooks import update_webhook
from transferd.notifications.attempt import Attempt
from transferd.observability.facts import DeadLettersKept, Facts, NotifierFailed


class Results:
    """One transaction for many; while PostgreSQL is away they wait here."""

    def __init__(self, database: Database, limits: Limits, facts: Facts) -> None:
        self._database = database
        self._limits = limits
        self._facts = facts
        # Why nothing can be written now; None if all is well.
        self.fault: str | None = None

    def __repr__(self) -> str:
        return f"<Results {self.fault or 'well'}>"

    async def write(self, records: Sequence[tuple[Attempt, DeliveryRecord]]) -> set[Attempt]:
        """Write the results; the attempts whose results PostgreSQL refuses, which must stay held:
        such a delivery would be made again and again."""
        wait_s = 0.0
        while records:
            try:
                await self._write_once(records)
            except Rejected as error:
                # Another try will not help; apart, the others can be written.
                self._facts.emit(NotifierFailed(error))
                if len(records) == 1:
                    return {records[0][0]}
                half = len(records) // 2
                return await self.write(records[:half]) | await self.write(records[half:])
            except StoreError as error:
                self.fault = f"PostgreSQL: {error}"
                self._facts.emit(NotifierFailed(error))
                limits = self._limits
                wait_s = min(max(wait_s * 2, limits.relay_wait_first_s), limits.relay_wait_max_s)
                await asyncio.sleep(wait_s)
            else:
                self.fault = None
                dead = sum(record.dead_reason is not None for _, record in records)
                if dead:
                    self._facts.emit(DeadLettersKept(dead))
                break
        return set()

    async def delete(self, keys: Sequence[DeliveryKey]) -> None:
        """Remove the deliveries to deleted webhooks; those that stay the next sweep finds."""
        if not keys:
            return
        with suppress(StoreError):
            async with self._database.transaction() as transaction:
                await delete_waiting(transaction, keys)

    async def _write_once(self, records: Sequence[tuple[Attempt, DeliveryRecord]]) -> None:
        gone = {a.endpoint_id for a, _ in records if a.result is not None and a.result.is_gone}
        async with self._database.transaction() as transaction:
            await record_deliveries(transaction, [record for _, record in records])
            for endpoint_id in gone:
                await update_webhook(
                    transaction,
                    endpoint_id,
                    status=WebhookStatus.DISABLED,
                    reason="it answered 410 Gone",
                )
