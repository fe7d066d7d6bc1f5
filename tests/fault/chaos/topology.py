"""All of it as it is run for real, each part on its own, with a proxy of ours on every link."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import asyncpg
from redis.asyncio import Redis

from loadtest.front import Nginx, running_nginx
from tests.fault.chaos import database_clock
from tests.fault.chaos.programs import Program
from tests.fault.chaos.removals import remove_constraints
from tests.support.proxy import Proxy
from tests.support.waiting import patient_s
from transferd.config import load_settings
from transferd.devstack import PostgresServer, RabbitServer, RedisServer, Server, StackError
from transferd.devstack.ports import free_port
from transferd.ledger.migrate import migrate

# Mostly it takes two seconds.
READY_S = patient_s(20.0)
_POLL_S = 0.05
_ANSWER_S = patient_s(1.0)
# Retries that come within a round, and enough of them: on a busy machine the receiver, which is in
# this process, may not answer in time for a minute.
_SETTINGS = {
    "TRANSFERD_AUTH": "off",
    "TRANSFERD_NOTIFY_LOG": "false",
    "TRANSFERD_NOTIFY_RETRY_DELAYS_S": "0.2,0.5,1,2,4,8,16",
    "TRANSFERD_WEBHOOK_ALLOW_HTTP": "true",
    "TRANSFERD_WEBHOOK_ALLOW_NETWORKS": "127.0.0.0/8",
}
# What Redis needs beside its data for the connections of the replicas; what is beyond is evicted.
_STARVED_BYTES = 256 * 1024


class Topology:
    """Made by `chaos_topology`.

    Parts are named replica-1, replica-2 and so on, worker, postgres, redis and rabbitmq. Links are
    named by their ends: nginx-replica-1, replica-1-postgres, replica-1-redis, worker-postgres,
    worker-rabbitmq. One thing is not as without proxies: whoever connects to a part that is down
    is taken and then hung up on, instead of refused.
    """

    def __init__(
        self, postgres: PostgresServer, redis: RedisServer, rabbitmq: RabbitServer, limits: str
    ) -> None:
        self.postgres = postgres
        self.redis = redis
        self.rabbitmq = rabbitmq
        self.limits = limits
        self.servers: dict[str, Server] = {
            "postgres": postgres,
            "redis": redis,
            "rabbitmq": rabbitmq,
        }
        self.links: dict[str, Proxy] = {}
        self.programs: dict[str, Program] = {}
        self.nginx: Nginx | None = None

    def __repr__(self) -> str:
        return f"<Topology {list(self.programs.values())}, {list(self.servers.values())}>"

    @property
    def url(self) -> str:
        """Where clients come in."""
        assert self.nginx is not None
        return self.nginx.url

    @property
    def replicas(self) -> list[str]:
        """Their names."""
        return [name for name in self.programs if name != "worker"]

    @property
    def parts(self) -> list[str]:
        """The names of all that can be killed."""
        return [*self.programs, *self.servers]

    async def kill(self, name: str) -> None:
        """SIGKILL to the part and all that it has started; it stays away until `restart`."""
        await (self.programs.get(name) or self.servers[name]).kill()

    async def restart(self, name: str) -> None:
        """Start it on the same port; in order before that (SIGTERM) if it runs.

        A server answers when this returns. For the others there is `until_ready`.
        """
        if name in self.programs:
            program = self.programs[name]
            await program.stop()
            program.start()
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
        self.programs[name].jump_clock(seconds)

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

    async def evict_redis(self, for_s: float = 0.5) -> None:
        """Starve Redis for so long."""
        await self.starve_redis()
        try:
            await asyncio.sleep(for_s)
        finally:
            await self.feed_redis()

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
        for program in self.programs.values():
            program.jump_clock(0.0)
            program.resume()
            program.start()

    async def renew(self, without: Iterable[str] = ()) -> None:
        """A new database, an empty Redis, and all programs new, without these layers.

        What a broken service has done to its ledger would be found in every round after it.
        """
        for program in self.programs.values():
            await program.kill()
            program.without = sorted(without)
        connection = await asyncpg.connect(self.postgres.superuser_url)
        try:
            await connection.execute("DROP DATABASE transferd WITH (FORCE)")
            await connection.execute("CREATE DATABASE transferd OWNER transferd")
        finally:
            await connection.close()
        await self._migrate()
        await remove_constraints(self.postgres.url, without)
        await self.flush_redis()
        for program in self.programs.values():
            program.start()
        await self.until_ready()

    async def until_ready(self, within_s: float = READY_S) -> float:
        """Wait until all replicas and the worker say that they are ready; how long that took.

        They are asked past Nginx. Raises StackError with what the last one said.
        """
        began = time.monotonic()
        timeout = aiohttp.ClientTimeout(total=_ANSWER_S)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while said := await self._complaints(session):
                if time.monotonic() > began + within_s:
                    raise StackError(f"not ready within {within_s:g} s: {'; '.join(said)}")
                await asyncio.sleep(_POLL_S)
        return time.monotonic() - began

    async def is_ready(self, name: str) -> bool:
        """Whether a replica or the worker says that it is ready."""
        timeout = aiohttp.ClientTimeout(total=_ANSWER_S)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            return not await _complaint(session, self.programs[name])

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

    async def _complaints(self, session: aiohttp.ClientSession) -> list[str]:
        asked = (_complaint(session, program) for program in self.programs.values())
        return [said for said in await asyncio.gather(*asked) if said]

    async def _migrate(self) -> None:
        settings = load_settings(database_url=self.postgres.url, limits=self.limits)
        await migrate(settings, settings.limits_of())
        await database_clock.install(self.postgres.url)

    @asynccontextmanager
    async def _redis(self) -> AsyncIterator[Redis]:
        client = Redis.from_url(self.redis.url, socket_timeout=_ANSWER_S)
        try:
            yield client
        finally:
            await client.aclose()


async def _complaint(session: aiohttp.ClientSession, program: Program) -> str:
    """Why it is not ready; nothing if it is."""
    try:
        async with session.get(f"{program.url}/readyz") as response:
            said = "" if response.status == 200 else await response.text()
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        said = str(error) or type(error).__name__
    return f"{program!r}: {said}" if said else ""


@asynccontextmanager
async def chaos_topology(
    directory: Path,
    *,
    replicas: int = 2,
    limits: str = "",
    report: Callable[[str], None] = print,
) -> AsyncIterator[Topology]:
    """Everything, ready. Logs go to the directory; `limits` are for TRANSFERD_LIMITS.

    Raises StackError.
    """
    if os.geteuid() == 0:
        os.chmod(directory, 0o711)  # PostgreSQL runs as another user when we are root
    began = time.monotonic()
    whole = Topology(
        PostgresServer(directory / "postgresql"),
        RedisServer(directory / "redis"),
        RabbitServer(directory / "rabbitmq"),
        limits,
    )
    async with AsyncExitStack() as exits:
        exits.push_async_callback(_stop, whole.servers.values())
        await asyncio.gather(*(server.start() for server in whole.servers.values()))
        await whole._migrate()
        for number in range(1, replicas + 1):
            await _add_program(exits, whole, f"replica-{number}", directory, report)
        await _add_program(exits, whole, "worker", directory, report)
        fronts = [await _add_front(exits, whole, name) for name in whole.replicas]
        whole.nginx = await exits.enter_async_context(running_nginx(fronts))
        await whole.until_ready()
        report(f"{whole!r} behind {whole.url}: {time.monotonic() - began:.1f} s to start")
        yield whole


async def _stop(servers: Iterable[Server]) -> None:
    await asyncio.gather(*(server.stop() for server in servers))


async def _add_program(
    exits: AsyncExitStack,
    whole: Topology,
    name: str,
    directory: Path,
    report: Callable[[str], None],
) -> None:
    """Start a replica or the worker, with a proxy to each server that it uses."""
    is_worker = name == "worker"
    second = "rabbitmq" if is_worker else "redis"
    for server in ("postgres", second):
        proxy = Proxy(whole.servers[server].url)
        whole.links[f"{name}-{server}"] = await exits.enter_async_context(proxy)
    port = free_port()
    whole.programs[name] = await exits.enter_async_context(
        Program(
            name,
            "worker" if is_worker else "serve",
            port=port,
            directory=directory,
            environment=_SETTINGS
            | {
                "TRANSFERD_DATABASE_URL": whole.links[f"{name}-postgres"].url,
                "TRANSFERD_AMQP_URL" if is_worker else "TRANSFERD_REDIS_URL": whole.links[
                    f"{name}-{second}"
                ].url,
                "TRANSFERD_WORKER_PORT" if is_worker else "TRANSFERD_PORT": str(port),
                "TRANSFERD_LIMITS": whole.limits,
            },
            report=report,
        )
    )


async def _add_front(exits: AsyncExitStack, whole: Topology, replica: str) -> str:
    """The proxy by which Nginx reaches a replica: its address."""
    proxy = Proxy(whole.programs[replica].url)
    whole.links[f"nginx-{replica}"] = await exits.enter_async_context(proxy)
    return proxy.address
