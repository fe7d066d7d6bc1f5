"""Which events an endpoint gets, and which URLs and addresses it may have."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network

import pytest

from transferd.domain.webhook import (
    EVENT_FILTERS,
    EVENT_TYPES,
    Network,
    OldSecret,
    Webhook,
    WebhookStatus,
    is_allowed,
    url_fault,
)

ANY = ("0.0.0.0/0", "::/0")


def endpoint(*events: str) -> Webhook:
    moment = datetime(2030, 1, 1, tzinfo=UTC)
    return Webhook(
        id="hook",
        url="https://receiver.example/",
        events=events,
        wallet_id=None,
        status=WebhookStatus.ACTIVE,
        disabled_reason=None,
        secret="whsec_AAAA",
        old_secrets=(),
        created_at=moment,
        updated_at=moment,
    )


def networks(*names: str) -> tuple[Network, ...]:
    return tuple(ip_network(name) for name in names)


# Events


@pytest.mark.parametrize(
    ("events", "event_type", "wanted"),
    [
        (("*",), "transfer.posted", True),
        (("*",), "user.created", True),
        (("transfer.*",), "transfer.posted", True),
        (("transfer.*",), "transfer.reversed", True),
        (("transfer.*",), "wallet.created", False),
        (("wallet.frozen",), "wallet.frozen", True),
        (("wallet.frozen",), "wallet.unfrozen", False),
        (("user.created", "wallet.closed"), "wallet.closed", True),
        (("user.created", "wallet.closed"), "wallet.created", False),
        ((), "transfer.posted", False),
    ],
)
def test_an_endpoint_gets_the_events_of_its_filters(
    events: tuple[str, ...], event_type: str, wanted: bool
) -> None:
    assert endpoint(*events).wants(event_type) is wanted


def test_every_filter_wants_something() -> None:
    for wanted in EVENT_FILTERS:
        assert any(endpoint(wanted).wants(event_type) for event_type in EVENT_TYPES), wanted


# Secrets


def test_an_old_secret_signs_before_its_time_and_not_from_then_on() -> None:
    now = datetime(2030, 1, 1, tzinfo=UTC)
    # The newest first, as they are kept; a shorter overlap may end a newer one sooner.
    old = [OldSecret(f"whsec_{minutes}", now + timedelta(minutes=minutes)) for minutes in (1, 9, 5)]
    hook = endpoint("*")._replace(old_secrets=tuple(old))
    assert hook.promised(now) == tuple(old)
    assert hook.promised(now + timedelta(minutes=1)) == (old[1], old[2])
    assert hook.promised(now + timedelta(minutes=5)) == (old[1],)
    assert hook.promised(now + timedelta(minutes=9)) == ()


# Addresses


@pytest.mark.parametrize(
    "address",
    [
        "1.1.1.1",
        "8.8.8.8",
        "172.15.255.255",
        "172.32.0.1",
        "100.63.255.255",
        "100.128.0.1",
        "2606:4700:4700::1111",
        "2a00:1450::1",
        # A public IPv4 address in another notation.
        "::ffff:8.8.8.8",
        "64:ff9b::8.8.8.8",
        "2002:808:808::1",
    ],
)
def test_a_public_address_is_allowed(address: str) -> None:
    assert is_allowed(ip_address(address), ())


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "100.64.0.1",
        "100.100.100.200",
        "127.0.0.1",
        "127.255.255.254",
        "168.63.129.16",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.9",
        "192.0.0.192",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "100::1",
        "2001::1",
        "2001:1::1",
        "2001:db8::1",
        "3fff::1",
        "4000::1",
        "5f00::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
        "ff0e::1",
        # Other addresses that contain an IPv4 address.
        "::ffff:127.0.0.1",
        "::ffff:0.0.0.0",
        "::ffff:169.254.169.254",
        "::10.0.0.1",
        "::8.8.8.8",
        "::ffff:0:10.0.0.1",
        "64:ff9b::127.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::8.8.8.8",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::1",
        "2001:0:4136:e378:8000:63bf:f7f7:f7f7",
    ],
)
def test_any_other_address_is_not_unless_its_network_is(address: str) -> None:
    assert not is_allowed(ip_address(address), ())
    assert not is_allowed(ip_address(address), networks("10.99.0.0/16", "fd99::/16"))
    assert is_allowed(ip_address(address), networks(*ANY))


@pytest.mark.parametrize(
    ("address", "network", "allowed"),
    [
        ("10.1.2.3", "10.1.0.0/16", True),
        ("10.2.2.3", "10.1.0.0/16", False),
        ("::ffff:10.1.2.3", "10.1.0.0/16", True),
        # The address decides, not its spelling.
        ("::ffff:10.1.2.3", "::/0", False),
        ("64:ff9b::10.1.2.3", "64:ff9b::/96", False),
        ("fd00::1", "fd00::/8", True),
        ("fd00::1", "0.0.0.0/0", False),
        ("10.0.0.1", "::/0", False),
    ],
)
def test_a_network_lets_its_own_addresses_pass(address: str, network: str, allowed: bool) -> None:
    assert is_allowed(ip_address(address), networks(network)) is allowed


# URLs

ASCII = "must be ASCII, with all characters that a URL cannot contain percent-encoded"
HOST = "must have a host that is a name or an address"
PRIVATE = "must not be a private or local address"


@pytest.mark.parametrize(
    "url",
    [
        "https://receiver.example",
        "https://receiver.example/hook?a[]=1&b=%2F",
        "https://receiver.example:8443/",
        "https://receiver.example./",
        "https://under_score.xn--bcher-kva.example/",
        "HTTPS://RECEIVER.EXAMPLE/",
        "https://1.1.1.1/",
        "https://[2606:4700:4700::1111]:8443/",
        "https://[::ffff:8.8.8.8]/",
        "https://1.2.3.4.receiver.example/",
        # Names that begin or end like `localhost` and are other hosts.
        "https://localhost.example/",
        "https://notlocalhost/",
        "https://local.host/",
        # Name servers decide the addresses of these, so they are checked at connect.
        "https://receiver.local/",
        "https://receiver.internal/",
        "https://receiver.home.arpa/",
    ],
)
def test_a_plain_url_is_fine(url: str) -> None:
    assert url_fault(url, allow_http=False, allowed=()) is None


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("", ASCII),
        ("https://bücher.example/", ASCII),
        ("https://receiver.example/\r\nX: y", ASCII),
        ("https://receiver.example/\n", ASCII),
        (" https://receiver.example/", ASCII),
        ("https://receiver.example/\x00", ASCII),
        ("https://receiver.example/%zz", ASCII),
        ("https://receiver.example/a b", ASCII),
        ("https://127.0.0.1\\.receiver.example/", ASCII),
        ("https://127。0。0。1/", ASCII),
        ("https://[::1", "is not a URL"),
        ("https://receiver.example:99999/", "is not a URL"),
        ("https://receiver.example:http/", "is not a URL"),
        ("receiver.example", "must be an absolute https URL"),
        ("/hook", "must be an absolute https URL"),
        ("https:receiver.example", "must be an absolute https URL"),
        ("https:///hook", "must be an absolute https URL"),
        ("ftp://receiver.example/", "must be an absolute https URL"),
        ("file:///etc/passwd", "must be an absolute https URL"),
        ("http://receiver.example/", "must be https"),
        ("https://ada:secret@receiver.example/", "must not contain a user or a password"),
        ("https://@receiver.example/", "must not contain a user or a password"),
        ("https://receiver.example:0/", "must not have the port 0"),
        ("https://receiver.example/#top", "must not have a fragment"),
        ("https://2130706433/", HOST),
        ("https://127.1/", HOST),
        ("https://[v1.receiver]/", HOST),
        ("https://0x7f.0x1/", HOST),
        ("https://0x7f000001/", HOST),
        ("https://017700000001/", HOST),
        ("https://127.0.0.01/", HOST),
        ("https://127.0.0.1./", HOST),
        ("https://%31%32%37.0.0.1/", HOST),
        ("https://receiver..example/", HOST),
        ("https://.receiver.example/", HOST),
        ("https://" + "a" * 64 + ".example/", HOST),
        ("https://" + "a." * 127 + "example/", HOST),
        ("https://[fe80::1%25eth0]/", "must not name a network interface"),
        ("https://[2606:4700::1%25eth0]/", "must not name a network interface"),
        ("https://127.0.0.1/", PRIVATE),
        ("https://10.0.0.7:8443/", PRIVATE),
        ("https://169.254.169.254/latest/meta-data/", PRIVATE),
        ("https://0.0.0.0/", PRIVATE),
        ("https://[::]/", PRIVATE),
        ("https://[::1]/", PRIVATE),
        ("https://[::ffff:127.0.0.1]/", PRIVATE),
        ("https://[::ffff:7f00:1]/", PRIVATE),
        ("https://[64:ff9b::7f00:1]/", PRIVATE),
        ("https://localhost/", PRIVATE),
        ("https://LocalHost:8443/hook", PRIVATE),
        ("https://localhost./", PRIVATE),
        ("https://a.localhost/", PRIVATE),
        ("https://a.b.LOCALHOST./", PRIVATE),
    ],
)
def test_the_error_of_a_url_is_named(url: str, fault: str) -> None:
    assert url_fault(url, allow_http=False, allowed=()) == fault


def test_an_address_that_an_operator_allows_is_valid() -> None:
    assert url_fault("http://receiver.example/", allow_http=True, allowed=()) is None
    allowed = networks("10.0.0.0/8")
    assert url_fault("https://10.0.0.7/", allow_http=False, allowed=allowed) is None
    assert url_fault("https://127.0.0.1/", allow_http=False, allowed=allowed) == PRIVATE


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.", "a.localhost", "a.b.localhost."])
@pytest.mark.parametrize(
    ("network", "is_fine"),
    [
        ("127.0.0.0/8", True),
        ("127.0.0.1/32", True),
        ("::1/128", True),
        ("10.0.0.0/8", False),
        ("127.0.0.2/32", False),
        ("fd00::/8", False),
    ],
)
def test_localhost_is_fine_where_an_operator_allows_loopback(
    host: str, network: str, is_fine: bool
) -> None:
    fault = url_fault(f"https://{host}/", allow_http=False, allowed=networks(network))
    assert fault == (None if is_fine else PRIVATE)
