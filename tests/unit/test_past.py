"""Readers of a wallet share a lock only if they asked before it began; one follows the other."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.support.waiting import until
from tests.unit.samples import settled
from transferd.config import Limits
from transferd.ledger.past import SharedWaits
from transferd.ledger.store import wallets as store
from transferd.ledger.store.database import LedgerDatabase
from transferd.ledger.store.errors import ConnectionFailure, LockTimeout
from transferd.share import Share


@dataclass
class Rows:
    """Rows whose locks the test grants by hand."""

    begun: list[str] = field(default_factory=list)
    _ends: dict[str, list[asyncio.Future[None]]] = field(default_factory=dict)

    async def wait(self, _: LedgerDatabase, wallet: str) -> None:
        """The future that a lock of the row waits for."""
        self.begun.append(wallet)
        end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ends.setdefault(wallet, []).append(end)
        await end

    async def is_unlocked(self, _: LedgerDatabase, wallet: str) -> bool:
        """The writers keep all rows."""
        return False

    async def read(self, _: LedgerDatabase, wallet: str) -> None:
        """Skip the looks, so that readers wait for the lock at once."""

    def end(self, wallet: str, failure: Exception | None = None) -> None:
        """End the oldest lock of the row."""
        end = self._ends[wallet].pop(0)
        if failure is None:
            end.set_result(None)
        else:
            end.set_exception(failure)


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> Rows:
    rows = Rows()
    monkeypatch.setattr(store, "wait_for_writers", rows.wait)
    monkeypatch.setattr(store, "is_unlocked", rows.is_unlocked)
    monkeypatch.setattr(store, "read_wallet_and_clock", rows.read)
    return rows


def locks_of(rows: Rows, locks_max: int = 4) -> SharedWaits:
    return SharedWaits(cast(Any, None), Limits(), Share(locks_max, asyncio.Semaphore(locks_max)))


def ask(locks: SharedWaits, wallet: str = "ada") -> asyncio.Task[bool]:
    return asyncio.create_task(locks.for_writers(wallet))


async def test_a_reader_after_the_beginning_of_a_lock_waits_for_the_next_one(rows: Rows) -> None:
    locks = locks_of(rows)
    first = ask(locks)
    await settled()
    assert rows.begun == ["ada"]
    later = [ask(locks) for _ in range(3)]
    await settled()
    assert repr(locks) == "<SharedWaits 1 begun, 1 to come>"
    assert rows.begun == ["ada"]
    rows.end("ada")
    await settled()
    # A lock that has begun does not settle anything for later readers.
    assert (first.done(), [each.done() for each in later]) == (True, [False] * 3)
    assert rows.begun == ["ada", "ada"]
    rows.end("ada")
    assert await asyncio.gather(first, *later) == [True] * 4
    assert repr(locks) == "<SharedWaits 0 begun, 0 to come>"


async def test_readers_that_come_together_share_a_lock(rows: Rows) -> None:
    locks = locks_of(rows)
    asked = [ask(locks) for _ in range(200)]
    await settled()
    assert rows.begun == ["ada"]
    rows.end("ada")
    assert await asyncio.gather(*asked) == [True] * 200


async def test_wallets_wait_on_their_own_up_to_a_limit(rows: Rows) -> None:
    locks = locks_of(rows, locks_max=2)
    asked = {name: ask(locks, name) for name in ("ada", "bob", "cy", "di")}
    await settled()
    assert rows.begun == ["ada", "bob"]
    rows.end("bob")
    await settled()
    assert rows.begun == ["ada", "bob", "cy"]
    assert asked["bob"].done()
    for name in ("cy", "ada"):
        rows.end(name)
    await settled()
    rows.end("di")
    assert await asyncio.gather(*asked.values()) == [True] * 4
    assert rows.begun == ["ada", "bob", "cy", "di"]


@pytest.mark.parametrize("failure", [LockTimeout("held", "55P03"), ConnectionFailure("away")])
async def test_a_lock_that_fails_fails_for_its_readers_and_not_for_the_next(
    rows: Rows, failure: Exception
) -> None:
    locks = locks_of(rows)
    first = ask(locks)
    await settled()
    second = ask(locks)
    rows.end("ada", failure)
    await settled()
    if isinstance(failure, LockTimeout):
        assert await first is False
    else:
        with pytest.raises(ConnectionFailure):
            await first
    rows.end("ada")
    assert await second is True


async def test_a_reader_that_gives_up_takes_the_lock_from_no_other(rows: Rows) -> None:
    locks = locks_of(rows)
    first, second = ask(locks), ask(locks)
    await settled()
    first.cancel()
    await settled()
    assert first.cancelled()
    rows.end("ada")
    assert await second is True
    # Also if it was the only one, and the lock fails later.
    alone = ask(locks)
    await settled()
    alone.cancel()
    rows.end("ada", ConnectionFailure("away"))
    await settled()
    assert repr(locks) == "<SharedWaits 0 begun, 0 to come>"


# Looks before the lock


_NOW = datetime(2026, 1, 1, tzinfo=UTC)


def looks(
    monkeypatch: pytest.MonkeyPatch, *, is_unlocked: Iterable[bool], changed_s: Iterable[float]
) -> None:
    """What each look finds: whether the row is free, and the wallet's time, in seconds from now."""
    free, times = iter(is_unlocked), iter(changed_s)

    async def unlocked(_: LedgerDatabase, wallet: str) -> bool:
        return next(free)

    async def read(_: LedgerDatabase, wallet: str) -> tuple[Any, datetime]:
        return SimpleNamespace(updated_at=_NOW + timedelta(seconds=next(times))), _NOW

    monkeypatch.setattr(store, "is_unlocked", unlocked)
    monkeypatch.setattr(store, "read_wallet_and_clock", read)


@pytest.mark.parametrize(
    ("is_unlocked", "changed_s"),
    [
        # The row is free at once, or in a pause between two groups.
        ([True], []),
        ([False, True], [-5, -5]),
        ([False, False, True], [-5, -5, -5]),
        # The wallet has a change at the instant or later.
        ([False], [-5, 0]),
        ([False, False], [-5, -5, 1]),
    ],
)
async def test_writers_that_end_by_themselves_meet_no_lock(
    rows: Rows, monkeypatch: pytest.MonkeyPatch, is_unlocked: list[bool], changed_s: list[float]
) -> None:
    looks(monkeypatch, is_unlocked=is_unlocked, changed_s=changed_s)
    assert await ask(locks_of(rows)) is True
    assert rows.begun == []


async def test_a_row_that_is_never_free_and_never_changed_is_waited_for(
    rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks(monkeypatch, is_unlocked=[False] * 4, changed_s=[-5] * 4)
    asked = ask(locks_of(rows))
    await until(lambda: rows.begun == ["ada"])
    rows.end("ada")
    assert await asked is True
