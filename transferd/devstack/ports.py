"""Loopback ports for programs that start later.

A program uses its port about a second after the port was chosen, and while the program is down the
port is free again. So each port is claimed by one process among all processes of this user.
"""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
from collections import deque
from pathlib import Path
from random import SystemRandom

from transferd.devstack.process import StackError

# Below Linux's ephemeral range (32768 and up). While a server is down, its clients try to connect.
# A connect to a closed *ephemeral* port on loopback can get the same port as its source port. Then
# it connects to itself and occupies the port that the server needs again.
PORTS = range(20_000, 30_000)
PORT_TRIES_MAX = 200
# Claims of one process; the oldest are released, because their ports are in use by then.
_CLAIMS_MAX = 1_000


class _Claims:
    """Locks on bytes of one file, at the offsets of the port numbers. They end with the process."""

    def __init__(self) -> None:
        self._ports: deque[int] = deque()
        self._file: int | None = None

    def claim(self, port: int) -> bool:
        """Claim the port. False if any process has claimed it, this one included."""
        if port in self._ports:
            return False
        if self._file is None:
            try:
                self._file = _open()
            except OSError:
                return True  # without a file there are no claims
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
        except OSError:
            return False
        self._ports.append(port)
        if len(self._ports) > _CLAIMS_MAX:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, self._ports.popleft())
        return True


def _open() -> int:
    path = Path(tempfile.gettempdir(), f"transferd-ports-{os.geteuid()}")
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


_claims = _Claims()


def port_is_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1:``port`` now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A loopback port that is free now, claimed for this process."""
    return free_ports(1)


def free_ports(count: int) -> int:
    """The first of ``count`` consecutive free ports. Raises StackError."""
    random = SystemRandom()  # never seeded, so that concurrent test runs try different ports
    for _ in range(PORT_TRIES_MAX):
        first = random.choice(PORTS)
        wanted = range(first, first + count)
        if all(port in PORTS and port_is_free(port) and _claims.claim(port) for port in wanted):
            return first
    raise StackError(f"no free loopback port found between {PORTS.start} and {PORTS.stop - 1}")
