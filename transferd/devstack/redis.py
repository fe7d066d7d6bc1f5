"""A private Redis: ``redis-server`` or ``valkey-server`` from the PATH, else fakeredis over TCP."""

from __future__ import annotations

import asyncio
import importlib.util
import re
import shutil
import sys
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

from transferd.config import Limits
from transferd.devstack.process import StackError, clean_environment, output_of
from transferd.devstack.server import Server

# Runs in its own process, so that it can be killed and paused like a real server, and its Python
# code does not take CPU time from the event loop under test.
FAKE_SERVER = """
import sys
from fakeredis import TcpFakeServer
server = TcpFakeServer(("127.0.0.1", int(sys.argv[1])), server_type="redis")
server.daemon_threads = True
server.serve_forever()
"""


def find_redis() -> Path | None:
    """The path of redis-server (or of valkey-server, which has the same protocol), or None."""
    for program in ("redis-server", "valkey-server"):
        if (found := shutil.which(program)) is not None:
            return Path(found)
    return None


class RedisServer(Server):
    """A private Redis, in memory; fakeredis if no Redis is installed, which ``origin`` shows."""

    name: ClassVar[str] = "Redis"

    def __init__(
        self,
        directory: Path,
        *,
        port: int | None = None,
        databases: int = 16,
        limits: Limits | None = None,
    ) -> None:
        super().__init__(directory, port=port, limits=limits)
        self._databases = databases

    @property
    def url(self) -> str:
        """``redis://127.0.0.1:PORT/0``"""
        return f"redis://127.0.0.1:{self.port}/0"

    async def _prepare(self) -> None:
        """Redis needs no files."""

    async def _launch(self) -> None:
        program = find_redis()
        if program is None:
            self._launch_fake()
            return
        self.origin = f"{_version_of(program)} from {program}"
        self._spawn(
            [
                *(program, "--port", str(self.port), "--bind", "127.0.0.1", "--daemonize", "no"),
                *("--databases", str(self._databases), "--save", "", "--dir", self.directory),
                *("--appendonly", "no"),
            ],
            environment=clean_environment("NOTIFY_SOCKET"),
        )

    def _launch_fake(self) -> None:
        if (
            importlib.util.find_spec("fakeredis") is None
            or importlib.util.find_spec("lupa") is None
        ):
            raise StackError(
                "Redis is not installed: apt install redis-server (or brew install redis), "
                "or pip install 'fakeredis[lua]', or set TRANSFERD_REDIS_URL"
            )
        self.origin = f"fakeredis {version('fakeredis')} over TCP (no redis-server on the PATH)"
        self._spawn(
            [sys.executable, "-c", FAKE_SERVER, str(self.port)],
            environment=clean_environment("PYTHONASYNCIODEBUG"),
        )

    async def _is_ready(self) -> bool:
        """Whether PING is answered."""
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(self._limits.server_answer_s):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                try:
                    writer.write(b"*1\r\n$4\r\nPING\r\n")
                    return (await reader.readline()).startswith(b"+PONG")
                finally:
                    writer.close()
        return False


def _version_of(program: Path) -> str:
    """Such as "Redis 7.0.15"."""
    match = re.search(r"v=(\S+)", output_of(program, "--version") or "")
    kind = "Valkey" if "valkey" in program.name else "Redis"
    return f"{kind} {match.group(1) if match else '(unknown version)'}"
