"""Private servers and the sides of the benchmark: the service and what it is compared with."""

import os
import random
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import click

from loadtest.ledgers import KeyedLedger
from loadtest.program import Program, server_directory, until_ready
from transferd.config import Limits, load_settings
from transferd.devstack import CitusCluster, PostgresServer, RedisServer, StackError
from transferd.devstack.ports import free_port
from transferd.domain.ledger import MAIN, Ledger
from transferd.ledger.migrate import migrate

_BALANCE_MINOR = 1_000_000_000
_START_S = 30.0
# The ids are UUIDs of version 7 with numbers instead of random bits, so that pgbench can make them.
# The schema and the ids are those of a ledger.
_INSERT_WALLETS = """
INSERT INTO {schema}.wallets (id, user_id, balance, held, overdraft_limit, version, created_at,
                               updated_at, status, funding, currency, metadata)
SELECT format('00000000-0000-7{number:03x}-8000-%s', lpad(to_hex(n), 12, '0'))::uuid,
       gen_random_uuid(), $1, 0, 0, 1, now(), now(), 0, false, 'USD', '{{}}'
FROM generate_series($2::bigint, $3::bigint) AS n"""

_COUNT_TRANSFERS = "SELECT count(*) FROM {schema}.transfers"


@dataclass
class Side:
    """A program under load and its database. `command`: the arguments of Python, or none."""

    name: str
    command: Sequence[str]
    database_url: str = ""
    redis_url: str = ""
    port: int = 0
    program: Program | None = None
    # Its wallets are numbered from 1 to this number.
    wallets: int = 0
    # Ledgers in which transfers are counted, with main if it has load.
    ledgers: Sequence[KeyedLedger] = ()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def committed(self) -> int:
        """The number of transfers in its ledgers."""
        schemas = [each.ledger.schema for each in self.ledgers] or [MAIN.schema]
        connection = await asyncpg.connect(self.database_url)
        try:
            counts = [
                await connection.fetchval(_COUNT_TRANSFERS.format(schema=schema))
                for schema in schemas
            ]
        finally:
            await connection.close()
        return sum(counts)

    @property
    def running(self) -> Program:
        assert self.program is not None
        return self.program


@dataclass
class Setup:
    """Servers, sides by name, and files for load generators."""

    directory: Path
    postgres: PostgresServer
    redis: RedisServer
    exits: AsyncExitStack
    sides: dict[str, Side] = field(default_factory=dict)
    amqp_url: str = ""
    _cluster: CitusCluster | None = None

    def __getitem__(self, name: str) -> Side:
        return self.sides[name]

    async def add(self, side: Side, *, wallets: int = 0, on_citus: bool = False) -> Side:
        """Create the database with its wallets, and start the process if there is one."""
        number = len(self.sides)
        self.sides[side.name] = side
        name = f"bench_{number}"
        if on_citus:
            cluster = await self._citus()
            await cluster.create_database(name)
            server = cluster.url
        else:
            superuser = await asyncpg.connect(self.postgres.superuser_url)
            await superuser.execute(f"CREATE DATABASE {name} OWNER transferd")
            await superuser.close()
            server = self.postgres.url
        side.database_url = f"{server.rsplit('/', 1)[0]}/{name}"
        side.redis_url = f"{self.redis.url.rsplit('/', 1)[0]}/{number}"
        await migrate(load_settings(database_url=side.database_url), Limits())
        await self.grow(side, wallets)
        if side.command:
            await self.start(side)
        return side

    async def _citus(self) -> CitusCluster:
        """A coordinator and two workers, which its first use starts."""
        if self._cluster is None:
            cluster = CitusCluster(self.directory / "citus")
            self._cluster = await self.exits.enter_async_context(cluster)
        return self._cluster

    async def grow(self, side: Side, wallets: int) -> None:
        """Insert wallets into main up to this number."""
        await insert_wallets(side, MAIN, side.wallets + 1, wallets)
        side.wallets = max(side.wallets, wallets)

    async def start(self, side: Side) -> float:
        """Start its process; returns the seconds until the first answer."""
        side.port = free_port()
        variables = {
            "TRANSFERD_DATABASE_URL": side.database_url,
            "TRANSFERD_REDIS_URL": side.redis_url,
            "TRANSFERD_PORT": str(side.port),
            "TRANSFERD_WORKER_PORT": str(side.port),
            "TRANSFERD_AUTH": "off",
            "TRANSFERD_LOG_LEVEL": "INFO",
        }
        if self.amqp_url:
            variables["TRANSFERD_AMQP_URL"] = self.amqp_url
        side.program = Program(
            side.name,
            lambda: (sys.executable, *side.command),
            port=side.port,
            log=self.directory / f"{side.name.replace(' ', '-')}.log",
            environment=os.environ | variables,
            report=click.echo,
        )
        await self.exits.enter_async_context(side.program)
        await side.program.start()
        try:
            return await until_ready({repr(side.program): side.url}, _START_S, path="/healthz")
        except StackError as error:
            raise click.ClickException(str(error)) from None

    async def stop(self, side: Side) -> None:
        """Stop its process if it runs."""
        if side.program is not None:
            await side.program.stop()

    def pairs(self, name: str, sources: Sequence[int], destinations: Sequence[int]) -> Path:
        """A file with a line "source destination" for each transfer, from numbers of wallets."""
        path = self.directory / f"pairs-{name}"
        if not path.exists():
            lines = (
                f"{wallet_id(a)} {wallet_id(b if a != b else b % max(destinations) + 1)}\n"
                for a, b in zip(sources, destinations, strict=True)
            )
            path.write_text("".join(lines))
        return path


SERVICE = ("-c", "from transferd.cli import main; main(['serve'])")
WORKER = ("-c", "from transferd.cli import main; main(['worker'])")
BASELINE = ("-m", "loadtest.bench.baseline")
CEILING = ("-m", "loadtest.bench.ceiling")


async def connect_without_timeouts(side: Side) -> "asyncpg.Connection[asyncpg.Record]":
    """A connection without the timeouts of the service, for statements that fill the ledger."""
    settings = {"statement_timeout": "0", "lock_timeout": "0"}
    return await asyncpg.connect(side.database_url, server_settings=settings)


async def insert_wallets(side: Side, ledger: Ledger, first: int, last: int) -> None:
    """Insert wallets with these numbers into a ledger."""
    connection = await connect_without_timeouts(side)
    insert = _INSERT_WALLETS.format(schema=ledger.schema, number=ledger.number)
    await connection.execute(insert, _BALANCE_MINOR, first, last, timeout=600.0)
    await connection.execute(f"VACUUM ANALYZE {ledger.schema}.wallets", timeout=600.0)
    await connection.close()


def wallet_id(number: int, ledger: Ledger = MAIN) -> str:
    """The id of a wallet by its number, as `_INSERT_WALLETS` makes it."""
    return f"00000000-0000-7{ledger.number:03x}-8000-{number:012x}"


def evenly(wallets: int, count: int) -> list[int]:
    """`count` wallets, each equally likely."""
    return [random.randint(1, wallets) for _ in range(count)]


def by_zipf(wallets: int, count: int) -> list[int]:
    """`count` wallets; wallet n is 1/n as likely as wallet 1 (Zipf with exponent 1.0)."""
    weights = [1 / n for n in range(1, wallets + 1)]
    return random.choices(range(1, wallets + 1), weights, k=count)


@asynccontextmanager
async def bench_setup() -> AsyncIterator[Setup]:
    """Private PostgreSQL (with fsync) and Redis servers, stopped at the end."""
    packages = {"wrk": "wrk", "pgbench": "postgresql-contrib"}
    missing = [name for name in packages if shutil.which(name) is None]
    if missing:
        names = " ".join(packages[name] for name in missing)
        raise click.ClickException(f"{' and '.join(missing)} is missing: apt install {names}")
    with server_directory("bench") as directory:
        async with AsyncExitStack() as exits:
            postgres = PostgresServer(directory / "postgresql")
            redis = RedisServer(directory / "redis")
            for server in (postgres, redis):
                exits.push_async_callback(server.stop)
                await server.start()
            yield Setup(directory, postgres, redis, exits)
