"""The consumer: keeps the notifier connected to the broker, and turns messages into wake-ups."""

import asyncio

from transferd.config import Limits
from transferd.ledger.store.database import Database
from transferd.ledger.store.deliveries import endpoints_waiting
from transferd.ledger.store.errors import StoreError
from transferd.notifications.broker import Broker, Connect, Incoming, TransportFailure
from transferd.notifications.carryover import Carryover
from transferd.notifications.notifier import Notifier
from transferd.notifications.wakeup import WakeUp
from transferd.observability.facts import Facts, NotifierFailed


class Consumer:
    """Consumes until cancelled; `carryover` takes what is not in the work queue.

    The newest wake-up stays unacknowledged while the notifier has work. If the worker dies, the
    broker hands it to the worker that stands by, which begins by reading everything that is due.
    """

    def __init__(
        self,
        *,
        notifier: Notifier,
        database: Database,
        connect: Connect,
        carryover: Carryover,
        limits: Limits,
        facts: Facts,
    ) -> None:
        self._notifier = notifier
        self._database = database
        self._connect = connect
        self._carryover = carryover
        self._limits = limits
        self._facts = facts
        self._newest: Incoming | None = None
        self._something_taken = asyncio.Event()
        self.fault: str | None = "not connected yet"

    def __repr__(self) -> str:
        return f"<Consumer {self.fault or 'consuming'}>"

    async def run(self) -> None:
        """Stay connected until cancelled. ConfigurationError if the broker cannot be used."""
        wait_s = 0.0
        while True:
            try:
                async with self._connect() as broker:
                    wait_s = 0.0
                    await self._consume(broker)
                self.fault = broker.reason
            except TransportFailure as error:
                self.fault = str(error)
            self._facts.emit(NotifierFailed(TransportFailure(self.fault)))
            wait_s = min(
                max(wait_s * 2, self._limits.relay_wait_first_s), self._limits.relay_wait_max_s
            )
            await asyncio.sleep(wait_s)

    async def _consume(self, broker: Broker) -> None:
        """Until the connection is lost."""
        wakeups: asyncio.Queue[Incoming] = asyncio.Queue()
        others: asyncio.Queue[Incoming] = asyncio.Queue()
        await broker.consume(wakeups=wakeups.put_nowait, others=others.put_nowait)
        self.fault = None
        loops = [
            asyncio.create_task(loop)
            for loop in (
                self._take_wakeups(wakeups),
                self._acknowledge_when_idle(),
                self._take_others(broker, others),
                self._send_retries(broker),
                self._sweep(broker),
            )
        ]
        lost = asyncio.create_task(broker.wait_lost())
        try:
            await asyncio.wait([lost, *loops], return_when=asyncio.FIRST_COMPLETED)
            for task in (lost, *loops):
                if task.done():
                    task.result()
        finally:
            for task in (lost, *loops):
                task.cancel()
            await asyncio.gather(lost, *loops, return_exceptions=True)
            self._newest = None
            self._notifier.forget()

    async def _take_wakeups(self, wakeups: asyncio.Queue[Incoming]) -> None:
        is_first = True
        while True:
            message = await wakeups.get()
            try:
                wakeup = WakeUp.decode(message.body)
            except ValueError:
                await message.reject()
                continue
            previous, self._newest = self._newest, message
            self._notifier.wake(wakeup)
            if is_first:
                # The worker that consumed this queue before may have left something.
                self._notifier.sweep()
                is_first = False
            self._something_taken.set()
            if previous is not None:
                await previous.ack(multiple=True)

    async def _acknowledge_when_idle(self) -> None:
        while True:
            await self._something_taken.wait()
            self._something_taken.clear()
            await self._notifier.wait_idle()
            newest, self._newest = self._newest, None
            if newest is not None:
                await newest.ack(multiple=True)

    async def _take_others(self, broker: Broker, others: asyncio.Queue[Incoming]) -> None:
        while True:
            message = await others.get()
            while True:
                try:
                    await self._carryover.take(broker, message)
                    break
                except StoreError as error:
                    self._facts.emit(NotifierFailed(error))
                    await asyncio.sleep(self._limits.relay_wait_max_s)
            await message.ack()

    async def _send_retries(self, broker: Broker) -> None:
        while True:
            wakeup, delay_s = await self._notifier.retries.get()
            await broker.wake(wakeup, delay_s=delay_s)

    async def _sweep(self, broker: Broker) -> None:
        """Wake-ups for what is due, at once and then slowly: a message may have been lost."""
        while True:
            try:
                await self._carryover.letters()
                endpoints = await endpoints_waiting(self._database)
                if endpoints:
                    await broker.wake(WakeUp(endpoints=tuple(endpoints)))
            except StoreError as error:
                self._facts.emit(NotifierFailed(error))
            await asyncio.sleep(self._limits.delivery_sweep_interval_s)
