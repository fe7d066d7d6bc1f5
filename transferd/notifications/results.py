"""Writes the results of attempts to the rows of their deliveries."""

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Sequence

from transferd.config import Limits
from transferd.domain.webhook import WebhookStatus
from transferd.ledger.store.database import LedgerDatabase
from transferd.ledger.store.deliveries import DeliveryRecord, record_deliveries
from transferd.ledger.store.errors import Rejected
from transferd.ledger.store.webhooks import update_webhook
from transferd.notifications.attempt import Attempt
from transferd.notifications.retrying import fault_of, run_forever
from transferd.observability.facts import DeadLettersKept, Facts, NotifierFailed

# Attempts with the records of their results, for one transaction.
_Batch = Sequence[tuple[Attempt, DeliveryRecord]]


class Results:
    """Results that wait for a transaction. `delays_s` is the back-off of deliveries.

    `written` gets each attempt whose result is in its row. `wake_later` sends a wake-up for
    endpoints after a delay in seconds; the consumer sets it.
    """

    def __init__(
        self,
        *,
        database: LedgerDatabase,
        delays_s: Sequence[float],
        written: Callable[[Attempt], None],
        limits: Limits,
        facts: Facts,
    ) -> None:
        self._database = database
        self._delays_s = tuple(delays_s)
        self._written = written
        self._limits = limits
        self._facts = facts
        self._ended: asyncio.Queue[Attempt] = asyncio.Queue()
        self._batches: deque[_Batch] = deque()
        self.wake_later: Callable[[Sequence[str], float], Awaitable[None]] | None = None
        # Why nothing can be written now; None if all is well.
        self.fault: str | None = None

    def __repr__(self) -> str:
        return f"<Results {self.fault or 'well'}>"

    def add(self, attempt: Attempt) -> None:
        """Write the result of an attempt that has ended."""
        self._ended.put_nowait(attempt)

    async def wait_written(self) -> None:
        """Return when nothing waits to be written."""
        await self._ended.join()

    async def run(self) -> None:
        """Write results until cancelled."""
        await run_forever(self.write_once, self._limits, self._note)

    async def write_once(self) -> int:
        """Wait for results and write some in one transaction; how many. Raises StoreError: then
        they wait here."""
        if not self._batches:
            self._batches.append(await self._next_batch())
        batch = self._batches[0]
        try:
            await self._write(batch)
        except Rejected as error:
            # Another try will not help; one by one, the others can be written. The attempt that is
            # to blame stays held: the delivery would be made again and again.
            self._facts.emit(NotifierFailed(error))
            self._batches.popleft()
            if len(batch) > 1:
                self._batches.extend([each] for each in batch)
            else:
                self._ended.task_done()
            return 0
        self._batches.popleft()
        try:
            await self._finish(batch)
        finally:
            # Only now: a worker that stops waits for this, and then closes the broker's connection.
            for _ in batch:
                self._ended.task_done()
        return len(batch)

    async def _next_batch(self) -> _Batch:
        is_first = self._ended.empty()
        attempts = [await self._ended.get()]
        if is_first:
            # An attempt ends quickly; a transaction for each would be expensive.
            await asyncio.sleep(self._limits.notify_linger_s)
        while not self._ended.empty() and len(attempts) < self._limits.notify_batch_max:
            attempts.append(self._ended.get_nowait())
        return [(attempt, attempt.record(self._delays_s)) for attempt in attempts]

    async def _write(self, batch: _Batch) -> None:
        gone = {a.endpoint_id for a, _ in batch if a.result is not None and a.result.is_gone}
        async with self._database.transaction() as transaction:
            await record_deliveries(transaction, [record for _, record in batch])
            for endpoint_id in gone:
                await update_webhook(
                    transaction,
                    endpoint_id,
                    status=WebhookStatus.DISABLED,
                    reason="it answered 410 Gone",
                )

    async def _finish(self, batch: _Batch) -> None:
        """Report the results, let go of the attempts, and send wake-ups for retries."""
        retries: defaultdict[float, set[str]] = defaultdict(set)
        for attempt, record in batch:
            self._facts.emit(attempt.fact(record))
            if record.wait_s is not None:
                retries[record.wait_s].add(attempt.endpoint_id)
            self._written(attempt)
        if dead := sum(record.dead_reason is not None for _, record in batch):
            self._facts.emit(DeadLettersKept(dead))
        for delay_s, endpoint_ids in retries.items():
            # Without a broker, a sweep finds them.
            if self.wake_later is not None:
                await self.wake_later(list(endpoint_ids), delay_s)

    def _note(self, error: Exception | None) -> None:
        self.fault = fault_of(error)
        if error is not None:
            self._facts.emit(NotifierFailed(error))
