"""The lanes in which the groups of all ledgers are committed: some at once, one of each ledger."""

import asyncio
from collections.abc import Coroutine, Hashable, Iterator
from typing import Any, Protocol


class LedgerCommitter(Protocol):
    """What a lane runs: the committer of one ledger.

    `fills_its_share`: whether its last group was as large as the other ledgers allow.
    """

    fills_its_share: bool

    @property
    def node(self) -> Hashable:
        """The database server that holds the ledger."""
        ...

    @property
    def has_ready(self) -> bool:
        """Whether a turn is ready."""
        ...

    @property
    def waiting(self) -> int:
        """The number of envelopes that wait or are in flight."""
        ...

    async def commit_once(self) -> int:
        """Commit one group."""
        ...


class Lanes:
    """Takes the committers that are ready in turn; each waits until its group in flight has ended.

    Each database server has `lanes_max` lanes, so one that hangs stops no ledger of another one.
    A ledger that fills its share pauses after a group for as long as the group took, but not for
    longer than `pause_max_s`. So one that is flooded leaves processor time to others.
    """

    def __init__(self, lanes_max: int, pause_max_s: float) -> None:
        self._lanes_max = lanes_max
        self._pause_max_s = pause_max_s
        self._ready: dict[Hashable, asyncio.Queue[LedgerCommitter]] = {}
        # Those that are ready or in flight.
        self._busy: dict[LedgerCommitter, None] = {}
        self._tasks: asyncio.TaskGroup | None = None

    def __repr__(self) -> str:
        return f"<Lanes of {len(self._busy)} busy ledgers>"

    async def run(self) -> None:
        """Commit until cancelled. Raises what a task has raised, which is always a fault."""
        try:
            async with asyncio.TaskGroup() as self._tasks:
                for node in self._ready:
                    self._open(node)
                await asyncio.Event().wait()
        finally:
            self._tasks = None

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` until it ends or `run` is cancelled."""
        assert self._tasks is not None
        self._tasks.create_task(work)

    def announce(self, committer: LedgerCommitter) -> None:
        """The committer has something ready. Surplus announcements change nothing."""
        if committer not in self._busy:
            self._busy[committer] = None
            self._queue(committer)

    def others(self, committer: LedgerCommitter) -> Iterator[LedgerCommitter]:
        """The committers of other ledgers that are ready or in flight."""
        return (other for other in self._busy if other is not committer)

    def _queue(self, committer: LedgerCommitter) -> None:
        node = committer.node
        if node not in self._ready:
            self._ready[node] = asyncio.Queue()
            self._open(node)
        self._ready[node].put_nowait(committer)

    def _open(self, node: Hashable) -> None:
        if self._tasks is not None:
            for _ in range(self._lanes_max):
                self._tasks.create_task(self._commit(self._ready[node]))

    async def _commit(self, ready: asyncio.Queue[LedgerCommitter]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            committer = await ready.get()
            began = loop.time()
            await committer.commit_once()
            if not committer.has_ready:
                del self._busy[committer]
            elif committer.fills_its_share:
                pause_s = min(loop.time() - began, self._pause_max_s)
                loop.call_later(pause_s, self._queue, committer)
            else:
                self._queue(committer)
