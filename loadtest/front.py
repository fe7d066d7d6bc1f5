"""Nginx with the configuration of the repository, on a free port."""

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson

from loadtest.program import server_directory
from transferd.devstack import StackError
from transferd.devstack.ports import free_port
from transferd.devstack.process import Child, launch

FOLDER = Path(__file__).parents[1] / "nginx"
_START_S = 10.0
# Server programs are often in folders that are not on the PATH of a user.
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])


def program() -> str:
    """The path of nginx. Raises StackError."""
    found = shutil.which("nginx", path=_PATH)
    if found is None:
        raise StackError("nginx is missing: apt install nginx libnginx-mod-http-js")
    return found


class Nginx:
    """A running Nginx; clients use its `url`."""

    def __init__(
        self, directory: Path, environment: Mapping[str, str], changed: tuple[str, str] | None
    ) -> None:
        self.directory = directory
        self._changed = changed
        self.port = free_port()
        self.status_port = free_port()
        self._environment = {
            "NGINX_LISTEN": f"127.0.0.1:{self.port}",
            "NGINX_STATUS_LISTEN": f"127.0.0.1:{self.status_port}",
            "NGINX_ACCESS_LOG": str(directory / "access.log"),
            "NGINX_RATE": "100000",
            "NGINX_KEY_RATE": "100000",
        } | dict(environment)
        self.process: Child | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def render(self, replicas: Sequence[str]) -> None:
        """Write the configuration for these replicas, `host:port` each."""
        subprocess.run(
            [FOLDER / "render", self.directory, *replicas],
            check=True,
            env=os.environ | self._environment,
        )
        if self._changed is not None:
            old, new = self._changed
            path = self.directory / "nginx.conf"
            text = path.read_text()
            assert old in text, old
            path.write_text(text.replace(old, new))

    async def start(self, replicas: Sequence[str]) -> None:
        """Start it and wait until it listens."""
        self.render(replicas)
        self.process = launch(
            [program(), "-e", "stderr", "-c", self.directory / "nginx.conf", "-g", "daemon off;"],
            log=self.directory / "error.log",
            cwd=self.directory,
            environment=os.environ,
        )
        async with asyncio.timeout(_START_S):
            # Nginx does not report that it listens.
            while not await self._listens():  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def reload(self, replicas: Sequence[str]) -> None:
        """Change the list of replicas while requests are in flight."""
        self.render(replicas)
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)

    async def stop(self) -> None:
        """Stop it if it runs."""
        if self.process is not None and self.process.exit_code is None:
            self.process.send_signal(signal.SIGTERM)
            await self.process.wait()

    def access_log(self) -> list[dict[str, Any]]:
        """The lines of its access log, decoded."""
        text = (self.directory / "access.log").read_text()
        return [orjson.loads(line) for line in text.splitlines()]

    def log_of_errors(self) -> str:
        return (self.directory / "error.log").read_text()

    async def _listens(self) -> bool:
        assert self.process is not None
        if self.process.exit_code is not None:
            raise StackError(f"nginx did not start: {self.log_of_errors().strip()}")
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        return True


@asynccontextmanager
async def running_nginx(
    replicas: Sequence[str],
    environment: Mapping[str, str] | None = None,
    *,
    changed: tuple[str, str] | None = None,
) -> AsyncIterator[Nginx]:
    """Nginx in front of these replicas until the block ends. Raises StackError.

    changed: a text of the configuration and its replacement.
    """
    with server_directory("nginx") as directory:
        nginx = Nginx(directory, environment or {}, changed)
        try:
            await nginx.start(replicas)
            yield nginx
        finally:
            await nginx.stop()
