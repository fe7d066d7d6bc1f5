"""The consumer: keeps the notifier connected to the broker and wakes it up."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from transferd.config import Limits
from transferd.domain.ledger import MAIN
from transferd.ledger.store.database import Database
from transferd.ledger.store.deliveries import ENDPOINTS_WAITING
from transferd.ledger.store.errors import StoreError
from transferd.ledger.watch import LedgerList, ask, groups
from transferd.notifications.broker import Broker, Connect, TransportFailure
from transferd.notifications.carryover import Carryover
from transferd.notifications.notifier import Notifier
from transferd.notifications.retrying import fault_of, run_forever
from transferd.observability.facts import Facts, NotifierFailed


class Consumer:
    """Consumes until cancelled; `carryover` takes the messages that are not wake-ups.

    The newest wake-up of a queue is never acknowledged before the next one. If the worker dies, the
    broker gives it to the worker that stands by, which begins with a sweep.
    """

    def __init__(
        self,
        *,
        notifier: Notifier,
        database: Database,
        ledgers: LedgerList,
        connect: Connect,
        carryover: Carryover,
        limits: Limits,
        facts: Facts,
    ) -> None:
        self._notifier = notifier
        self._database = database
        self._ledgers = ledgers
        self._connect = connect
        self._carryover = carryover
        self._limits = limits
        self._facts = facts
        self._sweep_now = asyncio.Event()
        self.fault: str | None = "not connected yet"

    def __repr__(self) -> str:
        return f"<Consumer {self.fault or 'consuming'}>"

    async def run(self) -> None:
        """Stay connected until cancelled. ConfigurationError if the broker cannot be used."""
        await run_forever(self._consume, self._limits, self._note)

    async def _consume(self) -> None:
        """Connect and consume until the connection is lost. Raises TransportFailure."""
        async with self._connect() as broker:
            try:
                await broker.consume(
                    wake=self._notifier.wake,
                    take=partial(self._take, broker),
                    # The worker that consumed the queue before may have left due deliveries.
                    taken_over=self._sweep_now.set,
                    leave=self._notifier.leave,
                )
                self.fault = None
                self._notifier.results.wake_later = broker.wake
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._sweep(broker))
                    await broker.wait_lost()
                    # It ends by itself: aiormq may turn a cancellation into an error of its own.
                    self._sweep_now.set()
            finally:
                self._notifier.forget()
        raise TransportFailure(broker.reason)

    async def _take(self, broker: Broker, body: bytes, headers: Mapping[str, Any]) -> None:
        endpoint_ids = await self._carryover.take(body, headers)
        if endpoint_ids:
            await broker.wake(MAIN.number, endpoint_ids)

    async def _sweep(self, broker: Broker) -> None:
        """Send wake-ups for due deliveries, at once and then slowly: a message may get lost."""
        while True:
            await broker.keep_queues()
            try:
                await self._carryover.letters()
                await self._wake_all(broker)
                wait_s = self._limits.delivery_sweep_interval_s
            except StoreError as error:
                self._facts.emit(NotifierFailed(error))
                wait_s = self._limits.relay_wait_max_s
            if broker.reason:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._sweep_now.wait()
            self._sweep_now.clear()

    async def _wake_all(self, broker: Broker) -> None:
        """Wake the notifiers of all ledgers up. Raises StoreError."""
        for group in groups(self._database, await self._ledgers.all(), self._limits):
            found, failures = await ask(self._database, group, ENDPOINTS_WAITING)
            for ledger, rows in found.items():
                await broker.wake(ledger.number, [row["id"] for row in rows])
            for error in failures.values():
                self._facts.emit(NotifierFailed(error))

    def _note(self, error: Exception | None) -> None:
        self.fault = fault_of(error)
        if error is not None:
            self._facts.emit(NotifierFailed(error))
