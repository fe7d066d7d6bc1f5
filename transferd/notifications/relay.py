"""The relay: takes events out of the outbox, in order, once the broker has them for certain."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack

from transferd.config import Limits
from transferd.ledger.store import outbox
from transferd.ledger.store.database import Database
from transferd.ledger.store.errors import StoreError
from transferd.ledger.store.outbox import OutboxRow
from transferd.notifications.broker import Broker, Parcel
from transferd.notifications.messages import Outgoing, TransportFailure
from transferd.notifications.topology import Topology
from transferd.notifications.unpacking import unpack
from transferd.observability.facts import About, EventsPublished, Facts, OutboxRelayed, RelayFailed


class Relay:
    """Publishes the outbox. Several may run; one leads, the others take over what it leaves lying.

    `wakeup` is set by whoever knows that there is news; without it the outbox is looked at often.
    """

    def __init__(
        self,
        *,
        database: Database,
        connect: Callable[[], Broker],
        topology: Topology,
        limits: Limits,
        facts: Facts,
        clock: Callable[[], float],
        wakeup: asyncio.Event,
    ) -> None:
        self._database = database
        self._connect = connect
        self._topology = topology
        self._limits = limits
        self._facts = facts
        self._clock = clock
        self._wakeup = wakeup
        self._connection = AsyncExitStack()
        self._broker: Broker | None = None
        # Why nothing is published now; None if all is well.
        self.fault: str | None = "not connected yet"
        self.leads = False
        # There is news, and whoever knows it told this relay.
        self._is_told = False

    def __repr__(self) -> str:
        return f"<Relay {self.fault or ('leads' if self.leads else 'stands by')}>"

    async def run(self) -> None:
        """Publish until cancelled. Raises ConfigurationError if the broker cannot be used so."""
        wait_s = 0.0
        try:
            while True:
                try:
                    count = await self.relay_once() if await self._is_wanted() else 0
                except (TransportFailure, StoreError) as error:
                    self.fault, self.leads = str(error), False
                    self._facts.emit(RelayFailed(error))
                    wait_s = min(max(wait_s * 2, self._limits.relay_wait_first_s), self._wait_max_s)
                    await asyncio.sleep(wait_s)
                else:
                    self.fault, wait_s = None, 0.0
                    if not count:
                        await self._rest()
        finally:
            await self.close()

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.aclose()

    @property
    def _wait_max_s(self) -> float:
        return self._limits.relay_wait_max_s

    async def relay_once(self) -> int:
        """Publish one batch; how many events, 0 also if another relay leads.

        Raises StoreError or TransportFailure; whatever was confirmed before that is not repeated,
        unless the deletion of its rows is what failed.
        """
        broker = await self._connected()
        if not await outbox.has_rows(self._database):
            return 0
        started = self._clock()
        failure: str | None = None
        count = 0
        async with self._database.transaction() as transaction:
            if not await outbox.take_lease(transaction):
                self.leads = False
                return 0
            rows = await outbox.read_outbox(
                transaction, events_max=self._limits.relay_batch_events_max
            )
            # Whoever finds nothing after all was too late: another relay has published it.
            self.leads = bool(rows)
            events = await unpack(transaction, rows)
            sent, count, failure = await self._publish(broker, rows, events)
            if sent:
                await outbox.delete_outbox(transaction, sent)
        if count:
            self._facts.emit(OutboxRelayed(count, self._clock() - started))
        if failure is not None:
            raise TransportFailure(failure)
        return count

    async def _is_wanted(self) -> bool:
        """Whether it leads or was told to publish, or else nobody has for a while.

        Without that a relay that stands by would now and then be faster than the one that leads.
        """
        is_told, self._is_told = self._is_told, False
        await self._connected()
        if self.leads or is_told:
            return True
        return await outbox.oldest_s(self._database) > self._limits.relay_standby_s

    async def _publish(
        self, broker: Broker, rows: Sequence[OutboxRow], events: Sequence[Sequence[Outgoing]]
    ) -> tuple[list[int], int, str | None]:
        """The rows from the front whose events are all confirmed, their events, what went wrong."""
        parcels = [
            # What is for one endpoint only has nothing to be routed by.
            Parcel(outgoing, self._topology.work if outgoing.endpoint_id else None)
            for group in events
            for outgoing in group
        ]
        if not parcels:
            return [], 0, None
        started = self._clock()
        outcomes = await broker.publish(parcels, timeout_s=self._limits.relay_publish_timeout_s)
        if self._facts.per_request_facts:
            confirmed_ones = [
                (parcel.outgoing.event_type, _about(parcel.outgoing))
                for parcel, outcome in zip(parcels, outcomes, strict=True)
                if outcome is None
            ]
            self._facts.emit(EventsPublished(confirmed_ones, started, self._clock()))
        failure = next((outcome for outcome in outcomes if outcome is not None), None)
        confirmed = len(outcomes) if failure is None else outcomes.index(failure)
        sent: list[int] = []
        count = 0
        for row, group in zip(rows, events, strict=True):
            if count + len(group) > confirmed:
                break
            count += len(group)
            sent.append(row.seq)
        return sent, count, failure

    async def _connected(self) -> Broker:
        if self._broker is None or self._broker.is_lost:
            await self._connection.aclose()
            self._broker = await self._connection.enter_async_context(self._connect())
        return self._broker

    async def _rest(self) -> None:
        """Until there may be news: a signal, or the time to look."""
        wait_s = self._limits.relay_poll_s if self.leads else self._limits.relay_standby_s
        try:
            async with asyncio.timeout(wait_s):
                await self._wakeup.wait()
        except TimeoutError:
            return
        self._wakeup.clear()
        self._is_told = True


def _about(outgoing: Outgoing) -> About:
    # The event of a transfer has the transfer's id.
    is_transfer = outgoing.event_type.startswith("transfer.")
    return About(None, outgoing.traceparent, outgoing.event_id if is_transfer else None)
