"""Webhook endpoints: their event filters, and the addresses that they may have."""

import re
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple
from urllib.parse import urlsplit

EVENT_TYPES = (
    "transfer.posted",
    "transfer.reversed",
    "wallet.created",
    "wallet.frozen",
    "wallet.unfrozen",
    "wallet.closed",
    "wallet.updated",
    "user.created",
    "hold.created",
    "hold.adjusted",
    "hold.captured",
    "hold.released",
    "hold.expired",
)
# The values of a filter: all events, all of one kind, or one type.
EVENT_FILTERS = ("*", "transfer.*", "wallet.*", "user.*", "hold.*", *EVENT_TYPES)

Network = IPv4Network | IPv6Network

# An IPv6 address in this network contains an IPv4 address, to which a gateway delivers.
_NAT64 = IPv6Network("64:ff9b::/96")
# The only part of IPv6 from which public addresses are allocated (RFC 4291, section 2.4).
_PUBLIC_IPV6 = IPv6Network("2000::/3")
# Networks that some Python version calls global, but that contain no host on the Internet.
_NOT_PUBLIC = tuple(
    ip_network(network)
    for network in (
        "168.63.129.16/32",  # the host of a virtual machine in Azure
        "192.0.0.0/24",  # protocol assignments; the nearest router answers for some of them
        "192.88.99.0/24",  # the nearest gateway from IPv4 to IPv6
        "2001::/23",  # protocol assignments, such as Teredo
        "3fff::/20",  # documentation
    )
)

# The characters of RFC 3986. Parsers disagree about other characters, and about names that are
# percent-encoded. With this rule every parser reads a URL in the same way.
_URL = re.compile(r"(?:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+")
_LABEL = re.compile(r"[A-Za-z0-9_-]{1,63}")
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
_NAME_CHARS_MAX = 253
_NOT_PUBLIC_FAULT = "must not be a private or local address"
# The addresses of `localhost` and every name below it (RFC 6761, section 6.3).
_LOOPBACK = (ip_address("127.0.0.1"), ip_address("::1"))


class WebhookStatus(StrEnum):
    """A disabled endpoint gets no requests. New deliveries are recorded as skipped, and deliveries
    that wait for a retry become dead letters."""

    ACTIVE = "active"
    DISABLED = "disabled"


class DeliveryStatus(StrEnum):
    """pending: waits for its first attempt, or for redelivery; retrying: has failed and waits for
    the next attempt; dead: is not attempted again; skipped: the endpoint was disabled."""

    PENDING = "pending"
    DELIVERED = "delivered"
    RETRYING = "retrying"
    DEAD = "dead"
    SKIPPED = "skipped"


class OldSecret(NamedTuple):
    """A secret that was replaced. Until `until`, requests are signed with it as well."""

    secret: str
    until: datetime


class Webhook(NamedTuple):
    """An endpoint. `secret` is `whsec_` and base64; `old_secrets` are the replaced secrets, newest
    first."""

    id: str
    url: str
    events: tuple[str, ...]
    wallet_id: str | None
    status: WebhookStatus
    disabled_reason: str | None
    secret: str
    old_secrets: tuple[OldSecret, ...]
    created_at: datetime
    updated_at: datetime

    def promised(self, now: datetime) -> tuple[OldSecret, ...]:
        """The old secrets that still sign."""
        return tuple(old for old in self.old_secrets if old.until > now)

    def wants(self, event_type: str) -> bool:
        """Whether the filter admits events of this type."""
        kind = event_type.partition(".")[0]
        return any(wanted in ("*", event_type, f"{kind}.*") for wanted in self.events)


def url_fault(url: str, *, allow_http: bool, allowed: Sequence[Network]) -> str | None:
    """The fault of the URL of an endpoint, in words that follow "the URL"; None if there is none.

    The address of a name is checked at each connection. So this function refuses only the names
    that mean this machine by definition. The name servers of an installation decide about names in
    `.local`, `.internal` and `home.arpa`, and `allowed` may include their networks.
    """
    if _URL.fullmatch(url) is None:
        return "must be ASCII, with all characters that a URL cannot contain percent-encoded"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "is not a URL"
    if parts.scheme not in ("http", "https") or not host:
        return "must be an absolute https URL"
    if parts.scheme == "http" and not allow_http:
        return "must be https"
    if "@" in parts.netloc:
        return "must not contain a user or a password"
    if port == 0:
        return "must not have the port 0"
    if parts.fragment:
        return "must not have a fragment"
    return _host_fault(host, is_bracketed="[" in parts.netloc, allowed=allowed)


def is_allowed(address: IPv4Address | IPv6Address, allowed: Sequence[Network]) -> bool:
    """Whether an endpoint may have this address: it is public, or inside one of `allowed`.

    An IPv6 address that contains an IPv4 address is judged as the IPv4 address.
    """
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_allowed(inner, allowed)
    if _is_in(address, allowed):
        return True
    if isinstance(address, IPv6Address) and address not in _PUBLIC_IPV6:
        return False
    return address.is_global and not address.is_multicast and not _is_in(address, _NOT_PUBLIC)


def _host_fault(host: str, *, is_bracketed: bool, allowed: Sequence[Network]) -> str | None:
    try:
        address = ip_address(host)
    except ValueError:
        if is_bracketed or not _is_name(host):
            return "must have a host that is a name or an address"
        is_loopback = host.lower().removesuffix(".").rpartition(".")[2] == "localhost"
        if is_loopback and not any(is_allowed(address, allowed) for address in _LOOPBACK):
            return _NOT_PUBLIC_FAULT
        return None
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        return "must not name a network interface"
    return None if is_allowed(address, allowed) else _NOT_PUBLIC_FAULT


def _is_name(host: str) -> bool:
    """Whether this is a valid host name, and not another spelling of an address, such as 0x7f.1."""
    labels = host.removesuffix(".").split(".")
    return (
        len(host) <= _NAME_CHARS_MAX
        and all(_LABEL.fullmatch(label) for label in labels)
        and not _NUMBER.fullmatch(labels[-1])
    )


def _is_in(address: IPv4Address | IPv6Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)
