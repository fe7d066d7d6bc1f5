"""A transport without a broker, for `transferd dev` where no RabbitMQ is installed.

A row stays in the outbox until each of its events was delivered or has a dead letter. So nothing is
lost when the process ends; but what waits for another attempt is remembered in memory only, and
begins again from its first attempt.
"""

import asyncio
from collections.abc import Sequence

from transferd.config import Limits
from transferd.ledger.store import outbox
from transferd.ledger.store.database import Database
from transferd.ledger.store.errors import StoreError
from transferd.notifications.inbox import Inbox
from transferd.notifications.messages import Deferred, Message
from transferd.notifications.unpacking import unpack
from transferd.observability.facts import Facts, RelayFailed


class LocalTransport:
    """A `Transport` that reads the outbox itself; relay and broker in one."""

    # What waits for another attempt ends with the process.
    keeps_deferred = False

    def __init__(
        self, database: Database, limits: Limits, facts: Facts, wakeup: asyncio.Event
    ) -> None:
        self._database = database
        self._limits = limits
        self._facts = facts
        self._wakeup = wakeup
        self._inbox = Inbox(limits.notify_linger_s)
        # How many messages of a row are not finished yet; by its sequence number.
        self._open: dict[int, int] = {}
        self._over: list[int] = []
        self.fault: str | None = None

    def __repr__(self) -> str:
        return f"<LocalTransport {len(self._open)} rows of the outbox open>"

    async def run(self) -> None:
        """Read and clear the outbox until cancelled."""
        wait_s = 0.0
        while True:
            try:
                count = await self.relay_once()
            except StoreError as error:
                self.fault = f"PostgreSQL: {error}"
                self._facts.emit(RelayFailed(error))
                wait_s = min(
                    max(wait_s * 2, self._limits.relay_wait_first_s), self._limits.relay_wait_max_s
                )
                await asyncio.sleep(wait_s)
                continue
            self.fault, wait_s = None, 0.0
            if not count:
                try:
                    async with asyncio.timeout(self._limits.relay_poll_s):
                        await self._wakeup.wait()
                    self._wakeup.clear()
                except TimeoutError:
                    pass

    async def relay_once(self) -> int:
        """Delete the rows that are over, and read further ones; how many events. StoreError."""
        over, self._over = self._over, []
        if over:
            try:
                await outbox.delete_outbox(self._database, over)
            except StoreError:
                self._over += over
                raise
            for seq in over:
                del self._open[seq]
        room = self._limits.notify_prefetch - sum(self._open.values())
        if room <= 0:
            return 0
        rows = await outbox.read_outbox(self._database, events_max=room, known=list(self._open))
        count = 0
        for row, group in zip(rows, await unpack(self._database, rows), strict=True):
            messages = [Message(item.body, item.endpoint_id, receipt=row.seq) for item in group]
            self._open[row.seq] = len(messages)
            self._receive(messages)
            count += len(messages)
        return count

    async def receive(self, messages_max: int) -> list[Message]:
        """At least one message; waits for it."""
        return await self._inbox.take(messages_max)

    async def defer(self, deferred: Sequence[Deferred]) -> list[bool]:
        """By a timer."""
        loop = asyncio.get_running_loop()
        for item in deferred:
            seq: int = item.source.receipt
            self._open[seq] += 1
            message = Message(
                item.outgoing.body,
                item.outgoing.endpoint_id,
                item.attempts,
                item.parks,
                receipt=seq,
            )
            loop.call_later(item.delay_s, self._receive, [message])
        return [True] * len(deferred)

    async def renew(self, message: Message) -> bool:
        """Nothing is ever returned here."""
        return False

    def reconsider(self, messages: Sequence[Message]) -> None:
        """Receive these once more."""
        self._receive(messages)

    async def finish(self, messages: Sequence[Message]) -> None:
        """Count down; a row without open messages is deleted with the next reading."""
        for message in messages:
            seq: int = message.receipt
            self._open[seq] -= 1
            if not self._open[seq]:
                self._over.append(seq)
        if self._over:
            self._wakeup.set()

    async def give_back(self, messages: Sequence[Message]) -> None:
        """Receive them again."""
        self._receive(messages)

    def _receive(self, messages: Sequence[Message]) -> None:
        self._inbox.put(messages)
