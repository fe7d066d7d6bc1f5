"""Who follows which wallet, and one question to PostgreSQL for all of them.

Events are not kept for anybody: a stream knows up to which version its client was told, and reads
what comes then from the ledger. So any replica can go on with it, and this one after any trouble.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

from transferd.commit.events import Event, cloud_event, event_of_change, event_of_transfer
from transferd.config import Limits
from transferd.domain.errors import Draining, Overloaded
from transferd.ledger.store.database import Database
from transferd.ledger.store.errors import StoreError
from transferd.ledger.store.transfers import transfers_after
from transferd.ledger.store.wallet_changes import changes_after
from transferd.ledger.store.wallets import wallet_versions

EVENT_STREAM = "text/event-stream"


class Frame(NamedTuple):
    """An event as it goes over the wire, and the version of the wallet that it is about."""

    version: int
    data: bytes


class Watch:
    """One stream. Its client was told up to version `told`; the wallet has reached `known`."""

    __slots__ = ("_is_ahead", "_news", "_streams", "is_gone", "known", "told", "wallet_id")

    def __init__(
        self,
        streams: "Streams",
        wallet_id: str,
        *,
        told: int,
        known: int,
        is_gone: Callable[[], bool],
    ) -> None:
        self._streams = streams
        self._news = asyncio.Event()
        self._is_ahead = False
        self.wallet_id = wallet_id
        self.told = told
        self.known = known
        self.is_gone = is_gone

    def __repr__(self) -> str:
        return f"<Watch of {self.wallet_id}, told {self.told} of {self.known}>"

    def is_over(self) -> bool:
        """Whether the client has gone, the replica is about to, or the wallet has gone back."""
        return self._streams.is_closed or self._is_ahead or self.is_gone()

    async def frames(self) -> Sequence[Frame]:
        """What comes next, in order and without a gap; nothing if it cannot be read just now."""
        # Whoever finds nothing waits. The poll wakes it again for as long as it is behind.
        self._news.clear()
        return await self._streams.read(self.wallet_id, self.told) if self.told < self.known else ()

    async def wait(self, until: float) -> bool:
        """Whether there is something to do before `until`, a time of the event loop."""
        try:
            async with asyncio.timeout_at(until):
                await self._news.wait()
        except TimeoutError:
            return False
        return True

    def wake(self) -> None:
        """There is something to do."""
        self._news.set()

    def end_ahead(self) -> None:
        """End it: its client knows a version that the wallet has not reached.

        PostgreSQL has been restored to an earlier time. The client comes back with the version that
        it knows, and gets the answer that says so, in place of a silence.
        """
        self._is_ahead = True
        self.wake()

    def close(self) -> None:
        """Free its place."""
        self._streams.discard(self)


class Streams:
    """The streams of a replica. `run` is the task that polls while there are any."""

    def __init__(self, database: Database, limits: Limits) -> None:
        self._database = database
        self._limits = limits
        self._watches: dict[str, set[Watch]] = {}
        self._count = 0
        self._somebody_watches = asyncio.Event()
        self._turns_to_read = asyncio.Semaphore(limits.stream_reads_max)
        self._readings: dict[tuple[str, int], asyncio.Task[Sequence[Frame]]] = {}
        self.is_closed = False

    def __repr__(self) -> str:
        return f"<Streams {self._count} of {self._limits.streams_max}>"

    def __len__(self) -> int:
        return self._count

    def open(self, wallet_id: str, *, told: int, known: int, is_gone: Callable[[], bool]) -> Watch:
        """A place for one more stream, until `Watch.close`. Raises Draining or Overloaded."""
        if self.is_closed:
            raise Draining
        if self._count >= self._limits.streams_max:
            raise Overloaded
        watch = Watch(self, wallet_id, told=told, known=known, is_gone=is_gone)
        self._watches.setdefault(wallet_id, set()).add(watch)
        self._count += 1
        self._somebody_watches.set()
        return watch

    def discard(self, watch: Watch) -> None:
        """Forget a stream; once is enough."""
        watches = self._watches.get(watch.wallet_id, set())
        if watch not in watches:
            return
        watches.remove(watch)
        self._count -= 1
        if not watches:
            del self._watches[watch.wallet_id]
        if not self._count:
            self._somebody_watches.clear()

    def close(self) -> None:
        """End all streams; their clients resume at another replica."""
        self.is_closed = True
        for watch in self._all():
            watch.wake()

    async def run(self) -> None:
        """Poll while somebody watches, until cancelled."""
        while True:
            await self._somebody_watches.wait()
            await self.poll_once()
            await asyncio.sleep(self._limits.stream_poll_s)

    async def poll_once(self) -> int:
        """Wake the streams that have something to do; how many."""
        gone = [watch for watch in self._all() if watch.is_gone()]
        for watch in gone:
            watch.wake()
        # Of before the question: a stream may read on while it is being answered.
        told = {watch: watch.told for watch in self._all()}
        try:
            versions = await wallet_versions(self._database, list(self._watches))
        except StoreError:
            # PostgreSQL is away. Streams stay, and the first answer tells what they have missed.
            return len(gone)
        ahead = [watch for watch in told if told[watch] > versions.get(watch.wallet_id, -1)]
        for watch in ahead:
            watch.end_ahead()
        behind = [
            (watch, version)
            for wallet_id, version in versions.items()
            for watch in self._watches.get(wallet_id, ())
            if watch.told < version
        ]
        for watch, version in behind:
            watch.known = version
            watch.wake()
        return len(gone) + len(ahead) + len(behind)

    async def read(self, wallet_id: str, after: int) -> Sequence[Frame]:
        """The wallet's events above a version, in order and without a gap; a page of them at most.

        Those who ask for the same at the same time share one reading, and the bytes that it gave.
        """
        place = (wallet_id, after)
        reading = self._readings.get(place)
        if reading is None:
            reading = asyncio.create_task(self._read(wallet_id, after))
            self._readings[place] = reading
            reading.add_done_callback(lambda _: self._readings.pop(place))
        return await asyncio.shield(reading)

    async def _read(self, wallet_id: str, after: int) -> Sequence[Frame]:
        page_events = self._limits.stream_page_events
        async with self._turns_to_read:
            try:
                transfers = await transfers_after(
                    self._database, wallet_id, after_version=after, limit=page_events
                )
                changes = await changes_after(
                    self._database, wallet_id, after_version=after, limit=page_events
                )
            except StoreError:
                return ()
        events = {version: event_of_transfer(transfer) for version, transfer in transfers}
        for user_id, currency, change in changes:
            events[change.version] = event_of_change(change, user_id, currency)
        # Each query saw a moment of its own, so one may show what comes after something that the
        # other could not see yet. Versions have no gaps: the first one that is missing ends a page.
        frames: list[Frame] = []
        while (following := events.get(after + 1 + len(frames))) is not None:
            frames.append(_frame(after + 1 + len(frames), following))
        return frames

    def _all(self) -> list[Watch]:
        return [watch for watches in self._watches.values() for watch in watches]


def _frame(version: int, event: Event) -> Frame:
    # JSON in one line: inside of a text a line break is always escaped.
    data = cloud_event(event._asdict())
    return Frame(version, b"id: %d\nevent: %s\ndata: %s\n\n" % (version, event.type.encode(), data))
