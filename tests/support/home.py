"""The server that holds the tables of main: with Citus a node, which the service connects to."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import asyncpg

from tests.conftest import Database
from tests.support.proxy import Proxy

_PLACE = (
    "SELECT nodeid, nodeport, shardid FROM pg_dist_shard JOIN pg_dist_placement USING (shardid)"
    " JOIN pg_dist_node USING (groupid) WHERE logicalrelid = $1::text::regclass"
)


async def home_url(database: Database) -> str:
    """Its URL for the superuser."""
    url = database.servers.database_url(database.name, superuser=True)
    if database.servers.cluster is None:
        return url
    [place] = await database.fetch(_PLACE, "ledger_00.wallets")
    return _with_port(url, place["nodeport"])


async def fetch_at_home(database: Database, sql: str, *arguments: object) -> list[asyncpg.Record]:
    """The rows of one statement there, as superuser."""
    connection = await asyncpg.connect(await home_url(database))
    try:
        rows: list[asyncpg.Record] = await connection.fetch(sql, *arguments)
        return rows
    finally:
        await connection.close()


async def execute_on_rows(database: Database, table: str, sql: str) -> None:
    """Run a statement on the table with the rows, `{table}` in it, also what Citus refuses."""
    table = database.in_ledger(table)
    if database.servers.cluster is not None:
        [place] = await database.fetch(_PLACE, table)
        table = f"{table}_{place['shardid']}"
    connection = await asyncpg.connect(await home_url(database))
    try:
        # Without Citus it is an unknown setting that has no effect.
        await connection.execute("SET citus.enable_ddl_propagation = off")
        await connection.execute(database.in_ledger(sql.format(table=table)))
    finally:
        await connection.close()


class _NodeProxy(Proxy):
    """A proxy in front of a node; `url` is that of the coordinator, which leads to the proxy."""

    def __init__(self, node: str, coordinator: str) -> None:
        super().__init__(node)
        self._coordinator = coordinator

    @property
    def url(self) -> str:
        return self._coordinator


@asynccontextmanager
async def proxied(database: Database) -> AsyncIterator[Proxy]:
    """A proxy between that server and the programs that get its `url`.

    With Citus also between that server and all others who ask the coordinator for its address.
    """
    url = database.settings().required("database_url")
    if database.servers.cluster is None:
        async with Proxy(url) as proxy:
            yield proxy
        return
    [place] = await database.fetch(_PLACE, "ledger_00.wallets")
    async with _NodeProxy(_with_port(url, place["nodeport"]), url) as proxy:
        host, _, port = proxy.address.partition(":")
        sql = "SELECT citus_update_node($1, $2, $3)"
        await database.fetch(sql, place["nodeid"], host, int(port))
        yield proxy
        await database.fetch(sql, place["nodeid"], host, place["nodeport"])


def _with_port(url: str, port: int) -> str:
    parts = urlsplit(url)
    login = parts.netloc.rpartition("@")[0]
    return parts._replace(netloc=f"{login}@{parts.hostname}:{port}").geturl()
