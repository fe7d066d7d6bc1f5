"""A private RabbitMQ node with its own name, ports, data, cookie and epmd."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import secrets
import shutil
import sys
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from transferd.config import Limits
from transferd.devstack.ports import free_port
from transferd.devstack.process import POLL_S, StackError, clean_environment
from transferd.devstack.server import Server

AMQP_0_9_1 = b"AMQP\x00\x00\x09\x01"
METHOD_FRAME = b"\x01"  # the server's Connection.Start; a refusal would begin with "AMQP"

# Two schedulers that sleep when idle and are bound to no core: PostgreSQL and the benchmark share
# the machine, and bound schedulers of two nodes would use the same cores. Without the interface,
# the distribution port would listen on all addresses.
ERLANG_ARGUMENTS = (
    "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {127,0,0,1}"
)

# A nearly full disk must not block publishers here. The log of the quorum queues must stay small:
# by default it grows to 512 MB, also in memory. These are Erlang terms: RabbitMQ would
# have to translate the other format, rabbitmq.conf, at each start.
CONFIGURATION = """\
[{rabbit, [{disk_free_limit, 1000000}]},
 {ra, [{wal_max_size_bytes, 67108864}]}].
"""


def find_rabbitmq() -> Path | None:
    """The path of rabbitmq-server, or None when it or Erlang's ``epmd`` is not installed."""
    # Packages put a wrapper into the PATH that runs `su rabbitmq`. Any user can run the script.
    candidates = [Path("/usr/lib/rabbitmq/bin/rabbitmq-server")]
    if (found := shutil.which("rabbitmq-server")) is not None:
        candidates.append(Path(found))
    candidates += [
        Path("/opt/homebrew/sbin/rabbitmq-server"),
        Path("/usr/local/sbin/rabbitmq-server"),
    ]
    if find_epmd() is None:
        return None
    return next((path for path in candidates if path.is_file()), None)


def find_epmd() -> Path | None:
    """The path of Erlang's port mapper, or None."""
    if (found := shutil.which("epmd")) is not None:
        return Path(found)
    return next(iter(sorted(Path("/usr/lib/erlang").glob("erts-*/bin/epmd"), reverse=True)), None)


class RabbitServer(Server):
    """A private RabbitMQ node; its queues and persistent messages survive ``stop`` and ``kill``.

    The data belongs to the node's name, which is derived from the directory. If the directory is
    moved, the node starts empty.
    """

    name: ClassVar[str] = "RabbitMQ"

    def __init__(
        self, directory: Path, *, port: int | None = None, limits: Limits | None = None
    ) -> None:
        super().__init__(directory, port=port, limits=limits)
        # Not derived from the port, which may differ in the next run.
        digest = hashlib.sha256(str(self.directory.resolve()).encode()).hexdigest()[:12]
        self.node = f"transferd-{digest}@localhost"

    @property
    def url(self) -> str:
        """``amqp://guest:guest@127.0.0.1:PORT/``"""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    async def _prepare(self) -> None:
        cookie = self.directory / ".erlang.cookie"
        if not cookie.exists():
            cookie.write_text(secrets.token_hex(16))
            cookie.chmod(0o400)  # Erlang refuses a cookie that other users can read.
        (self.directory / "rabbitmq.config").write_text(CONFIGURATION)
        (self.directory / "enabled_plugins").write_text("[].\n")

    async def _launch(self) -> None:
        program, epmd = find_rabbitmq(), find_epmd()
        if program is None or epmd is None:
            raise StackError(
                "RabbitMQ is not installed: apt install rabbitmq-server, or brew install rabbitmq, "
                "or set TRANSFERD_AMQP_URL"
            )
        # Without its own epmd, Erlang starts one on the standard port and never ends it.
        epmd_port = free_port()
        environment = self._environment(epmd_port)
        self._spawn(
            [epmd, "-port", str(epmd_port), "-address", "127.0.0.1"], environment=environment
        )
        await _wait_until_listening(epmd_port, self._limits.server_epmd_s)
        server = self._spawn([program], environment=environment)
        # At its start Erlang looks up modules thousands of times, each time through another thread.
        # On one core of a virtual machine this takes 6 s; on several cores, waking a thread on
        # another core makes it 17 s.
        if cores := _cores():
            _pin([cores[server.pid % len(cores)]], server.pid)
        self.origin = f"RabbitMQ from {program}"

    def _environment(self, epmd_port: int) -> dict[str, str]:
        here = str(self.directory)
        return clean_environment(
            "RABBITMQ_",
            "ERL_",
            "NOTIFY_SOCKET",
            "XDG_CONFIG_HOME",
            HOME=here,  # where Erlang looks for the cookie
            ERL_EPMD_PORT=str(epmd_port),
            ERL_EPMD_ADDRESS="127.0.0.1",
            ERL_CRASH_DUMP_BYTES="0",  # A crash must not write hundreds of megabytes.
            RABBITMQ_NODENAME=self.node,
            RABBITMQ_NODE_IP_ADDRESS="127.0.0.1",
            RABBITMQ_NODE_PORT=str(self.port),
            RABBITMQ_DIST_PORT=str(free_port()),
            RABBITMQ_MNESIA_BASE=f"{here}/mnesia",
            RABBITMQ_LOG_BASE=f"{here}/log",
            RABBITMQ_LOGS="-",  # into the one log file of this server
            RABBITMQ_PID_FILE=f"{here}/pid",
            RABBITMQ_CONFIG_FILE=f"{here}/rabbitmq.config",
            RABBITMQ_ADVANCED_CONFIG_FILE=f"{here}/advanced.config",
            RABBITMQ_CONF_ENV_FILE=f"{here}/no-such-file",  # else /etc/rabbitmq/rabbitmq-env.conf
            RABBITMQ_ENABLED_PLUGINS_FILE=f"{here}/enabled_plugins",
            RABBITMQ_SCHEDULER_BIND_TYPE="u",
            RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=ERLANG_ARGUMENTS,
            # Makes the script exec Erlang. Otherwise a shell stays in between, which passes on
            # neither signals nor the exit code.
            RUNNING_UNDER_SYSTEMD="true",
        )

    async def _is_ready(self) -> bool:
        """Whether the AMQP greeting is answered: the port opens before the node accepts clients."""
        with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
            async with asyncio.timeout(self._limits.server_answer_s):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                try:
                    writer.write(AMQP_0_9_1)
                    if await reader.readexactly(1) != METHOD_FRAME:
                        return False
                finally:
                    writer.close()
            if self.pid is not None:
                _pin(_cores(), self.pid)
            self._note_version()
            return True
        return False

    def _note_version(self) -> None:
        match = re.search(r"RabbitMQ (\d+\.\d+\.\d+)", self.log_path.read_text(errors="replace"))
        if match is not None:
            self.origin = f"RabbitMQ {match.group(1)} from {find_rabbitmq()}"


def _cores() -> list[int]:
    """The cores that this process may use; empty if the platform has no affinity."""
    return sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []


def _pin(cores: Collection[int], pid: int) -> None:
    """Let all threads of a process run on these cores only."""
    if sys.platform == "linux":
        # A thread may end in the meantime.
        with suppress(OSError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                with suppress(OSError):
                    os.sched_setaffinity(int(task.name), cores)


async def _wait_until_listening(port: int, wait_s: float) -> None:
    try:
        async with asyncio.timeout(wait_s):
            while True:
                with suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    return
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise StackError(f"RabbitMQ's epmd does not listen on port {port}") from None
