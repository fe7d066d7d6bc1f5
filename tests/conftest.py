"""Fixtures: one set of private servers per run, one database and one replica per test."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import aiohttp
import asyncpg
import pytest
import structlog
from hypothesis import HealthCheck, settings

from tests.support.api import Api
from tests.support.configurations import chosen
from tests.support.memory import memory_directory
from tests.support.queues import remove_queues
from tests.support.servers import Servers, running_servers
from tests.support.waiting import SLOWNESS, patient_s
from transferd.cache.keyspace import Keyspace
from transferd.config import Limits, Settings
from transferd.devstack import RabbitServer
from transferd.domain.ledger import MAIN, Ledger
from transferd.service import Replica, open_replica
from transferd.worker import Only, Worker, open_worker

pytest_plugins = ["tests.support.configuration_option", "tests.support.failures"]

# The speed of an example depends on the machine, so Hypothesis must not judge it.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_report_header() -> str:
    """Print the factor by which all deadlines of this run are multiplied."""
    return f"slowness: {SLOWNESS:g} (all deadlines are multiplied by it)"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Scale the timeout of each test, its own or the default, to the speed of this machine."""
    for item in items:
        own = item.get_closest_marker("timeout")
        seconds = float(own.args[0] if own else config.getini("timeout"))
        item.add_marker(pytest.mark.timeout(patient_s(seconds)), append=False)


def pytest_xdist_auto_num_workers() -> int:
    """Two processes more than cores: tests spend half of their time waiting.

    Measured with two cores: the run takes 5 % less time than with one process more.
    """
    return (os.cpu_count() or 1) + 2


@pytest.fixture
def log_lines() -> Iterator[list[Any]]:
    """The log lines of all levels that this test writes in its own process.

    A command that an earlier test ran in this process may have left a level that drops them.
    """
    structlog.reset_defaults()
    with structlog.testing.capture_logs() as lines:
        yield lines


@pytest.fixture(scope="session")
def servers(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[Servers]:
    """PostgreSQL and Redis for the whole run."""
    directory = tmp_path_factory.mktemp("servers")
    if os.geteuid() == 0:
        # PostgreSQL does not run as root; its user needs access to its directory.
        for parent in (directory, *directory.parents):
            if parent.owner() == "root" and parent.name.startswith("pytest-"):
                parent.chmod(0o711)
    with (
        memory_directory(otherwise=directory) as place,
        running_servers(place, chosen(pytestconfig)) as running,
    ):
        yield running


@pytest.fixture(scope="session")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitServer]:
    """A broker for the whole run; the queues of each test have a prefix of their own."""
    server = RabbitServer(tmp_path_factory.mktemp("rabbitmq"))
    asyncio.run(server.start())
    try:
        yield server
    finally:
        asyncio.run(server.stop())


@dataclass
class Database:
    """The database of one test."""

    name: str
    redis_number: int
    servers: Servers

    @property
    def ledger(self) -> Ledger:
        """The ledger of the replicas, keys and commands of this run."""
        return self.servers.configuration.ledger

    def settings(self, **changes: object) -> Settings:
        """Settings of a replica that uses it."""
        return self.servers.settings(self.name, self.redis_number, **changes)

    def variables(self, **changes: str) -> dict[str, str]:
        """The same as environment variables, for a replica in a process of its own."""
        settings = self.settings()
        values = {
            "TRANSFERD_DATABASE_URL": settings.required("database_url"),
            "TRANSFERD_REDIS_URL": settings.required("redis_url"),
            "TRANSFERD_PORT": "0",
            "TRANSFERD_AUTH": "off",
        }
        return values | self.servers.configuration.variables() | changes

    def limits(self, limits: Limits | None = None) -> Limits:
        """The limits of a replica in this run's configuration."""
        return self.servers.configuration.limits_with(limits or Limits())

    def in_ledger(self, sql: str) -> str:
        """The statement, which names main, about the ledger of this run."""
        return sql.replace(f"{MAIN.schema}.", f"{self.ledger.schema}.")

    async def fetch(self, sql: str, *arguments: object) -> list[asyncpg.Record]:
        """Run one statement as superuser, who may do more than the role of the service."""
        connection = await asyncpg.connect(self.servers.database_url(self.name, superuser=True))
        try:
            rows: list[asyncpg.Record] = await connection.fetch(self.in_ledger(sql), *arguments)
            return rows
        finally:
            await connection.close()

    async def assert_main_is_unused(self) -> None:
        """AssertionError if anything was written into main."""
        connection = await asyncpg.connect(self.servers.database_url(self.name, superuser=True))
        try:
            for table in ("users", "outcomes", "transfers", "holds", "webhooks", "deliveries"):
                rows = await connection.fetch(f"SELECT * FROM {MAIN.schema}.{table}")
                assert rows == [], f"{table} of {MAIN.name}"
        finally:
            await connection.close()

    async def end_lock_waits(self, after_s: float) -> None:
        """Set `lock_timeout` for new connections of the service, scaled to this machine."""
        await self.fetch(
            f"ALTER ROLE transferd IN DATABASE {self.name}"
            f" SET lock_timeout = '{after_s * SLOWNESS:.3f}s'"
        )

    async def isolate(self, level: str) -> None:
        """Set the default isolation level of new connections."""
        await self.fetch(
            f"ALTER DATABASE {self.name} SET default_transaction_isolation = '{level}'"
        )

    async def add_key_with_unknown_secret(self) -> None:
        """Add a key with an unknown secret: a replica with `auth=on` requires one to start."""
        await self.fetch(
            "INSERT INTO transferd.api_keys (id, client_id, secret_sha256, scopes)"
            " VALUES ('unknown-secret', 1, $1, '{}') ON CONFLICT DO NOTHING",
            bytes(32),
        )


@pytest.fixture
async def database(servers: Servers) -> AsyncIterator[Database]:
    """A migrated database for this test."""
    name, redis_number = await servers.new_database()
    database = Database(name, redis_number, servers)
    yield database
    if database.ledger != MAIN:
        await database.assert_main_is_unused()
    await servers.drop_database(name)


@pytest.fixture
def keyspace(database: Database) -> Keyspace:
    """The names of the keys in Redis of the ledger of this run."""
    return Keyspace(database.ledger)


@pytest.fixture
def empty_database(servers: Servers) -> Iterator[str]:
    """The URL of a database without migrations."""
    name, number = asyncio.run(servers.new_database(template="template1"))
    yield servers.settings(name, number).required("database_url")
    asyncio.run(servers.drop_database(name))


class Replicas:
    """Starts replicas on the test's database; all stop at the end of the test."""

    def __init__(self, database: Database, exits: AsyncExitStack) -> None:
        self._database = database
        self._exits = exits
        self.opened: list[Replica] = []

    async def start(self, limits: Limits | None = None, **settings: object) -> Api:
        """Start one more replica; return a client of it."""
        if settings.get("auth") == "on":
            await self._database.add_key_with_unknown_secret()
        replica = await self._exits.enter_async_context(
            open_replica(
                self._database.settings(**settings),
                self._database.limits(limits),
                drain_linger_s=0.0,
            )
        )
        self.opened.append(replica)
        session = await self._exits.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        )
        return Api(session, replica.url)


@pytest.fixture
async def replicas(database: Database) -> AsyncIterator[Replicas]:
    """For tests that need more than one replica, or other limits or settings."""
    async with AsyncExitStack() as exits:
        yield Replicas(database, exits)


class Workers:
    """Starts workers on the test's database and broker; all stop at the end of the test."""

    def __init__(self, database: Database, amqp_url: str, exits: AsyncExitStack) -> None:
        self.amqp_url = amqp_url
        self.prefix = f"{database.name}."
        self.database = database
        self._exits = exits
        self._made: list[Settings] = []

    def settings(self, **changes: object) -> Settings:
        """Settings of a worker that may connect to receivers on loopback."""
        values: dict[str, object] = {
            "amqp_url": self.amqp_url,
            "amqp_prefix": self.prefix,
            "worker_port": 0,
            "webhook_allow_http": True,
            "webhook_allow_networks": "127.0.0.0/8",
        }
        self._made.append(self.database.settings(**(values | changes)))
        return self._made[-1]

    async def remove_queues(self) -> None:
        """Remove the queues and exchanges that workers with these settings have declared."""
        await remove_queues(self.amqp_url, self._made)

    async def start(
        self, limits: Limits | None = None, *, only: Only | None = None, **settings: object
    ) -> Worker:
        """Start one more worker."""
        return await self._exits.enter_async_context(
            open_worker(self.settings(**settings), self.database.limits(limits), only=only)
        )


@pytest.fixture
async def workers(database: Database, rabbitmq: RabbitServer) -> AsyncIterator[Workers]:
    """For tests of notifications; the queues of the test are removed at its end."""
    async with AsyncExitStack() as exits:
        workers = Workers(database, rabbitmq.url, exits)
        exits.push_async_callback(workers.remove_queues)
        yield workers


@pytest.fixture
async def api(replicas: Replicas) -> Api:
    """A client of a replica with the default settings."""
    return await replicas.start()
