"""The addresses that are scraped, and what each of them has told so far."""

import socket
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit, urlunsplit
from urllib.request import ProxyHandler, Request, build_opener

from loadtest.dashboards.figures import Account, Point, point
from loadtest.dashboards.scrape import Change, Sample, change

# Half an hour of a scrape every two seconds: longer than anybody looks back, and 100 bytes each.
POINTS_MAX = 900
# Rates over less than this are noise: an extra look, such as that at the start of a run, is added
# to the account but makes no point.
_POINT_S_MIN = 0.5
# /metrics of a replica has some 20 kB; whatever is this large is something else.
_BODY_BYTES_MAX = 4 * 2**20

# Replicas are asked directly: a proxy for the way out does not know them.
_OPENER = build_opener(ProxyHandler({}))


@dataclass(frozen=True)
class Address:
    """Where one process tells its metrics; `origin` is the URL that led there."""

    url: str
    origin: str

    @property
    def name(self) -> str:
        """What people tell it apart by: host and port, and the path if it is an unusual one."""
        parts = urlsplit(self.url)
        place = parts.netloc.rpartition("@")[2]
        return place if parts.path == "/metrics" else place + parts.path


def metrics_url(url: str) -> str:
    """The full URL of what may be no more than `host:port`; ValueError if it is none."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"not an http URL: {url}")
    path = parts.path if parts.path.strip("/") else "/metrics"
    return urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))


def addresses(url: str) -> list[Address]:
    """One address for each process that answers to the name in the URL; OSError if there is none.

    In a compose network all replicas share one name, and who asks for it gets another one of them
    each time, whose counters have nothing to do with each other.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    found = socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_STREAM)
    numbers = sorted({str(each[4][0]) for each in found})
    # A certificate is for the name.
    if len(numbers) == 1 or parts.scheme == "https":
        return [Address(url, url)]
    return [
        Address(urlunsplit(("http", f"{number}:{port}", parts.path, parts.query, "")), url)
        for number in numbers
    ]


def fetch(address: Address, timeout_s: float) -> str:
    """The text of its metrics; OSError or ValueError if it does not tell them."""
    request = Request(address.url, headers={"Host": urlsplit(address.origin).netloc})
    with _OPENER.open(request, timeout=timeout_s) as response:
        body: bytes = response.read(_BODY_BYTES_MAX)
    return body.decode()


@dataclass
class Target:
    """One process: what it told last, what follows from that, and how it did in this run."""

    address: Address
    points: deque[Point] = field(default_factory=lambda: deque(maxlen=POINTS_MAX))
    sample: Sample | None = None
    # The newest stretch of time; None while the process is away or was asked only once.
    change: Change | None = None
    # Why it is away; None if it is not.
    trouble: str | None = "not asked yet"
    account: Account | None = None
    _is_to_be_marked: bool = False

    def answered(self, sample: Sample) -> None:
        """Take what it told."""
        before, self.sample, self.trouble = self.sample, sample, None
        self.change = None if before is None else change(before, sample)
        if self.change is not None and self.change.seconds >= _POINT_S_MIN:
            self.points.append(point(sample, self.change))
        if self._is_to_be_marked:
            self.account, self._is_to_be_marked = Account(), False
            self.account.see(sample)
        elif self.account is not None and self.change is not None:
            self.account.take(self.change, sample)

    def was_away(self, trouble: str) -> None:
        """It did not tell anything; what it counts meanwhile is in the next change."""
        self.change, self.trouble = None, trouble

    def mark(self) -> None:
        """Start a new account with what it tells next."""
        self.account, self._is_to_be_marked = None, True

    @property
    def newest(self) -> Point | None:
        """Its newest figures; None while it is away."""
        return self.points[-1] if self.points and self.trouble is None else None

    @property
    def role(self) -> str | None:
        """`replica` or `worker`, once that is known."""
        if self.sample is None:
            return None
        return "worker" if self.sample.is_worker else "replica"

    def as_json(self) -> dict[str, object]:
        """Who it is, whether it answers, and its newest figures if it does."""
        return {
            "target": self.address.name,
            "role": self.role,
            "is_up": self.trouble is None,
            "trouble": self.trouble,
            "point": self.newest.as_json() if self.newest else None,
        }


def replicas(targets: Sequence[Target]) -> list[Change]:
    """The newest changes of those that decide commands."""
    return [each.change for each in targets if each.change is not None and each.role == "replica"]
