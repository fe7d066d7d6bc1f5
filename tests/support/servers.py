"""The private servers of a test run, which start once and use free ports."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import asyncpg

from tests.support.configurations import PLAIN, Configuration
from tests.support.pgbouncer import PgBouncer
from transferd.config import Limits, Settings
from transferd.devstack import CitusCluster, PostgresServer, RedisServer
from transferd.ledger.migrate import create_ledger, migrate
from transferd.ledger.store.database import Database
from transferd.ledger.store.ledgers import read_ledgers

_TEMPLATE = "template_of_tests"
# Each test takes the next database of Redis, so that it does not see the cache of another test.
_REDIS_DATABASES = 4096


@dataclass
class Servers:
    """PostgreSQL and Redis of this run, with a migrated template to clone databases from."""

    postgres: PostgresServer
    redis: RedisServer
    configuration: Configuration = PLAIN
    # In front of PostgreSQL, in configurations with a pooler.
    pooler: PgBouncer | None = None
    # In configurations with nodes; its coordinator is `postgres`.
    cluster: CitusCluster | None = None
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def settings(self, database: str, redis_number: int, **changes: object) -> Settings:
        """Settings of a replica on `database`."""
        values: dict[str, object] = {
            "database_url": self.database_url(database),
            "redis_url": f"{self.redis.url.rsplit('/', 1)[0]}/{redis_number}",
            "port": 0,
            "auth": "off",
            "log_level": "ERROR",
        }
        return Settings(**(values | {**self.configuration.settings} | changes))  # type: ignore[arg-type]

    def database_url(self, database: str, *, superuser: bool = False) -> str:
        """The URL of a database for the role of the service, or for the superuser."""
        url = self.postgres.superuser_url if superuser else (self.pooler or self.postgres).url
        return f"{url.rsplit('/', 1)[0]}/{database}"

    async def new_database(self, *, template: str = _TEMPLATE) -> tuple[str, int]:
        """Create a database for one test; return its name and the number of a Redis database."""
        number = next(self._numbers)
        name = f"test_{number}"
        if self.pooler is not None:
            # PgBouncer keeps idle connections, and PostgreSQL cannot clone a database that has any.
            await self.as_superuser(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                f" WHERE datname = '{template}'"
            )
        if self.cluster is None:
            await self.as_superuser(
                f"CREATE DATABASE {name} OWNER transferd TEMPLATE {template} STRATEGY FILE_COPY"
            )
        elif template == "template1":
            await self.cluster.create_database(name)
        else:
            # Citus keeps sessions in each open database, and they prevent cloning.
            await self.cluster.close_template(template)
            await self.cluster.clone_database(name, template=template)
        return name, number % _REDIS_DATABASES

    async def migrate(self, settings: Settings, limits: Limits) -> None:
        """Apply the migrations, and make the ledger of the configuration if it is missing."""
        await migrate(settings, limits)
        ledger = self.configuration.ledger
        async with Database(settings, limits, connections=1) as database:
            ledgers = await read_ledgers(database)
        if ledger not in ledgers:
            await create_ledger(settings, limits, ledger.name, ledger.number)

    async def make_template(self) -> None:
        """Create the migrated database that each test gets a clone of."""
        if self.cluster is None:
            await self.as_superuser(f"CREATE DATABASE {_TEMPLATE} OWNER transferd")
        else:
            await self.cluster.create_database(_TEMPLATE)
        limits = self.configuration.limits_with(Limits())
        await self.migrate(self.settings(_TEMPLATE, 0), limits)
        # A clone does not inherit the role's settings for the template database.
        limits_of_role = {
            "statement_timeout": limits.statement_timeout_s,
            "lock_timeout": limits.lock_timeout_s,
            "idle_in_transaction_session_timeout": limits.idle_in_transaction_timeout_s,
        }
        for name, seconds in limits_of_role.items():
            await self.as_superuser(
                f"ALTER ROLE transferd SET {name} = '{seconds}s'", database=_TEMPLATE
            )
        if self.cluster is not None:
            await self.as_superuser(
                "ALTER ROLE transferd SET citus.show_shards_for_app_name_prefixes = 'transferd'",
                database=_TEMPLATE,
            )
            await self.cluster.close_template(_TEMPLATE)

    async def start_pooler(self, directory: Path) -> None:
        """Start PgBouncer, in configurations with a pooler."""
        if self.configuration.pooled:
            self.pooler = PgBouncer(directory / "pgbouncer", self.postgres)
            await self.pooler.start()

    async def stop_pooler(self) -> None:
        """Stop PgBouncer, if it runs."""
        if self.pooler is not None:
            await self.pooler.stop()

    async def drop_database(self, name: str) -> None:
        """Drop the database and end its connections."""
        if self.cluster is None:
            await self.as_superuser(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        else:
            await self.cluster.drop_database(name)

    async def as_superuser(self, sql: str, *, database: str = "postgres") -> None:
        """Run statements that the role of the service may not run."""
        await _execute(self.database_url(database, superuser=True), sql)

    async def on_every_node(self, sql: str, *, database: str = "postgres") -> None:
        """Run statements as superuser on each server by itself; Citus passes on no definition."""
        for node in self.cluster.nodes if self.cluster else [self.postgres]:
            url = f"{node.superuser_url.rpartition('/')[0]}/{database}"
            await _execute(url, f"SET citus.enable_ddl_propagation = off; {sql}")


async def _execute(url: str, sql: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


@contextmanager
def running_servers(directory: Path, configuration: Configuration = PLAIN) -> Iterator[Servers]:
    """Start the servers and prepare the template; stop them at the end."""
    # The directory may be in memory, so the WAL must be small.
    own = {"max_wal_size": "512MB", **configuration.postgres}
    redis = RedisServer(directory / "redis", databases=_REDIS_DATABASES)
    if configuration.has_nodes:
        cluster = CitusCluster(directory / "citus", durable=False, settings=own)
        servers = Servers(cluster.coordinator, redis, configuration, cluster=cluster)
    else:
        postgres = PostgresServer(directory / "postgresql", durable=False, settings=own)
        servers = Servers(postgres, redis, configuration)

    async def start() -> None:
        await asyncio.gather((servers.cluster or servers.postgres).start(), redis.start())
        await servers.make_template()
        # Last, because PgBouncer would keep connections to the template, which prevent cloning.
        await servers.start_pooler(directory)

    async def stop() -> None:
        await servers.stop_pooler()
        await asyncio.gather((servers.cluster or servers.postgres).stop(), redis.stop())

    try:
        asyncio.run(start())
        yield servers
    finally:
        asyncio.run(stop())
