"""Which addresses the service connects to when a client chose the URL.

A URL is checked when it is given, but a name may lead elsewhere a second later. What counts is the
address that a socket is opened for, and that is where `Guard` stands.
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
    """Nothing may be delivered to this address."""

    def __init__(self, address: str) -> None:
        super().__init__(errno.EACCES, f"address {address} is not allowed")


class Guard:
    """Lets public addresses pass, and those inside the networks of `allowed`."""

    def __init__(self, allowed: Sequence[Network]) -> None:
        self._allowed = tuple(allowed)

    def __repr__(self) -> str:
        return f"<Guard, public and {len(self._allowed)} networks>"

    def lets_pass(self, address: str) -> bool:
        """Whether this may be connected to; what is no literal address may not."""
        try:
            return is_allowed(ip_address(address), self._allowed)
        except ValueError:
            return False

    def open_socket(self, info: AddrInfoType) -> socket.socket:
        """A socket for this address and no other. Raises AddressRefused.

        Every connection begins here, with the very address that it is then made to.
        """
        family, kind, protocol, _, address = info
        if not self.lets_pass(str(address[0])):
            raise AddressRefused(str(address[0]))
        return socket.socket(family, kind, protocol)


class GuardedResolver(AbstractResolver):
    """Leaves out what may not be connected to, so that the other addresses of a name are used."""

    def __init__(self, guard: Guard, resolver: AbstractResolver) -> None:
        self._guard = guard
        self._resolver = resolver

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of a name, at least one. Raises AddressRefused, and OSError for none."""
        found = await self._resolver.resolve(host, port, family)
        passing = [each for each in found if self._guard.lets_pass(each["host"])]
        if found and not passing:
            raise AddressRefused(found[0]["host"])
        if not passing:
            raise socket.gaierror(socket.EAI_NONAME, "no address")
        return passing

    async def close(self) -> None:
        """Close the resolver behind this one."""
        await self._resolver.close()


class ThreadsResolver(AbstractResolver):
    """The system's resolver, in threads of its own.

    A name server that does not answer keeps a thread for many seconds, and anybody may name one
    that does not. The loop's own threads are few, and others need them.
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
        """Wait for no look-up: their answers are not wanted any more."""
        self._threads.shutdown(wait=False, cancel_futures=True)
