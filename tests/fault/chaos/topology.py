"""The topology of chaos: each part can be killed, and each link has a proxy of ours."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import asyncpg
from redis.asyncio import Redis

from loadtest.program import until_ready
from loadtest.topology import Plan, Topology, migrated, topology
from tests.fault.chaos import database_clock
from tests.fault.chaos.removals import remove_constraints
from tests.fault.chaos.skewed import write_offset
from tests.support.project import ROOT
from tests.support.proxy import Proxy
from tests.support.waiting import patient_s
from transferd.devstack import Server, StackError

# Mostly it takes two seconds.
READY_S = patient_s(20.0)
_ANSWER_S = patient_s(1.0)
# Retries that come within a round, and enough of them: on a busy machine the receiver, which is in
# this process, may not answer in time for a minute.
_SETTINGS = {
    "TRANSFERD_NOTIFY_RETRY_DELAYS_S": "0.2,0.5,1,2,4,8,16",
    "TRANSFERD_WEBHOOK_ALLOW_HTTP": "true",
    "TRANSFERD_WEBHOOK_ALLOW_NETWORKS": "127.0.0.0/8",
    "PYTHONPATH": str(ROOT),
}
# What Redis needs beside its data for the connections of the replicas; what is beyond is evicted.
_STARVED_BYTES = 256 * 1024


class ChaosTopology:
    """Made by `chaos_topology`.

    Parts are named replica-1, replica-2 and so on, worker, postgres, redis and rabbitmq. Links are
    named by their ends: nginx-replica-1, replica-1-postgres, replica-1-redis, worker-postgres,
    worker-rabbitmq. One thing is not as without proxies: a client that connects to a part that is
    down is taken and then hung up on, instead of refused.
    """

    def __init__(
        self,
        whole: Topology,
        links: dict[str, Proxy],
        directory: Path,
        limits: str,
        without: list[str],
    ) -> None:
        self.programs = whole.programs
        self.replicas = whole.replicas
        self.url = whole.url
        self.links = links
        self._directory = directory
        self._limits = limits
        # Layers of their protections that the programs do without from their next start on.
        self._without = without
        stack = whole.stack
        if stack.postgres is None or stack.redis is None or stack.rabbitmq is None:
            raise StackError("chaos needs RabbitMQ as well: apt install rabbitmq-server")
        self.postgres, self.redis = stack.postgres, stack.redis
        self.servers: dict[str, Server] = {
            "postgres": stack.postgres,
            "redis": stack.redis,
            "rabbitmq": stack.rabbitmq,
        }

    async def kill(self, name: str) -> None:
        """SIGKILL to the part and all that it has started; it stays away until `restart`."""
        await (self.programs.get(name) or self.servers[name]).kill()

    async def restart(self, name: str) -> None:
        """Start it on the same port; in order before that (SIGTERM) if it runs.

        A server answers when this returns. For the others there is `until_ready`.
        """
        if name in self.programs:
            await self.programs[name].stop()
            self.programs[name].start()
        else:
            await self.servers[name].stop()
            await self.servers[name].start()

    def pause(self, name: str) -> None:
        """SIGSTOP to the part and all that it has started."""
        (self.programs.get(name) or self.servers[name]).pause()

    def resume(self, name: str) -> None:
        """SIGCONT: undo `pause`."""
        (self.programs.get(name) or self.servers[name]).resume()

    def jump_clock(self, name: str, seconds: float) -> None:
        """A replica or the worker sees the time of day so much ahead of the real one; 0 ends it."""
        write_offset(_clock(self._directory, name), seconds)

    async def flush_redis(self) -> None:
        """Redis loses everything."""
        async with self._redis() as client:
            await client.flushall()

    async def starve_redis(self) -> None:
        """Redis evicts what it has, and hardly keeps anything new."""
        async with self._redis() as client:
            info = await client.info("memory")
            await client.config_set("maxmemory-policy", "allkeys-lru")
            await client.config_set("maxmemory", info["used_memory_startup"] + _STARVED_BYTES)

    async def feed_redis(self) -> None:
        """Undo `starve_redis`."""
        async with self._redis() as client:
            await client.config_set("maxmemory", 0)
            await client.config_set("maxmemory-policy", "noeviction")

    async def slow_commits(self, seconds: float) -> None:
        """Each COMMIT waits so long (0.1 s at most) before it writes to the disk; 0 ends it."""
        connection = await asyncpg.connect(self.postgres.superuser_url)
        try:
            # Otherwise PostgreSQL waits only where other transactions are on their way.
            await connection.execute("ALTER SYSTEM SET commit_siblings = 0")
            await connection.execute(f"ALTER SYSTEM SET commit_delay = {round(seconds * 1e6)}")
            await connection.execute("SELECT pg_reload_conf()")
        finally:
            await connection.close()

    async def jump_database_clock(self, seconds: float) -> None:
        """The clock that the service reads in PostgreSQL is so much ahead; 0 ends it."""
        await database_clock.set_ahead(self.postgres.url, seconds)

    async def heal(self) -> None:
        """Undo all trouble of links, pauses, clocks and memory, and start what is not running."""
        for proxy in self.links.values():
            await proxy.heal()
        for server in self.servers.values():
            server.resume()
            await server.start()
        await self.feed_redis()
        await self.slow_commits(0.0)
        await self.jump_database_clock(0.0)
        for each in self.programs.values():
            self.jump_clock(each.name, 0.0)
            each.resume()
            each.start()

    async def renew(self, without: Iterable[str] = ()) -> None:
        """A new database, an empty Redis, and all programs new, without these layers.

        What a broken service has done to its ledger would be found in every round after it.
        """
        for each in self.programs.values():
            await each.kill()
        self._without[:] = without
        connection = await asyncpg.connect(self.postgres.superuser_url)
        try:
            await connection.execute("DROP DATABASE transferd WITH (FORCE)")
            await connection.execute("CREATE DATABASE transferd OWNER transferd")
        finally:
            await connection.close()
        await _prepare(self.postgres.url, self._limits)
        await remove_constraints(self.postgres.url, without)
        await self.flush_redis()
        for each in self.programs.values():
            each.start()
        await self.until_ready()

    async def until_ready(self, within_s: float = READY_S) -> float:
        """Wait until all programs, asked past Nginx, are ready; how long that took in seconds.

        Raises StackError with what the last ones said.
        """
        urls = {repr(each): each.url for each in self.programs.values()}
        return await until_ready(urls, within_s, answer_s=_ANSWER_S)

    async def counted(self, metric: str) -> float:
        """The sum of a counter over all replicas and labels."""
        count = 0.0
        async with aiohttp.ClientSession() as session:
            for name in self.replicas:
                async with session.get(f"{self.programs[name].url}/metrics") as response:
                    lines = (await response.text()).splitlines()
                found = (line for line in lines if line.startswith((f"{metric} ", f"{metric}{{")))
                count += sum(float(line.rpartition(" ")[2]) for line in found)
        return count

    @asynccontextmanager
    async def _redis(self) -> AsyncIterator[Redis]:
        client = Redis.from_url(self.redis.url, socket_timeout=_ANSWER_S)
        try:
            yield client
        finally:
            await client.aclose()


def _clock(directory: Path, name: str) -> Path:
    return directory / f"{name}.clock"


async def _prepare(database_url: str, limits: str) -> None:
    await migrated(database_url, limits)
    await database_clock.install(database_url)


@asynccontextmanager
async def chaos_topology(
    directory: Path,
    *,
    replicas: int = 2,
    limits: str = "",
    report: Callable[[str], None] = print,
) -> AsyncIterator[ChaosTopology]:
    """Everything, ready. Logs go to the directory; `limits` are for TRANSFERD_LIMITS.

    Raises StackError.
    """
    began_s = asyncio.get_running_loop().time()
    links: dict[str, Proxy] = {}
    without: list[str] = []
    async with AsyncExitStack() as exits:

        async def link(client: str, server: str, url: str) -> str:
            proxy = await exits.enter_async_context(Proxy(url))
            links[f"{client}-{server}"] = proxy
            return proxy.url

        def command(name: str, words: Sequence[str]) -> Sequence[str | Path]:
            launcher = (sys.executable, "-m", "tests.fault.chaos.launcher")
            return (*launcher, _clock(directory, name), ",".join(without), *words)

        for name in (*(f"replica-{n + 1}" for n in range(replicas)), "worker"):
            write_offset(_clock(directory, name), 0.0)
        plan = Plan(replicas, limits, _SETTINGS, link, _prepare, command, READY_S)
        whole = await exits.enter_async_context(topology(directory, directory, plan, report))
        chaos = ChaosTopology(whole, links, directory, limits, without)
        took_s = asyncio.get_running_loop().time() - began_s
        report(f"{whole!r} behind {whole.url}: {took_s:.1f} s to start")
        yield chaos
