"""The port of a process: bound before anything else starts, served when everything is ready."""

import asyncio
import os
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from transferd.config import ConfigurationError, Limits
from transferd.web.protocol import Connections, Handler


class Listener:
    """A bound address. Nothing listens there until `serving`, so connections are refused.

    `remedy` says how to choose another port. Raises ConfigurationError, in one line, if the port is
    taken or the host unknown.
    """

    def __init__(self, host: str, port: int, limits: Limits, *, remedy: str) -> None:
        self._asked = f"{host}:{port}"
        self._limits = limits
        self._remedy = remedy
        self.connections = Connections(limits, _connections_max(limits))
        try:
            family, address = _resolved(host, port)
            self._socket = socket.socket(family)
        except OSError as error:
            raise self._unusable(error) from error
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Connections inherit it: the kernel finds clients whose machine has gone.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if family == socket.AF_INET6:
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                # Connections inherit it. Without it the kernel keeps data that a client does not
                # read, without a time limit, even after the connection is closed.
                wait_ms = int(limits.send_wait_s * 1000)
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, wait_ms)
            self._socket.bind(address)
        except OSError as error:
            self.close()
            raise self._unusable(error) from error

    def __repr__(self) -> str:
        return f"<Listener {self.url}>"

    @property
    def url(self) -> str:
        """The address, with the port that the system chose for 0."""
        return url_of(*self._socket.getsockname()[:2])

    def close(self) -> None:
        """Release the address."""
        self._socket.close()

    @asynccontextmanager
    async def serving(self, handler: Handler) -> AsyncIterator[asyncio.Server]:
        """Serve until the block ends. A server closed earlier only finishes its open connections.

        Raises ConfigurationError if another process listens at the address since it was taken.
        """
        backlog = self._limits.accept_queue_max
        try:
            # Another socket may be bound to the address; the first to listen gets it.
            self._socket.listen(backlog)
        except OSError as error:
            raise self._unusable(error) from error
        connections = self.connections
        server = await asyncio.get_running_loop().create_server(
            partial(connections.new, handler), sock=self._socket, backlog=backlog
        )
        sweeping = asyncio.create_task(connections.run(), name="slow connections")
        try:
            yield server
        finally:
            server.close()
            sweeping.cancel()
            await connections.end(self._limits.drain_timeout_s)

    def _unusable(self, error: OSError) -> ConfigurationError:
        # The reason of the system without the address that the loop adds. A host that does not
        # resolve has a negative number and a text of its own.
        number = error.errno or 0
        reason = os.strerror(number) if number > 0 else error.strerror
        return ConfigurationError(f"cannot listen on {self._asked} ({reason}): {self._remedy}")


def url_of(host: str, port: int) -> str:
    """The address for clients, with brackets around IPv6 (RFC 3986, 3.2.2)."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _resolved(host: str, port: int) -> tuple[socket.AddressFamily, Any]:
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    # IPv4 first: where `localhost` is both, it is 127.0.0.1.
    family, _, _, _, address = min(found, key=lambda info: info[0] != socket.AF_INET)
    return family, address


def _connections_max(limits: Limits) -> int:
    # Each connection takes a file, and the system may allow fewer of them.
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files == resource.RLIM_INFINITY:
        return limits.connections_max
    return max(1, min(limits.connections_max, files - limits.files_kept_back))
