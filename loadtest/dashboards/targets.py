"""The processes that are scraped."""

import socket
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, Request, build_opener

import gevent

from loadtest.dashboards.figures import summary_of
from loadtest.dashboards.scrape import Change, Scrape, difference, has_replica, in_sequence, parse

# Shorter than the time between two scrapes, so that a process that hangs delays the next
# scrape only a little.
TIMEOUT_S = 1.5
# /metrics of a replica has about 20 kB.
_BODY_BYTES_MAX = 4 * 2**20
# Replicas are inside the network, so a proxy of the environment does not apply.
_OPENER = build_opener(ProxyHandler({}))


def metrics_url(url: str) -> str:
    """The full URL for a URL or `host:port`; ValueError if it is not an HTTP URL."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"not an http URL: {url}")
    return parts._replace(path=parts.path.rstrip("/") or "/metrics", fragment="").geturl()


def addresses(url: str) -> list[str]:
    """One URL for each address of the host. Raises OSError if the host is unknown.

    In a compose network all replicas share one name, and each request may reach another replica.
    """
    parts = urlsplit(url)
    port = parts.port or 80
    found = socket.getaddrinfo(parts.hostname, port, socket.AF_INET, socket.SOCK_STREAM)
    numbers = sorted({each[4][0] for each in found})
    # A certificate is valid for the name only.
    if len(numbers) == 1 or parts.scheme == "https":
        return [url]
    return [parts._replace(netloc=f"{number}:{port}").geturl() for number in numbers]


@dataclass
class Target:
    """One process, with the newest change of its metrics and the sum of all changes of the run.

    `given_url` is the URL that was resolved to `url`.
    """

    url: str
    given_url: str
    # Why it is down; None while it is up.
    trouble: str | None = "not scraped yet"
    # None while it is down or has been scraped only once.
    change: Change | None = None
    run: Change = field(default_factory=Change)
    _scrape: Scrape | None = None
    _first_of_run: Scrape | None = None

    @property
    def name(self) -> str:
        """The URL without its scheme and without /metrics."""
        return self.url.partition("://")[2].removesuffix("/metrics")

    def scrape(self, at_s: float) -> None:
        """Scrape it once. After any error it is down; an error never ends the load test."""
        try:
            with gevent.Timeout(TIMEOUT_S, OSError("no answer in time")):
                host = urlsplit(self.given_url).netloc
                with _OPENER.open(Request(self.url, headers={"Host": host})) as response:
                    text = response.read(_BODY_BYTES_MAX).decode()
            self.scraped(parse(text, at_s))
        except Exception as error:
            self.failed(str(error) or type(error).__name__)

    def scraped(self, scrape: Scrape) -> None:
        """Record a scrape: it is up."""
        before, self._scrape, self.trouble = self._scrape, scrape, None
        self.change = difference(before, scrape) if before else None
        self._first_of_run = self._first_of_run or scrape
        if self.change:
            self.run = in_sequence(self.run, self.change)

    def failed(self, trouble: str) -> None:
        """Record a failed scrape: it is down. Its next change includes this time."""
        self.change, self.trouble = None, trouble

    def start_run(self) -> None:
        """Sum up changes from the newest scrape on, or from the next one if it is down."""
        self.run = Change()
        self._first_of_run = self._scrape = self._scrape if self.trouble is None else None

    def state(self) -> dict[str, Any]:
        """For JSON: its role, and whether it is up."""
        role = None
        if self._scrape is not None:
            role = "replica" if has_replica(self._scrape.gauges) else "worker"
        is_up = self.trouble is None
        return {"target": self.name, "role": role, "is_up": is_up, "trouble": self.trouble}

    def summary(self) -> dict[str, Any]:
        """For JSON: its state, its figures for the run, and the largest value of each gauge."""
        return {
            **self.state(),
            **summary_of(self.run),
            "rss_first_mib": _rss_mib(self._first_of_run),
            "rss_last_mib": _rss_mib(self._scrape),
        }


def _rss_mib(scrape: Scrape | None) -> float | None:
    size = scrape.gauges.get("process_resident_memory_bytes") if scrape else None
    return None if size is None else size / 2**20
