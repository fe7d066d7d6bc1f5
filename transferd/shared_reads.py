"""Reads by id that share round trips."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from copy import copy
from itertools import islice
from typing import Generic, TypeVar

Value = TypeVar("Value")
_Waiting = dict[str, list[asyncio.Future[Value | None]]]


class SharedReads(Generic[Value]):
    """Reads values by id. While a read is in flight, further ids wait for the next one.

    `read` reads up to `ids_max` values at once; unknown ids are missing.
    """

    def __init__(
        self, read: Callable[[Sequence[str]], Awaitable[Mapping[str, Value]]], ids_max: int
    ) -> None:
        self._read = read
        self._ids_max = ids_max
        # In the order of the calls.
        self._wanted: _Waiting[Value] = {}
        self._reader: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<SharedReads {len(self._wanted)} waiting>"

    async def get(self, id: str) -> Value | None:
        """The value of an id; None if it is unknown. Raises what `read` raises."""
        # One future per caller, so that cancelling one caller does not cancel the others.
        future: asyncio.Future[Value | None] = asyncio.get_running_loop().create_future()
        self._wanted.setdefault(id, []).append(future)
        if self._reader is None:
            self._reader = asyncio.create_task(self._read_wanted())
        return await future

    async def _read_wanted(self) -> None:
        """Read the requested ids in rounds, until no caller waits."""
        try:
            while self._wanted:
                ids = list(islice(self._wanted, self._ids_max))
                await self._answer({id: self._wanted.pop(id) for id in ids})
        finally:
            self._reader = None
            # Only if the reader was cancelled: no caller may wait forever.
            _cancel(self._wanted)
            self._wanted = {}

    async def _answer(self, wanted: _Waiting[Value]) -> None:
        waiters = [(id, future) for id, futures in wanted.items() for future in futures]
        try:
            found = await self._read(list(wanted))
        except asyncio.CancelledError:
            _cancel(wanted)
            raise
        except Exception as error:
            for _, future in waiters:
                if not future.done():
                    future.set_exception(_copy_of(error))
        else:
            for id, future in waiters:
                if not future.done():
                    future.set_result(found.get(id))


def _cancel(wanted: _Waiting[Value]) -> None:
    for futures in wanted.values():
        for future in futures:
            future.cancel()


def _copy_of(error: Exception) -> Exception:
    """An error for one caller, to whose frames its traceback refers, with the same cause."""
    try:
        copied = copy(error)
    except Exception:
        # A class that cannot be copied. Its callers share the error: all of them must get one.
        return error
    copied.__cause__ = error.__cause__
    return copied
