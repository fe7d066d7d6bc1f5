"""Looks at the service from inside while Locust looks at it from outside."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import gevent
from gevent.event import Event
from gevent.lock import BoundedSemaphore

from loadtest.dashboards.figures import Account, Point, total, totals
from loadtest.dashboards.scrape import at_once, parse
from loadtest.dashboards.targets import (
    POINTS_MAX,
    Address,
    Target,
    addresses,
    fetch,
    metrics_url,
    replicas,
)

# Often enough to watch a queue grow; a scrape costs a replica a millisecond and a question to
# PostgreSQL.
EVERY_S = 2.0
# Below EVERY_S, so that a process that hangs does not slow down the view on the others.
TIMEOUT_S = 1.5
# More lines than this nobody can tell apart, and names may resolve to ever new addresses.
TARGETS_MAX = 32


class ServerSide:
    """Asks replicas and workers for their metrics, again and again; none at all is fine as well.

    Times are seconds since 1970. Nothing that a process answers, or does not, raises an error.
    """

    def __init__(self, urls: Sequence[str], *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._urls = list(dict.fromkeys(metrics_url(url) for url in urls))
        self._targets: dict[str, Target] = {}
        self._totals: deque[Point] = deque(maxlen=POINTS_MAX)
        self._greenlet: gevent.Greenlet[[], None] | None = None
        self._wake = Event()
        # Two rounds at once would put an older sample behind a newer one.
        self._one_round = BoundedSemaphore(1)
        self._is_marked = False
        # Who asks for points in the middle of a round must not miss those that are still to come.
        self._complete_until_s = 0.0

    def __repr__(self) -> str:
        up = sum(target.trouble is None for target in self._targets.values())
        return f"<ServerSide {up} of {len(self._targets)} up>"

    @property
    def has_urls(self) -> bool:
        """Whether there is anybody to ask."""
        return bool(self._urls)

    def start(self) -> None:
        """Begin to ask."""
        if self._urls and self._greenlet is None:
            self._greenlet = gevent.spawn(self._run)

    def stop(self) -> None:
        """Ask no more; what was learnt stays."""
        if self._greenlet is not None:
            self._greenlet.kill()
            self._greenlet = None

    def mark_start(self) -> None:
        """The users of a run start now: what was counted before is no part of the summary."""
        self._is_marked = True
        for target in self._targets.values():
            target.mark()
        self._wake.set()

    def latest(self) -> list[dict[str, Any]]:
        """One row for each process, then, if any answers, one for all of them together."""
        rows = [target.as_json() for target in self._targets.values()]
        if self._totals and any(row["point"] for row in rows):
            together = {"target": "total", "role": "total", "is_up": True, "trouble": None}
            rows.append({**together, "point": self._totals[-1].as_json()})
        return rows

    def points(self, since: float = 0.0) -> dict[str, list[dict[str, Any]]]:
        """The figures after `since` by process, and of all of them as `total`, oldest first."""
        until_s = self._complete_until_s
        rings = {name: target.points for name, target in self._targets.items()}
        return {
            name: [each.as_json() for each in ring if since < each.at_s <= until_s]
            for name, ring in (rings | {"total": self._totals}).items()
        }

    def summary(self) -> dict[str, Any]:
        """How each process did since `mark_start`, after a last look at it; for JSON."""
        self.poll_once()
        known = {name: target.account or Account() for name, target in self._targets.items()}
        decisions = [each.change for each in known.values() if not each.is_worker]
        return {
            "targets": [
                {
                    "target": name,
                    "role": self._targets[name].role,
                    "is_up": self._targets[name].trouble is None,
                    **account.as_json(),
                }
                for name, account in known.items()
            ],
            "total": totals(at_once(decisions)),
        }

    def poll_once(self) -> int:
        """Ask everybody at the same time; how many have answered."""
        with self._one_round:
            at_s = self._clock()
            gevent.joinall([gevent.spawn(self._find, url) for url in self._urls])
            targets = list(self._targets.values())
            gevent.joinall([gevent.spawn(self._ask, target, at_s) for target in targets])
            points = [target.newest for target in targets if target.newest is not None]
            if any(each.at_s == at_s for each in points):
                self._totals.append(total(at_s, points, replicas(targets)))
            self._complete_until_s = at_s
        return sum(target.trouble is None for target in targets)

    def _run(self) -> None:
        while True:
            started = time.monotonic()
            self._wake.clear()
            self.poll_once()
            self._wake.wait(max(0.0, started + EVERY_S - time.monotonic()))

    def _find(self, url: str) -> None:
        """Learn who answers to a name; those that no longer do stay as away."""
        found: list[Address] = []
        with suppress(OSError), gevent.Timeout(TIMEOUT_S, OSError("no name service")):
            found = addresses(url)
        if not found and not any(url == each.address.origin for each in self._targets.values()):
            found = [Address(url, url)]
        for address in found:
            if address.name not in self._targets and len(self._targets) < TARGETS_MAX:
                target = self._targets[address.name] = Target(address)
                if self._is_marked:
                    target.mark()

    def _ask(self, target: Target, at_s: float) -> None:
        try:
            with gevent.Timeout(TIMEOUT_S, OSError("no answer in time")):
                target.answered(parse(fetch(target.address, TIMEOUT_S), at_s))
        # Whatever answers at that address: a load test does not end because of who watches it.
        except Exception as error:
            target.was_away(str(error) or type(error).__name__)
