"""Six payers, two replicas, one of them killed: answers about the past stay and add up."""

import asyncio
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import cycle

import aiohttp

from tests.conftest import Database
from tests.support.api import Api
from tests.support.load import Load
from tests.support.past import BEGINNING, NoAnswer, Said, at, entries, text_of
from tests.support.topology import topology
from tests.support.truth import faults_in
from tests.support.waiting import until

# From a killed replica, or from one that waits for locks that it has left.
_NO_ANSWER = (aiohttp.ClientError, TimeoutError, NoAnswer)


class Readers:
    """Ask each replica in turn about the past until `stop`; `said` holds the answers."""

    def __init__(self, apis: Sequence[Api], wallet: str) -> None:
        self.said = Said(wallet)
        self._apis = apis
        self._wallet = wallet
        self._is_over = False
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """One reads windows that meet, two read instants."""
        readings = (self._read_windows(), self._read_instants(), self._read_instants())
        self._tasks = [asyncio.create_task(reading) for reading in readings]

    async def until_told(self, more: int) -> None:
        """Wait until that many more instants and windows were answered."""
        instants, windows = len(self.said.instants) + more, len(self.said.windows) + more

        def are_told() -> bool:
            return len(self.said.instants) >= instants and len(self.said.windows) >= windows

        await until(are_told, within_s=60.0)

    async def stop(self) -> None:
        """Wait for the answers that are awaited."""
        self._is_over = True
        await asyncio.gather(*self._tasks)

    async def _read_windows(self) -> None:
        since = BEGINNING
        for api in self._in_turn():
            end = text_of(datetime.now(UTC))
            with suppress(*_NO_ANSWER):
                window = await entries(api, self._wallet, f"from={since}&to={end}")
                self.said.windows.append((since, end, window))
                since = end

    async def _read_instants(self) -> None:
        for api in self._in_turn():
            instant = text_of(datetime.now(UTC))
            with suppress(*_NO_ANSWER):
                reply = await at(api, self._wallet, instant)
                assert reply.status == 200, reply
                self.said.instants.append((instant, reply.json))

    def _in_turn(self) -> Iterator[Api]:
        for api in cycle(self._apis):
            if self._is_over:
                return
            yield api


async def test_answers_about_the_past_stay_the_same_while_a_replica_is_killed(
    database: Database,
) -> None:
    async with topology(database, 2) as service:
        api = service.api
        ada, bob = await api.wallet(10_000_000), await api.wallet()
        load = Load(api, ada, bob, repeats=True)
        replicas = [Api(api.session, f"http://{address}") for address in service.addresses]
        readers = Readers(replicas, ada)
        load.start(workers=6)
        readers.start()
        await load.until_acknowledged(100)
        await readers.until_told(100)
        # The replica of one address ends in the middle of its groups and of its readers' locks.
        os.kill(service.pids()[0], signal.SIGKILL)
        await readers.until_told(100)
        await service.until_all_ready()
        await load.until_acknowledged(100)
        await readers.until_told(100)
        await load.stop()
        await readers.stop()
        assert await readers.said.faults(api) == []
        # There were windows with entries, all of them in the statement.
        told = sum(len(window) for *_, window in readers.said.windows)
        assert told > 200
        assert len(await entries(api, ada)) >= told
    assert await faults_in(database) == []
