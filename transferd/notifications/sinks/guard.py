"""The addresses that the service connects to when a client chose the URL.

A URL is checked when it is given, but a name may lead elsewhere a second later. So each address is
checked again where a socket is opened for it.
"""

import asyncio
import errno
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import ip_address

from aiohttp import AddrInfoType
from aiohttp.abc import AbstractResolver, ResolveResult

from transferd.domain.webhook import Network, is_allowed


class AddressRefused(OSError):
    """Connections to this address are not allowed."""

    def __init__(self, address: str) -> None:
        super().__init__(errno.EACCES, f"address {address} is not allowed")


class Guard:
    """Lets public addresses pass, and those inside the networks of `allowed`."""

    def __init__(self, allowed: Sequence[Network]) -> None:
        self._allowed = tuple(allowed)

    def __repr__(self) -> str:
        return f"<Guard, public and {len(self._allowed)} networks>"

    def lets_pass(self, address: str) -> bool:
        """Whether connections to this are allowed; only literal addresses can be."""
        try:
            return is_allowed(ip_address(address), self._allowed)
        except ValueError:
            return False

    def open_socket(self, info: AddrInfoType) -> socket.socket:
        """A socket for this address and no other. Raises AddressRefused.

        Every connection begins here, with the very address that it is then made to. If one address
        of a name is refused, aiohttp tries the next one.
        """
        family, kind, protocol, _, address = info
        if not self.lets_pass(str(address[0])):
            raise AddressRefused(str(address[0]))
        return socket.socket(family, kind, protocol)


class ThreadsResolver(AbstractResolver):
    """The system's resolver, in threads of its own.

    A name server that does not answer keeps a thread for many seconds, and any client may choose
    such a name. The loop's own threads are few, and others need them.
    """

    def __init__(self, lookups_max: int) -> None:
        self._threads = ThreadPoolExecutor(lookups_max, thread_name_prefix="webhook-lookup")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of a name. Raises OSError."""
        look_up = partial(
            socket.getaddrinfo,
            host,
            port,
            family=family,
            type=socket.SOCK_STREAM,
            # No IPv6 addresses for a machine that has none itself.
            flags=socket.AI_ADDRCONFIG,
        )
        infos = await asyncio.get_running_loop().run_in_executor(self._threads, look_up)
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=found,
                proto=protocol,
                flags=socket.AI_NUMERICHOST,
            )
            for found, _, protocol, _, address in infos
        ]

    async def close(self) -> None:
        """Do not wait for look-ups that run."""
        self._threads.shutdown(wait=False, cancel_futures=True)
