"""Event streams of wallets, with one query to PostgreSQL for the versions of all in a ledger.

No event is buffered for a client: a stream keeps the version of the last event that it has sent,
and reads the next ones from the ledger. So any replica can resume it, and this one after a failure.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

from transferd.actors.ledgers import OpenLedger
from transferd.commit.events import LedgerEvent, cloud_event, event_of_change, event_of_transfer
from transferd.config import Limits
from transferd.domain.errors import Draining, Overloaded
from transferd.ledger.store.errors import StoreError
from transferd.ledger.store.transfers import transfers_after
from transferd.ledger.store.wallet_changes import changes_after
from transferd.ledger.store.wallets import wallet_versions
from transferd.share import Share

EVENT_STREAM = "text/event-stream"


class Frame(NamedTuple):
    """An event as bytes, and the version of the wallet after it."""

    version: int
    data: bytes


class Watch:
    """One stream: its client has the events up to version `sent`, the wallet is at `latest`."""

    __slots__ = ("_is_ahead", "_streams", "_wakeup", "is_gone", "latest", "sent", "wallet_id")

    def __init__(
        self,
        streams: "LedgerStreams",
        wallet_id: str,
        *,
        sent: int,
        latest: int,
        is_gone: Callable[[], bool],
    ) -> None:
        self._streams = streams
        self._wakeup = asyncio.Event()
        self._is_ahead = False
        self.wallet_id = wallet_id
        self.sent = sent
        self.latest = latest
        self.is_gone = is_gone

    def __repr__(self) -> str:
        return f"<Watch of {self.wallet_id}, sent {self.sent} of {self.latest}>"

    def is_over(self) -> bool:
        """Whether the client is gone, the replica drains, or the wallet is at an older version."""
        return self._streams.is_closed or self._is_ahead or self.is_gone()

    async def frames(self) -> Sequence[Frame]:
        """The next events, in order and without a gap; none if PostgreSQL does not answer."""
        # A stream that gets none waits. Each poll wakes it for as long as it is behind.
        self._wakeup.clear()
        if self.sent >= self.latest:
            return ()
        return await self._streams.read(self.wallet_id, self.sent)

    async def wait(self, until: float) -> bool:
        """Wait for `wake` or until a time of the event loop; whether it was `wake`."""
        try:
            async with asyncio.timeout_at(until):
                await self._wakeup.wait()
        except TimeoutError:
            return False
        return True

    def wake(self) -> None:
        """End the wait: an event has come, or the stream is over."""
        self._wakeup.set()

    def end_ahead(self) -> None:
        """End the stream because its client has a version that the wallet has not reached.

        This happens when PostgreSQL was restored to an earlier time. The client resumes with its
        version and gets 412 `version-not-reached` instead of silence.
        """
        self._is_ahead = True
        self.wake()

    def close(self) -> None:
        """Free the place of this stream."""
        self._streams.discard(self)


class Streams:
    """The streams of a replica, by ledger. `run` is the task that polls while there are streams."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._read_slots = asyncio.Semaphore(limits.stream_reads_all_max)
        self._ledgers: dict[int, LedgerStreams] = {}
        self._has_ledgers = asyncio.Event()
        self.is_closed = False

    def __repr__(self) -> str:
        return f"<Streams {len(self)} of {self._limits.streams_all_max}>"

    def __len__(self) -> int:
        return sum(len(streams) for streams in self._ledgers.values())

    def open(
        self,
        ledger: OpenLedger,
        wallet_id: str,
        *,
        sent: int,
        latest: int,
        is_gone: Callable[[], bool],
    ) -> Watch:
        """Register a stream until `Watch.close`. Raises Draining or Overloaded."""
        if self.is_closed:
            raise Draining
        number = ledger.database.ledger.number
        streams = self._ledgers.get(number)
        # A ledger may always have one.
        if len(self) >= self._limits.streams_all_max and streams is not None:
            raise Overloaded
        if streams is None:
            reads = Share(self._limits.stream_reads_max, self._read_slots)
            streams = LedgerStreams(ledger, reads, self._limits, self._forget)
        watch = streams.open(wallet_id, sent=sent, latest=latest, is_gone=is_gone)
        self._ledgers[number] = streams
        self._has_ledgers.set()
        return watch

    def close(self) -> None:
        """End all streams; their clients resume at another replica."""
        self.is_closed = True
        for streams in self._ledgers.values():
            streams.close()

    async def run(self) -> None:
        """Poll while there are streams, until cancelled. A ledger that is slow delays no other."""
        async with asyncio.TaskGroup() as polls:
            while True:
                await self._has_ledgers.wait()
                for streams in self._ledgers.values():
                    if not streams.is_polling:
                        streams.is_polling = True
                        polls.create_task(streams.poll())
                await asyncio.sleep(self._limits.stream_poll_s)

    def _forget(self, number: int) -> None:
        """The last stream of a ledger has ended."""
        del self._ledgers[number]
        if not self._ledgers:
            self._has_ledgers.clear()


class LedgerStreams:
    """The streams of one ledger; `ended` is called with its number after the last of them."""

    def __init__(
        self,
        ledger: OpenLedger,
        reads: Share,
        limits: Limits,
        ended: Callable[[int], None],
    ) -> None:
        # Kept, so that the ledger stays open and its limits are counted once.
        self._ledger = ledger
        self._database = ledger.database
        self._read_slots = reads
        self._limits = limits
        self._ended = ended
        self._watches: dict[str, set[Watch]] = {}
        self._count = 0
        self._readings: dict[tuple[str, int], asyncio.Task[Sequence[Frame]]] = {}
        self.is_polling = False
        self.is_closed = False

    def __repr__(self) -> str:
        return f"<LedgerStreams {self._count} of {self._limits.streams_max}>"

    def __len__(self) -> int:
        return self._count

    def open(self, wallet_id: str, *, sent: int, latest: int, is_gone: Callable[[], bool]) -> Watch:
        """Register a stream until `Watch.close`. Raises Overloaded."""
        if self._count >= self._limits.streams_max:
            raise Overloaded
        watch = Watch(self, wallet_id, sent=sent, latest=latest, is_gone=is_gone)
        self._watches.setdefault(wallet_id, set()).add(watch)
        self._count += 1
        return watch

    def discard(self, watch: Watch) -> None:
        """Remove a stream; a second call changes nothing."""
        watches = self._watches.get(watch.wallet_id, set())
        if watch not in watches:
            return
        watches.remove(watch)
        self._count -= 1
        if not watches:
            del self._watches[watch.wallet_id]
        if not self._count:
            self._ended(self._database.ledger.number)

    def close(self) -> None:
        """End all streams."""
        self.is_closed = True
        for watch in self._all():
            watch.wake()

    async def poll(self) -> None:
        """Wake the streams that are behind or over."""
        try:
            await self._poll()
        finally:
            self.is_polling = False

    async def _poll(self) -> None:
        gone = [watch for watch in self._all() if watch.is_gone()]
        for watch in gone:
            watch.wake()
        # Copied before the query, because streams go on while it runs.
        sent = {watch: watch.sent for watch in self._all()}
        try:
            versions = await wallet_versions(self._database, list(self._watches))
        except StoreError:
            # PostgreSQL is away. Streams stay open, and the first answer brings what they missed.
            return
        ahead = [watch for watch in sent if sent[watch] > versions.get(watch.wallet_id, -1)]
        for watch in ahead:
            watch.end_ahead()
        behind = [
            (watch, version)
            for wallet_id, version in versions.items()
            for watch in self._watches.get(wallet_id, ())
            if watch.sent < version
        ]
        for watch, version in behind:
            watch.latest = version
            watch.wake()

    async def read(self, wallet_id: str, after: int) -> Sequence[Frame]:
        """The wallet's events above a version, in order and without a gap; a page of them at most.

        Concurrent reads of the same page share one query and its bytes.
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
        async with self._read_slots:
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
        # The two queries have different snapshots, so one may see a version whose predecessor the
        # other does not see yet. Versions have no gaps: the first missing one ends the page.
        frames: list[Frame] = []
        while (following := events.get(after + 1 + len(frames))) is not None:
            frames.append(_frame(after + 1 + len(frames), following, self._database.ledger.name))
        return frames

    def _all(self) -> list[Watch]:
        return [watch for watches in self._watches.values() for watch in watches]


def _frame(version: int, event: LedgerEvent, ledger: str) -> Frame:
    # JSON is one line: a line break inside a string is always escaped.
    data = cloud_event(event._asdict(), ledger)
    return Frame(version, b"id: %d\nevent: %s\ndata: %s\n\n" % (version, event.type.encode(), data))
