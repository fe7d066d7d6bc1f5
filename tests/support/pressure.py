"""Many calls at once, and rows that another session locks."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TypeVar

import asyncpg

from tests.conftest import Database, Replicas
from tests.support.api import Api, Reply
from tests.support.home import home_url
from tests.support.waiting import until

T = TypeVar("T")


async def crowd(calls: Iterable[Awaitable[T]], *, at_once: int = 200) -> list[T]:
    """The results of all calls, in their order; at most `at_once` run at the same time."""
    semaphore = asyncio.Semaphore(at_once)

    async def limited(call: Awaitable[T]) -> T:
        async with semaphore:
            return await call

    return await asyncio.gather(*map(limited, calls))


async def best_s(call: Callable[[], Awaitable[object]], times: int = 60) -> float:
    """The shortest time that the call takes, which other load on the machine hardly changes."""
    took_s = []
    for _ in range(times):
        started = time.monotonic()
        await call()
        took_s.append(time.monotonic() - started)
    return min(took_s)


def statuses(replies: Iterable[Reply]) -> dict[int, int]:
    """The number of replies by status."""
    return dict(Counter(reply.status for reply in replies))


@asynccontextmanager
async def held(database: Database, sql: str, *arguments: object) -> AsyncIterator[None]:
    """Hold the locks that this statement takes, in another session, until the block ends."""
    connection = await asyncpg.connect(database.servers.database_url(database.name, superuser=True))
    try:
        async with connection.transaction():
            await connection.execute(database.in_ledger(sql), *arguments)
            yield
    finally:
        await connection.close()


@asynccontextmanager
async def held_rows(database: Database, *wallets: str) -> AsyncIterator[None]:
    """Hold the row locks of these wallets, in another session, until the block ends."""
    sql = "SELECT 1 FROM ledger_00.wallets WHERE id = ANY ($1::uuid[]) ORDER BY id FOR UPDATE"
    async with held(database, sql, list(wallets)):
        yield


async def until_waiting(database: Database, pid: int) -> None:
    """Wait until the session of the server with main that has this process id waits for a lock."""

    async def it_waits() -> bool:
        return bool(
            await home.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND wait_event_type = 'Lock'",
                pid,
            )
        )

    home = await asyncpg.connect(await home_url(database))
    try:
        await until(it_waits)
    finally:
        await home.close()


async def until_sessions_wait(database: Database, count: int) -> None:
    """Wait until this many sessions of the service wait for a lock in the test's database.

    With Citus those count that wait on the coordinator, and on the node with main.
    """
    sql = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = 'transferd' AND wait_event_type = 'Lock'"
    )

    async def they_wait() -> bool:
        waiting: int = sum([await each.fetchval(sql) for each in servers])
        return waiting == count

    urls = {database.servers.database_url(database.name, superuser=True), await home_url(database)}
    servers = [await asyncpg.connect(url) for url in urls]
    try:
        await until(they_wait)
    finally:
        for each in servers:
            await each.close()


@asynccontextmanager
async def busy_committers(database: Database, *apis: Api) -> AsyncIterator[None]:
    """Make the group in flight of each replica wait for a row lock until the block ends.

    All requests that are sent inside the block become one group. The block must end within
    `lock_timeout_s`, which is long in tests.
    """
    pairs = [(api, await api.wallet(1), await api.wallet()) for api in apis]
    async with held_rows(database, *(source for _, source, _ in pairs)):
        calls = [
            asyncio.create_task(api.transfer(source, destination, 1))
            for api, source, destination in pairs
        ]
        await until_sessions_wait(database, len(apis))
        yield
    assert statuses(await asyncio.gather(*calls)) == {201: len(apis)}


async def arrived(replicas: Replicas, backlog: int, *, replica: int = 0) -> None:
    """Wait until this many commands are in flight in a replica."""
    router = replicas.opened[replica].context.ledger.router
    await until(lambda: router.backlog == backlog)


def counted(replicas: Replicas, sample: str, *, replica: int = 0, **labels: str) -> float:
    """The value of a metric; 0 if it has no sample yet."""
    registry = replicas.opened[replica].context.metrics.registry
    return registry.get_sample_value(sample, labels) or 0.0
