"""The deployment for chaos: every part can be killed, and every connection goes through a proxy."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import chain
from pathlib import Path

import asyncpg
from redis.asyncio import Redis

from loadtest.ledgers import KeyedLedger, make_ledgers
from loadtest.topology import Deployment, Plan, deployed, migrated
from tests.fault.chaos.launcher import write_offset
from tests.fault.chaos.removals import drops_of
from tests.support.project import ROOT
from tests.support.proxy import Proxy
from tests.support.waiting import patient_s
from transferd.devstack import StackError
from transferd.devstack.process import process_tree, wait_until_gone

# It usually takes two seconds.
READY_S = patient_s(20.0)
_ANSWER_S = patient_s(1.0)
# Short delays, so that retries happen within a round, but many of them: on a busy machine the
# receiver, which runs in this process, may not answer in time for a minute.
_SETTINGS = {
    "TRANSFERD_NOTIFY_RETRY_DELAYS_S": "0.2,0.5,1,2,4,8,16",
    "TRANSFERD_WEBHOOK_ALLOW_HTTP": "true",
    "TRANSFERD_WEBHOOK_ALLOW_NETWORKS": "127.0.0.0/8",
    "PYTHONPATH": str(ROOT),
}
# Redis needs this much for the connections of the replicas, so it evicts almost all data.
_STARVED_BYTES = 256 * 1024
# The queries of the service call `clock_timestamp()` without a schema, so PostgreSQL finds the
# function in `chaos`, the first schema in the search path of the role.
_CLOCK_FIRST = """
CREATE SCHEMA IF NOT EXISTS chaos;
ALTER ROLE CURRENT_USER SET search_path = chaos, pg_catalog, public;"""
_CLOCK = """
CREATE OR REPLACE FUNCTION chaos.clock_timestamp() RETURNS timestamptz LANGUAGE sql
AS 'SELECT pg_catalog.clock_timestamp() + make_interval(secs => {ahead_s})'"""


class ChaosDeployment:
    """The running deployment; `chaos_deployment` creates it.

    Links have the names of their ends: nginx-replica-1, replica-1-postgres, replica-1-redis,
    worker-postgres, worker-rabbitmq. It differs in one way from a deployment without proxies: a
    connection to a part that is down is accepted and closed, not refused.
    """

    def __init__(
        self,
        whole: Deployment,
        links: dict[str, Proxy],
        directory: Path,
        limits: str,
    ) -> None:
        self.programs = whole.programs
        self.replicas = whole.replicas
        self.servers = whole.servers
        self.url = whole.url
        self.part = whole.part
        self.links = links
        self.ledgers: Sequence[KeyedLedger] = whole.ledgers
        self._whole = whole
        self._directory = directory
        self._limits = limits
        stack = whole.stack
        if stack.postgres is None or stack.redis is None or stack.rabbitmq is None:
            raise StackError("chaos needs RabbitMQ as well: apt install rabbitmq-server")
        self.postgres, self.redis = stack.postgres, stack.redis

    async def until_ready(self, within_s: float = READY_S) -> float:
        """Wait until all programs are ready, asked directly. Raises StackError."""
        return await self._whole.until_ready(within_s, answer_s=_ANSWER_S)

    async def restart(self, name: str) -> None:
        """Stop the part with SIGTERM if it runs, and start it on the same port.

        On return a server answers, but a program may not be ready yet.
        """
        part = self.part(name)
        await part.stop()
        await part.start()

    def jump_clock(self, name: str, seconds: float) -> None:
        """Set the time of day of a replica or the worker ahead by `seconds`; 0 ends the jump."""
        write_offset(_clock(self._directory, name), seconds)

    async def flush_redis(self) -> None:
        """Delete all data in Redis."""
        async with self._redis() as client:
            await client.flushall()

    async def limit_redis_memory(self) -> None:
        """Make Redis evict almost all old and new data."""
        async with self._redis() as client:
            info = await client.info("memory")
            await client.config_set("maxmemory-policy", "allkeys-lru")
            await client.config_set("maxmemory", info["used_memory_startup"] + _STARVED_BYTES)

    async def unlimit_redis_memory(self) -> None:
        """Undo `limit_redis_memory`."""
        async with self._redis() as client:
            await client.config_set("maxmemory", 0)
            await client.config_set("maxmemory-policy", "noeviction")

    async def slow_commits(self, seconds: float) -> None:
        """Delay each COMMIT by `seconds`, 0.1 at most, before it writes to the disk; 0 ends it."""
        await _execute(
            self.postgres.superuser_url,
            # By default PostgreSQL delays a COMMIT only while other transactions run.
            "ALTER SYSTEM SET commit_siblings = 0",
            f"ALTER SYSTEM SET commit_delay = {round(seconds * 1e6)}",
            "SELECT pg_reload_conf()",
        )

    async def jump_database_clock(self, seconds: float) -> None:
        """Set the clock that the service reads in PostgreSQL ahead; 0 ends the jump."""
        await _execute(self.postgres.url, _CLOCK.format(ahead_s=float(seconds)))

    async def heal_links(self, names: Iterable[str]) -> None:
        """End the faults of these links."""
        for name in names:
            await self.links[name].heal()

    async def heal(self) -> None:
        """End all faults of links, pauses, clocks and memory, and start all parts."""
        await self.heal_links(self.links)
        for server in self.servers.values():
            server.resume()
            await server.start()
        await self.unlimit_redis_memory()
        await self.slow_commits(0.0)
        await self.jump_database_clock(0.0)
        for each in self.programs.values():
            self.jump_clock(each.name, 0.0)
            each.resume()
            await each.start()

    async def recreate(self, without: Iterable[str] = ()) -> None:
        """Create the database anew, flush Redis, and start the programs without these layers.

        In the old database the checker would find earlier damage in every later round.
        """
        await self._end_children()
        write_layers(self._directory, without)
        await _execute(
            self.postgres.superuser_url,
            "DROP DATABASE transferd WITH (FORCE)",
            "CREATE DATABASE transferd OWNER transferd",
        )
        await _prepare(self.postgres.url, self._limits)
        self.ledgers = await make_ledgers(self.postgres.url, self._limits, len(self.ledgers))
        for keyed in self.ledgers:
            await _execute(self.postgres.url, *drops_of(without, keyed.ledger.schema))
        await self.flush_redis()
        for each in self.programs.values():
            if each.pid is not None:
                os.kill(each.pid, signal.SIGHUP)
        await self.until_ready()

    async def _end_children(self) -> None:
        """Kill the programs, but not the launchers, which start them again."""
        pids = [each.pid for each in self.programs.values() if each.pid is not None]
        children = [each for pid in pids for each in process_tree(pid) if each.pid != pid]
        for pid in pids:
            os.kill(pid, signal.SIGUSR1)
        await wait_until_gone(children)

    async def counted(self, metric: str) -> float:
        """The sum of a counter over all replicas and labels."""
        samples = [await self.programs[name].metrics() for name in self.replicas]
        return sum(each.value for each in chain(*samples) if each.name == metric)

    @asynccontextmanager
    async def _redis(self) -> AsyncIterator[Redis]:
        client = Redis.from_url(self.redis.url, socket_timeout=_ANSWER_S)
        try:
            yield client
        finally:
            await client.aclose()


def _clock(directory: Path, name: str) -> Path:
    return directory / f"{name}.clock"


def _layers(directory: Path) -> Path:
    """The file with the layers of protections that the programs remove when they start."""
    return directory / "layers"


def write_layers(directory: Path, without: Iterable[str]) -> None:
    """Remove these layers from programs that start from now on."""
    _layers(directory).write_text(",".join(without))


async def _execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def _prepare(database_url: str, limits: str) -> None:
    await migrated(database_url, limits)
    await _execute(database_url, _CLOCK_FIRST, _CLOCK.format(ahead_s=0.0))


@asynccontextmanager
async def chaos_deployment(
    directory: Path,
    *,
    replicas: int = 2,
    ledgers: int = 1,
    limits: str = "",
    report: Callable[[str], None] = print,
) -> AsyncIterator[ChaosDeployment]:
    """Start everything and wait until it is ready. Stop it when the block ends.

    Logs go to the directory; `limits` is the value of TRANSFERD_LIMITS. Raises StackError.
    """
    began_s = asyncio.get_running_loop().time()
    links: dict[str, Proxy] = {}
    async with AsyncExitStack() as exits:

        async def link(client: str, server: str, url: str) -> str:
            proxy = await exits.enter_async_context(Proxy(url))
            links[f"{client}-{server}"] = proxy
            return proxy.url

        def command(name: str, words: Sequence[str]) -> Sequence[str | Path]:
            launcher = (sys.executable, "-m", "tests.fault.chaos.launcher")
            return (*launcher, _clock(directory, name), _layers(directory), *words)

        for name in (*(f"replica-{n + 1}" for n in range(replicas)), "worker"):
            write_offset(_clock(directory, name), 0.0)
        write_layers(directory, ())
        plan = Plan(replicas, ledgers, limits, _SETTINGS, link, _prepare, command, READY_S)
        whole = await exits.enter_async_context(deployed(directory, plan, report))
        chaos = ChaosDeployment(whole, links, directory, limits)
        took_s = asyncio.get_running_loop().time() - began_s
        report(f"{whole!r} behind {whole.url}: {took_s:.1f} s to start")
        try:
            yield chaos
        finally:
            # Nothing is kept, so the servers need not stop in order.
            await asyncio.gather(*(each.kill() for each in chaos.servers.values()))
