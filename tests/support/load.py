"""A small load that records acknowledged transfers and those with an unknown outcome."""

import asyncio
from collections import Counter
from itertools import count

import aiohttp

from tests.conftest import Database
from tests.support.api import Api
from tests.support.pressure import crowd
from tests.support.truth import transfers_of
from tests.support.waiting import until

# Pause after each answer. Some hundred transfers per second are enough for every fault to affect
# some, and leave half of a small machine to the service.
_PAUSE_S = 0.05


class Load:
    """Workers that each pay 1 repeatedly, with a new key for each payment, until `stop`."""

    def __init__(
        self,
        api: Api,
        source: str,
        destination: str,
        *,
        name: str = "load",
        repeats: bool = False,
    ) -> None:
        self.acknowledged: set[str] = set()
        # Keys of requests with a 5xx or without an answer.
        self.unknown: set[str] = set()
        self.statuses: Counter[int] = Counter()
        self._api = api
        # Whether requests without an answer are repeated with their key.
        self._repeats = repeats
        self._wallets = (source, destination)
        self._names = (f"{name}-{n}" for n in count())
        self._workers: list[asyncio.Task[None]] = []
        self._is_over = False

    def start(self, workers: int = 8) -> None:
        """Start the workers."""
        self._workers = [asyncio.create_task(self._work()) for _ in range(workers)]

    async def until_acknowledged(self, more: int) -> None:
        """Wait until this many more transfers are acknowledged."""
        wanted = len(self.acknowledged) + more
        await until(lambda: len(self.acknowledged) >= wanted)

    async def stop(self) -> None:
        """Wait until each worker has ended its last request."""
        self._is_over = True
        await asyncio.gather(*self._workers)

    async def settle(self, api: Api) -> None:
        """Repeat transfers with an unknown outcome under their keys, so that each is posted."""
        await crowd((self._pay(api, name) for name in sorted(self.unknown)), at_once=20)

    async def assert_each_once(self, database: Database) -> None:
        """Check that acknowledged transfers are in the ledger once, unknown ones at most once."""
        names = self.acknowledged | self.unknown
        posted = await transfers_of(database, *names)
        assert set(posted.values()) <= {1}
        assert self.acknowledged <= set(posted)

    async def _work(self) -> None:
        for name in self._names:
            await self._pay(self._api, name)
            while self._repeats and name in self.unknown:
                await self._pay(self._api, name)
            if self._is_over:
                return
            await asyncio.sleep(_PAUSE_S)

    async def _pay(self, api: Api, name: str) -> None:
        try:
            reply = await api.transfer(*self._wallets, 1, key=name, reference=name)
        except aiohttp.ClientError:
            self.unknown.add(name)
            # The port may be closed for a while.
            await asyncio.sleep(0.01)
            return
        self.statuses[reply.status] += 1
        if reply.status == 201:
            self.acknowledged.add(name)
            self.unknown.discard(name)
        else:
            self.unknown.add(name)
