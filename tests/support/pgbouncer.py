"""A PgBouncer in transaction mode, in front of PostgreSQL."""

import asyncio
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from transferd.devstack import PostgresServer, Server, StackError
from transferd.devstack.account import account_for
from transferd.devstack.process import clean_environment, output_of

# Server connections: fewer than one replica and a worker open, so that clients share them.
_SERVERS = 8

_SETTINGS = """\
[databases]
* = host=127.0.0.1 port={postgres}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {users}
pool_mode = transaction
default_pool_size = {servers}
max_client_conn = 1000
server_login_retry = 1
query_timeout = 20
"""


class PgBouncer(Server):
    """A pooler between the service and PostgreSQL, for all databases."""

    name: ClassVar[str] = "PgBouncer"

    def __init__(self, directory: Path, postgres: PostgresServer) -> None:
        super().__init__(directory)
        self._postgres = postgres
        self._program = Path()

    @property
    def url(self) -> str:
        """The address of PostgreSQL's database through this pooler."""
        return self._postgres.url.replace(f":{self._postgres.port}/", f":{self.port}/")

    async def _prepare(self) -> None:
        # Server programs are often not in the PATH of a user.
        found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
        if found is None:
            raise StackError("PgBouncer is not installed: apt install pgbouncer")
        self._program = Path(found)
        self.origin = (output_of(found, "--version") or "PgBouncer").splitlines()[0]

    async def _launch(self) -> None:
        settings, users = self.directory / "pgbouncer.ini", self.directory / "users.txt"
        users.write_text('"transferd" ""\n')
        settings.write_text(
            _SETTINGS.format(
                postgres=self._postgres.port, port=self.port, users=users, servers=_SERVERS
            )
        )
        self._spawn(
            [self._program, settings],
            environment=clean_environment("PG", "NOTIFY_SOCKET"),
            # Like PostgreSQL, PgBouncer refuses to run as root.
            account=account_for(settings, self._program.parent),
        )

    async def _is_ready(self) -> bool:
        with suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.close()
            return True
        return False
