"""A private Citus: a coordinator and workers, each a PostgreSQL with the extension."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from transferd.config import Limits
from transferd.devstack.postgres import PostgresServer, find_postgres_binaries
from transferd.devstack.process import StackError

CITUS_SETTINGS: Mapping[str, str] = {
    "shared_preload_libraries": "citus",
    # A move of a ledger copies its tables by logical replication.
    "wal_level": "logical",
    "max_replication_slots": "20",
    "max_wal_senders": "20",
    # One process of Citus for each database, beside those that apply the replication.
    "max_worker_processes": "64",
    # A transaction that writes on several nodes is prepared on each.
    "max_prepared_transactions": "200",
    # The nodes connect to each other on loopback, where TLS would protect nothing.
    "citus.node_conninfo": "sslmode=disable",
}

# With the first distributed table of a role, Citus creates the role on the workers, which only a
# superuser may do, even if the role exists there. So a superuser makes this table for it.
INTRODUCE_ROLE = (
    "SET citus.enable_schema_based_sharding = on",
    "CREATE SCHEMA introduction AUTHORIZATION transferd",
    "CREATE TABLE introduction.of_role ()",
    "ALTER TABLE introduction.of_role OWNER TO transferd",
    "DROP SCHEMA introduction CASCADE",
)

# Ends the sessions in databases that admit no connections. Citus keeps sessions in each database.
END_SESSIONS = (
    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
    " JOIN pg_database USING (datname) WHERE NOT datallowconn"
)


def find_citus_binaries(major: str | None = None) -> tuple[Path, str]:
    """The programs of a PostgreSQL that has Citus, and its version, such as "15.20".

    An installation of the major version ``major`` is preferred. StackError if none has Citus.
    """
    try:
        return find_postgres_binaries(major, extension="citus")
    except StackError:
        raise StackError(
            "no PostgreSQL here has the extension citus: install it (Citus 13 for PostgreSQL 15, "
            "https://docs.citusdata.com), or put the programs of one that has it first in PATH"
        ) from None


class CitusNode(PostgresServer):
    """A PostgreSQL that loads Citus; the nodes of a cluster know each other by its databases."""

    name: ClassVar[str] = "Citus"

    def __init__(
        self,
        directory: Path,
        *,
        port: int | None = None,
        durable: bool = True,
        settings: Mapping[str, str] | None = None,
        limits: Limits | None = None,
    ) -> None:
        super().__init__(
            directory,
            port=port,
            durable=durable,
            settings={**CITUS_SETTINGS, **(settings or {})},
            limits=limits,
        )

    async def run(self, *statements: str, database: str = "postgres") -> None:
        """Run statements as superuser, in one session. StackError if one fails."""
        # Citus refuses several definitions in one message, so each statement is a message.
        commands = [word for each in statements for word in ("--command", each)]
        url = f"{self.superuser_url.rpartition('/')[0]}/{database}"
        options = ("--no-psqlrc", "--quiet", "--output=/dev/null", "--set=ON_ERROR_STOP=1")
        # The log has errors of other sessions, too, so only the exit code counts.
        if code := await self._exit_code_of("psql", *options, *commands, url):
            raise self._failure(f"psql failed with exit code {code}")

    def _find_binaries(self, major: str | None) -> tuple[Path, str]:
        return find_citus_binaries(major)


class CitusCluster:
    """A coordinator and workers with one database ``transferd``. Opens with ``async with``.

    Citus places each distributed schema on a worker. Every node has the metadata and takes every
    query; definitions go through the coordinator, whose address ``url`` is. The metadata names
    ports, which are new in each run, so ``directory`` must be new, too. A node may be stopped and
    started again meanwhile. StackError if a node cannot be started; then none runs.
    """

    def __init__(
        self,
        directory: Path,
        *,
        workers: int = 2,
        durable: bool = True,
        settings: Mapping[str, str] | None = None,
        limits: Limits | None = None,
    ) -> None:
        names = ["coordinator", *(f"worker-{number}" for number in range(1, workers + 1))]
        self.nodes = [
            CitusNode(directory / name, durable=durable, settings=settings, limits=limits)
            for name in names
        ]
        self.coordinator, *self.workers = self.nodes

    def __repr__(self) -> str:
        return f"<CitusCluster {', '.join(map(repr, self.nodes))}>"

    @property
    def url(self) -> str:
        """``postgresql://transferd@127.0.0.1:PORT/transferd``, on the coordinator."""
        return self.coordinator.url

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start all nodes, and make them one cluster."""
        try:
            # One after the other: failures are rare, and the first one is the one to report.
            for node in self.nodes:
                await node.start()
            await self._distribute("transferd")
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop all nodes."""
        try:
            await asyncio.gather(*(node.stop() for node in self.nodes))
        finally:
            for node in self.nodes:
                node.kill_now()  # Needed after a second Ctrl-C; no effect after a clean stop.

    async def create_database(self, name: str) -> None:
        """Create a database of this name on each node, and make them one database of Citus."""
        for node in self.nodes:
            await node.run(f"CREATE DATABASE {name} OWNER transferd")
        await self._distribute(name)

    async def close_template(self, name: str) -> None:
        """End all connections to a database and admit no more, so that it can be cloned."""
        for node in self.nodes:
            await node.run(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        for node in self.nodes:
            await node.run(END_SESSIONS)

    async def clone_database(self, name: str, *, template: str) -> None:
        """Clone a closed template on each node; the clones are one database of Citus.

        The metadata names nodes, shards and tables, but never the database, so they are right in
        the clones, too. This takes tenths of a second, and ``create_database`` takes seconds.
        """
        for node in self.nodes:
            await node.run(
                f"CREATE DATABASE {name} OWNER transferd TEMPLATE {template} STRATEGY FILE_COPY"
            )

    async def drop_database(self, name: str) -> None:
        """Drop a database on each node and end its connections."""
        for node in self.nodes:
            drop = f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"
            try:
                await node.run(drop)
            except StackError:
                # PostgreSQL waits for five seconds until the sessions of Citus have ended.
                await node.run(drop)

    async def _distribute(self, database: str) -> None:
        for node in self.nodes:
            await node.run("CREATE EXTENSION citus", database=database)
        await self.coordinator.run(
            f"SELECT citus_set_coordinator_host('127.0.0.1', {self.coordinator.port})",
            *(f"SELECT citus_add_node('127.0.0.1', {node.port})" for node in self.workers),
            *INTRODUCE_ROLE,
            database=database,
        )
