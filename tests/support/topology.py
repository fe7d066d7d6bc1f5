"""`transferd serve --processes N` behind Nginx."""

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp

from loadtest.front import Nginx, running_nginx
from loadtest.program import until_ready
from tests.conftest import Database
from tests.support.api import Api
from tests.support.command import Command, running, transferd
from tests.support.waiting import patient_s
from transferd.config import Limits
from transferd.devstack.ports import free_ports

# Replicas here often stop. As by default, a drain lingers half a second longer than Nginx keeps
# idle connections, but Nginx keeps them for a tenth of the time.
_KEEPALIVE_S = 0.2
_LINGER_S = _KEEPALIVE_S + Limits().drain_linger_s - Limits().nginx_keepalive_s
_KEEPALIVE = (
    f"keepalive_timeout {Limits().nginx_keepalive_s:g}s;",
    f"keepalive_timeout {_KEEPALIVE_S * 1000:g}ms;",
)


def settings_of(database: Database, port: int) -> dict[str, str]:
    """The environment of `transferd serve` with the database of this test."""
    return database.variables(TRANSFERD_PORT=str(port))


async def admin_token(database: Database) -> str:
    """The token of a new API key with scope admin."""
    words = ("keys", "create", "--client", "loadtest", "--scope", "admin")
    url = database.settings().required("database_url")
    made = await transferd(*words, database_url=url)
    assert made.code == 0, made
    found = re.search(r"td_\S+", made.out)
    assert found is not None, made
    return found.group()


class SupervisedReplicas:
    """The replicas of one supervisor; `api` sends requests through Nginx."""

    def __init__(
        self, first_port: int, processes: int, supervisor: Command, nginx: Nginx, api: Api
    ) -> None:
        self.addresses = [f"127.0.0.1:{first_port + n}" for n in range(processes)]
        self.supervisor = supervisor
        self.nginx = nginx
        self.api = api

    async def until_all_ready(self) -> None:
        """Wait until each replica is ready."""
        urls = {address: f"http://{address}" for address in self.addresses}
        await until_ready(urls, patient_s(30.0), answer_s=patient_s(1.0))

    def pids(self) -> list[int]:
        """The process ids of the replicas, without their supervisor."""
        return [p.pid for p in self.supervisor.processes() if p.pid != self.supervisor.pid]


@asynccontextmanager
async def topology(
    database: Database,
    processes: int,
    *,
    behind: Sequence[int] | None = None,
    limits: str = "",
    auth: str = "off",
) -> AsyncIterator[SupervisedReplicas]:
    """Start the replicas. Nginx uses all of them, or those whose numbers are in `behind`."""
    first = free_ports(processes)
    settings = settings_of(database, first) | {"TRANSFERD_AUTH": auth}
    drain = f"nginx_keepalive_s={_KEEPALIVE_S},drain_linger_s={_LINGER_S}"
    settings["TRANSFERD_LIMITS"] += "".join(f",{each}" for each in (drain, limits) if each)
    async with AsyncExitStack() as exits:
        supervisor = await exits.enter_async_context(
            running("serve", "--processes", str(processes), settings=settings)
        )
        known = [f"127.0.0.1:{first + n}" for n in behind or range(processes)]
        nginx = await exits.enter_async_context(running_nginx(known, changed=_KEEPALIVE))
        session = await exits.enter_async_context(
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(patient_s(15)),
            )
        )
        whole = SupervisedReplicas(first, processes, supervisor, nginx, Api(session, nginx.url))
        await whole.until_all_ready()
        yield whole
