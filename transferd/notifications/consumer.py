"""The consumer: keeps the notifier connected to the broker and wakes it up."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from transferd.config import Limits
from transferd.domain.ledger import MAIN, Ledger
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
            # Before the first wake-up: a retry without a message waits for the sweep.
            self._notifier.results.wake_later = broker.wake
            try:
                await broker.consume(
                    wake=self._notifier.wake,
                    take=partial(self._take, broker),
                    # The worker that consumed the queue before may have left due deliveries.
                    taken_over=self._sweep_now.set,
                    leave=self._notifier.leave,
                )
                self.fault = None
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._sweep(broker))
                    await broker.wait_lost()
                    # Another worker may deliver now. The end of the sweep may take longer.
                    self._notifier.forget()
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
            is_whole = await self._sweep_once(broker)
            wait_s = self._limits.delivery_sweep_interval_s
            if not is_whole:
                wait_s = self._limits.relay_wait_max_s
            if broker.reason:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._sweep_now.wait()
            self._sweep_now.clear()

    async def _sweep_once(self, broker: Broker) -> bool:
        """Whether all succeeded. A failure in one ledger, or at one server, stops no other."""
        failures: list[StoreError] = []
        try:
            await self._carryover.letters()
        except StoreError as error:
            failures.append(error)
        try:
            ledgers = await self._ledgers.all()
        except StoreError as error:
            failures.append(error)
            ledgers = []
        for group in groups(self._database, ledgers, self._limits):
            if broker.reason:
                break
            failures += await self._wake_group(broker, group)
        for failure in failures:
            self._facts.emit(NotifierFailed(failure))
        return not failures

    async def _wake_group(self, broker: Broker, group: Sequence[Ledger]) -> list[StoreError]:
        """Wake the notifiers of some ledgers up. Returns what failed."""
        try:
            found, failures = await ask(self._database, group, ENDPOINTS_WAITING)
        except StoreError as error:
            return [error]
        for ledger, rows in found.items():
            await broker.wake(ledger.number, [row["id"] for row in rows])
        return list(failures.values())

    def _note(self, error: Exception | None) -> None:
        self.fault = fault_of(error)
        if error is not None:
            self._facts.emit(NotifierFailed(error))
