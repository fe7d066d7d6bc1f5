"""The relays of all ledgers, over one connection to the broker."""

import asyncio
from contextlib import AsyncExitStack, suppress

from transferd.config import Limits
from transferd.domain.ledger import Ledger
from transferd.ledger.store.errors import StoreError
from transferd.ledger.watch import LedgerWatch
from transferd.notifications.broker import Broker, Connect, TransportFailure
from transferd.notifications.ledger_lanes import LedgerLanes
from transferd.notifications.relay import Relay
from transferd.notifications.retrying import fault_of, run_forever
from transferd.observability.facts import Facts, RelayFailed


class Relays:
    """Publishes the outboxes that `watch` finds: several ledgers at a time, in turn, a batch each.

    A ledger that fails waits alone; without the broker all wait. `wakeup` is set by a process that
    has written events; without it the outboxes are polled.
    """

    def __init__(
        self,
        *,
        relay: Relay,
        watch: LedgerWatch,
        connect: Connect,
        limits: Limits,
        facts: Facts,
        wakeup: asyncio.Event,
    ) -> None:
        self._relay = relay
        self._watch = watch
        self._connect = connect
        self._limits = limits
        self._facts = facts
        self._wakeup = wakeup
        self._lanes = LedgerLanes[Ledger](
            self._step, self._note_step, limits, lanes_max=limits.relay_lanes_max
        )
        # Ledgers that publish fewer events at a time than relay_batch_events_max.
        self._batch_max: dict[Ledger, int] = {}
        self._connection = AsyncExitStack()
        self._broker: Broker | None = None
        self._fault: str | None = "not connected yet"

    def __repr__(self) -> str:
        return f"<Relays {self.fault or 'running'}>"

    @property
    def fault(self) -> str | None:
        """Why nothing is published now; None if all is well."""
        return self._fault or self._lanes.fault

    async def run(self) -> None:
        """Publish until cancelled. Raises ConfigurationError if the broker cannot be used so."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._lanes.run())
                await run_forever(self._look, self._limits, self._note)
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from errors
        finally:
            await self._connection.aclose()

    async def _look(self) -> None:
        """Find ledgers with events, and wait until there may be more."""
        await self._connected()
        for ledger in await self._watch.ledgers():
            self._lanes.add(ledger)
        self._fault = None
        with suppress(TimeoutError):
            async with asyncio.timeout(self._limits.relay_poll_s):
                await self._wakeup.wait()
        self._wakeup.clear()

    async def _connected(self) -> None:
        if self._broker is not None and (reason := self._broker.reason):
            self._broker = None
            raise TransportFailure(reason)
        if self._broker is None:
            await self._connection.aclose()
            broker = await self._connection.enter_async_context(self._connect())
            await broker.take_over()
            self._broker = broker

    async def _step(self, ledger: Ledger) -> bool:
        """Publish one batch of a ledger; whether there may be more."""
        broker = self._broker
        if broker is None or _is_lost(broker):
            # All wait for another connection; then the ledger is found again.
            return False
        events_max = self._batch_max.get(ledger, self._limits.relay_batch_events_max)
        try:
            count = await self._relay.relay_once(broker, ledger, events_max=events_max)
        except (StoreError, TransportFailure) as error:
            # A broker that cannot confirm so many in time may confirm fewer.
            self._batch_max[ledger] = max(events_max // 2, 1)
            if isinstance(error, TransportFailure) and _is_lost(broker):
                return False
            raise
        if events_max * 2 < self._limits.relay_batch_events_max:
            self._batch_max[ledger] = events_max * 2
        else:
            self._batch_max.pop(ledger, None)
        return count > 0

    def _note_step(self, _: Ledger, error: Exception | None) -> None:
        if error is not None:
            self._facts.emit(RelayFailed(error))

    def _note(self, error: Exception | None) -> None:
        self._fault = fault_of(error)
        if error is not None:
            self._facts.emit(RelayFailed(error))


def _is_lost(broker: Broker) -> bool:
    return bool(broker.reason)
