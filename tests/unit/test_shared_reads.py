"""Concurrent reads by id share a round trip, and nothing else."""

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from transferd.shared_reads import SharedReads


class Source:
    """A source of values, whose reads wait until the test lets them go on."""

    def __init__(self, *, ids_max: int = 10, failing: str | None = None) -> None:
        self.reads: list[list[str]] = []
        self.failing = failing
        self.may_answer = asyncio.Event()
        self.shared = SharedReads(self._read, ids_max)

    async def _read(self, ids: Sequence[str]) -> Mapping[str, str]:
        self.reads.append(list(ids))
        await self.may_answer.wait()
        if self.failing in ids:
            raise LookupError(self.failing)
        return {id: f"value of {id}" for id in ids if id != "unknown"}

    async def asked(self, *ids: str) -> list[asyncio.Task[str | None]]:
        """Tasks that have asked for these values, in order."""
        tasks = [asyncio.create_task(self.shared.get(id)) for id in ids]
        # Each of them runs until it waits, then the reader does.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return tasks


async def test_reads_during_a_read_share_the_next_one() -> None:
    source = Source()
    first = await source.asked("a")
    others = await source.asked("b", "c", "b")
    assert source.reads == [["a"]]
    assert repr(source.shared) == "<SharedReads 2 waiting>"
    source.may_answer.set()
    found = await asyncio.gather(*first, *others)
    assert found == ["value of a", "value of b", "value of c", "value of b"]
    assert source.reads == [["a"], ["b", "c"]]


async def test_a_read_after_the_last_one_begins_at_once() -> None:
    source = Source()
    source.may_answer.set()
    assert await source.shared.get("a") == "value of a"
    assert await source.shared.get("a") == "value of a"
    assert source.reads == [["a"], ["a"]]


async def test_a_read_never_shares_one_that_began_before_it() -> None:
    # The value may have changed since.
    source = Source()
    tasks = await source.asked("a") + await source.asked("a")
    source.may_answer.set()
    await asyncio.gather(*tasks)
    assert source.reads == [["a"], ["a"]]


async def test_an_unknown_id_is_none() -> None:
    source = Source()
    source.may_answer.set()
    assert await asyncio.gather(*await source.asked("unknown", "a")) == [None, "value of a"]


async def test_more_ids_than_fit_take_several_reads() -> None:
    source = Source(ids_max=2)
    source.may_answer.set()
    ids = ["a", "b", "c", "d", "e"]
    assert await asyncio.gather(*await source.asked(*ids)) == [f"value of {id}" for id in ids]
    assert source.reads == [["a", "b"], ["c", "d"], ["e"]]


async def test_an_error_reaches_each_caller_of_its_read_and_no_other() -> None:
    source = Source(ids_max=2, failing="b")
    source.may_answer.set()
    tasks = await source.asked("a", "b", "c", "b")
    *failed, found, again = await asyncio.gather(
        tasks[0], tasks[1], tasks[2], tasks[3], return_exceptions=True
    )
    errors = [*failed, again]
    assert [(type(error), str(error)) for error in errors] == [(LookupError, "b")] * 3
    # Each caller raises an error of its own, because a traceback grows with each that raises it.
    assert len({id(error) for error in errors}) == 3
    assert found == "value of c"
    source.failing = None
    assert await source.shared.get("b") == "value of b"


async def test_a_caller_that_is_cancelled_leaves_the_others() -> None:
    source = Source()
    gone, *others = await source.asked("a", "a", "b")
    gone.cancel()
    source.may_answer.set()
    assert await asyncio.gather(*others) == ["value of a", "value of b"]
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert source.reads == [["a", "b"]]


class Particular(Exception):
    """An error that cannot be copied."""

    def __reduce__(self) -> str:
        raise TypeError


async def test_an_error_that_cannot_be_copied_reaches_each_caller() -> None:
    async def read(_: Sequence[str]) -> Mapping[str, str]:
        raise Particular

    shared = SharedReads(read, 10)
    errors = await asyncio.gather(shared.get("a"), shared.get("b"), return_exceptions=True)
    assert [type(error) for error in errors] == [Particular] * 2


async def test_an_error_keeps_its_cause() -> None:
    async def read(_: Sequence[str]) -> Mapping[str, str]:
        raise LookupError from OSError("the server is gone")

    with pytest.raises(LookupError) as found:
        await SharedReads(read, 10).get("a")
    assert str(found.value.__cause__) == "the server is gone"
