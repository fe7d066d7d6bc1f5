"""Writes the results of attempts to the rows of their deliveries."""

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Sequence

from transferd.config import Limits
from transferd.domain.ledger import Ledger
from transferd.domain.webhook import WebhookStatus
from transferd.ledger.store.database import Database
from transferd.ledger.store.deliveries import DeliveryRecord, record_deliveries
from transferd.ledger.store.errors import Missing, Rejected
from transferd.ledger.store.webhooks import update_webhook
from transferd.notifications.attempt import Attempt
from transferd.notifications.ledger_lanes import LedgerLanes
from transferd.observability.facts import DeadLettersKept, Facts, NotifierFailed

# Attempts with the records of their results, for one transaction.
_Batch = Sequence[tuple[Attempt, DeliveryRecord]]


class _Unwritten:
    """The results of a ledger: of attempts that have ended, then of those in batches."""

    def __init__(self) -> None:
        self.ended: deque[Attempt] = deque()
        self.batches: deque[_Batch] = deque()

    def next_batch(self, delays_s: Sequence[float], attempts_max: int) -> _Batch:
        """The results to write first. They stay here."""
        if not self.batches:
            count = min(len(self.ended), attempts_max)
            attempts = [self.ended.popleft() for _ in range(count)]
            self.batches.append([(attempt, attempt.record(delays_s)) for attempt in attempts])
        return self.batches[0]


class Results:
    """Results that wait for a transaction of their ledger. `delays_s` is the back-off.

    `written` gets each attempt whose result is in its row. `wake_later` sends a wake-up for
    endpoints of a ledger after a delay in seconds; the consumer sets it.
    """

    def __init__(
        self,
        *,
        database: Database,
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
        self._unwritten: dict[Ledger, _Unwritten] = {}
        self._count = 0
        self._all_written = asyncio.Event()
        self._all_written.set()
        self._writing = LedgerLanes[Ledger](
            self._write,
            self._note,
            limits,
            lanes_max=limits.notify_lanes_max,
            # An attempt ends quickly; a transaction for each would be expensive.
            linger_s=limits.notify_linger_s,
        )
        self.wake_later: Callable[[int, Sequence[str], float], Awaitable[None]] | None = None

    def __repr__(self) -> str:
        return f"<Results {self._count} unwritten, {self.fault or 'well'}>"

    @property
    def fault(self) -> str | None:
        """Why nothing can be written now; None if all is well."""
        return self._writing.fault

    def add(self, attempt: Attempt) -> None:
        """Write the result of an attempt that has ended."""
        self._unwritten.setdefault(attempt.ledger, _Unwritten()).ended.append(attempt)
        self._count += 1
        self._all_written.clear()
        self._writing.add(attempt.ledger)

    async def wait_written(self) -> None:
        """Return when nothing waits to be written."""
        await self._all_written.wait()

    async def run(self) -> None:
        """Write results until cancelled."""
        await self._writing.run()

    async def _write(self, ledger: Ledger) -> bool:
        """Write some results of a ledger in one transaction; whether there are more.

        Raises StoreError: then they wait here.
        """
        unwritten = self._unwritten.get(ledger)
        if unwritten is None:
            return False
        batch = unwritten.next_batch(self._delays_s, self._limits.notify_batch_max)
        try:
            await self._record(ledger, batch)
        except Missing:
            # The ledger is being restored. The results wait until it is back.
            raise
        except Rejected as error:
            # Another try will not help; one by one, the others can be written. The attempt that is
            # to blame stays held: the delivery would be made again and again.
            self._facts.emit(NotifierFailed(error))
            unwritten.batches.popleft()
            if len(batch) > 1:
                unwritten.batches.extend([each] for each in batch)
            else:
                self._settle(1)
        else:
            unwritten.batches.popleft()
            try:
                await self._finish(ledger, batch)
            finally:
                # Only now: a worker that stops waits for this, and then closes the broker's
                # connection.
                self._settle(len(batch))
        if unwritten.batches or unwritten.ended:
            return True
        del self._unwritten[ledger]
        return False

    def _settle(self, count: int) -> None:
        self._count -= count
        if not self._count:
            self._all_written.set()

    async def _record(self, ledger: Ledger, batch: _Batch) -> None:
        gone = {a.endpoint_id for a, _ in batch if a.result is not None and a.result.is_gone}
        async with self._database.of(ledger).transaction() as transaction:
            await record_deliveries(transaction, [record for _, record in batch])
            for endpoint_id in gone:
                await update_webhook(
                    transaction,
                    endpoint_id,
                    status=WebhookStatus.DISABLED,
                    reason="it answered 410 Gone",
                )

    async def _finish(self, ledger: Ledger, batch: _Batch) -> None:
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
                await self.wake_later(ledger.number, list(endpoint_ids), delay_s)

    def _note(self, _: Ledger, error: Exception | None) -> None:
        if error is not None:
            self._facts.emit(NotifierFailed(error))
