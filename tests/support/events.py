"""A client of event streams that accepts only the exact syntax of the service."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from tests.conftest import Replicas
from tests.support.api import Api
from tests.support.pressure import counted
from tests.support.waiting import patient_s, until

WITHIN_S = 10.0


@dataclass(frozen=True)
class Event:
    """An event: its fields as they were sent, in their order, and the comment before them."""

    fields: list[tuple[str, str]]
    comments: list[str]

    def __getitem__(self, name: str) -> str:
        [value] = [value for each, value in self.fields if each == name]
        return value

    @property
    def version(self) -> int:
        """The version of the wallet, which is the id of the event."""
        return int(self["id"])

    @property
    def cloud_event(self) -> Any:
        """The decoded data."""
        return orjson.loads(self["data"])


class Stream:
    """An open event stream. It begins after `start_version`, the id of its first block."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.status = response.status
        self.headers = response.headers
        self.start_version = -1
        self.opening = Event([], [])

    async def block(self) -> Event | None:
        """The next block, which ends with an empty line; None at the end of the stream."""
        fields: list[tuple[str, str]] = []
        comments: list[str] = []
        async with asyncio.timeout(patient_s(WITHIN_S)):
            while line := (await self.response.content.readline()).decode():
                assert line.endswith("\n"), line
                if line == "\n":
                    return Event(fields, comments)
                name, colon, value = line[:-1].partition(": ")
                assert colon or line.startswith(":"), line
                if name:
                    fields.append((name, value))
                else:
                    comments.append(value)
        assert (fields, comments) == ([], []), "cut off in the middle of an event"
        return None

    async def open(self) -> None:
        """Read the first block."""
        opening = await self.block()
        assert opening is not None
        self.opening = opening
        self.start_version = opening.version

    async def event(self) -> Event:
        """The next event; heartbeats are skipped."""
        while True:
            block = await self.block()
            assert block is not None, "the stream has ended"
            if block.fields:
                return block

    async def events(self, count: int) -> list[Event]:
        """The next events."""
        return [await self.event() for _ in range(count)]

    async def until_version(self, version: int) -> list[Event]:
        """All events up to the one with this version."""
        found = [await self.event()]
        while found[-1].version < version:
            found.append(await self.event())
        return found

    async def rest(self) -> list[Event]:
        """All blocks until the stream ends."""
        found = []
        while (block := await self.block()) is not None:
            found.append(block)
        return found


@asynccontextmanager
async def following(api: Api, wallet: str, last: int | None = None) -> AsyncIterator[Stream]:
    """Follow a wallet until the block ends; `last` is the Last-Event-ID."""
    headers = dict(api.headers)
    if last is not None:
        headers["Last-Event-ID"] = str(last)
    async with api.session.get(f"{api.url}/wallets/{wallet}/events", headers=headers) as response:
        stream = Stream(response)
        try:
            if response.status == 200:
                await stream.open()
            yield stream
        finally:
            # The service does not end the stream, so reading on would not finish.
            response.close()


def versions(events: list[Event]) -> list[int]:
    return [event.version for event in events]


async def until_streams(replicas: Replicas, count: int) -> None:
    """Wait until the first replica has this many open streams."""
    await until(lambda: counted(replicas, "transferd_event_streams") == count)
