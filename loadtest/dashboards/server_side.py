"""The metrics of the service's processes during a load test, now and over time."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import gevent
from gevent.lock import BoundedSemaphore

from loadtest.dashboards.figures import figures_of, summary_of
from loadtest.dashboards.scrape import in_parallel
from loadtest.dashboards.targets import TIMEOUT_S, Target, addresses, metrics_url

# Short enough to show how a queue grows. A scrape costs a replica about a millisecond of CPU and a
# ping of PostgreSQL.
EVERY_S = 2.0
# Rates over a shorter time are noise. The extra scrapes at the start and end of a run count for the
# summary, but add no row.
ROW_S_MIN = 0.5
# Half an hour. The page shows ten minutes.
ROWS_MAX = 900
# More lines make a chart unreadable. Without a limit, replaced containers would add targets.
TARGETS_MAX = 32


class ServerSide:
    """Scrapes replicas and workers; times are seconds since 1970.

    Each of `rows` has its time `at_s`, and by name the `figures` of each process that is up and of
    `total`.
    """

    def __init__(self, urls: Sequence[str], *, clock: Callable[[], float] = time.time) -> None:
        self.urls = list(dict.fromkeys(map(metrics_url, urls)))
        self.rows: deque[dict[str, Any]] = deque(maxlen=ROWS_MAX)
        self._targets: dict[str, Target] = {}
        self._clock = clock
        # Two concurrent rounds could store an older scrape after a newer one.
        self._round = BoundedSemaphore(1)

    def __repr__(self) -> str:
        up = sum(target.trouble is None for target in self._targets.values())
        return f"<ServerSide {up} of {len(self._targets)} up>"

    def start(self) -> None:
        """Scrape from now on."""
        if self.urls:
            gevent.spawn(self._run)

    def start_run(self) -> None:
        """The users of a run start now: the summary counts from now on."""
        self.scrape_once()
        for target in self._targets.values():
            target.start_run()

    def states(self) -> list[dict[str, Any]]:
        """For JSON: the state of each process, in the order of discovery."""
        return [target.state() for target in self._targets.values()]

    def summary(self) -> dict[str, Any]:
        """For JSON: the figures of each process since `start_run`, after a last scrape."""
        self.scrape_once()
        targets = self._targets.values()
        total = summary_of(in_parallel([target.run for target in targets]))
        return {"targets": [target.summary() for target in targets], "total": total}

    def scrape_once(self) -> int:
        """Scrape all processes concurrently; returns the number that are up."""
        with self._round:
            at_s = self._clock()
            gevent.joinall([gevent.spawn(self._resolve, url) for url in self.urls])
            targets = list(self._targets.values())
            gevent.joinall([gevent.spawn(target.scrape, at_s) for target in targets])
            # The clock of the machine may have been set back.
            if not self.rows or abs(at_s - self.rows[-1]["at_s"]) >= ROW_S_MIN:
                self.rows.append({"at_s": at_s, "figures": self._figures()})
        return sum(target.trouble is None for target in targets)

    def _figures(self) -> dict[str, Any]:
        known = {
            target.name: target.change.per_second()
            for target in self._targets.values()
            if target.change is not None and target.change.seconds
        }
        # After a process was down its change is longer than those of the others, so add up rates.
        total = {"total": in_parallel(list(known.values()))} if known else {}
        return {name: figures_of(change) for name, change in (known | total).items()}

    def _run(self) -> None:
        while True:
            self.scrape_once()
            gevent.sleep(EVERY_S)

    def _resolve(self, url: str) -> None:
        """Add a target for each new address. Targets whose address disappears stay, as down."""
        found: list[str] = []
        with suppress(OSError), gevent.Timeout(TIMEOUT_S, OSError("no answer from DNS")):
            found = addresses(url)
        if not found and all(each.given_url != url for each in self._targets.values()):
            found = [url]
        for address in found:
            if address not in self._targets and len(self._targets) < TARGETS_MAX:
                self._targets[address] = Target(address, url)
