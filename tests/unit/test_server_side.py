"""The figures of the service in a load test: their arithmetic, and the states of its processes."""

import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import inf
from threading import Thread

import pytest

from loadtest.dashboards.figures import FIGURES, figures_of, quantile
from loadtest.dashboards.scrape import (
    Change,
    Scrape,
    Series,
    difference,
    in_parallel,
    in_sequence,
    parse,
)
from loadtest.dashboards.server_side import ROWS_MAX, TARGETS_MAX, ServerSide
from loadtest.dashboards.targets import addresses, metrics_url
from transferd.observability.facts import EnvelopeFailed, GroupCommitted, WalletRead
from transferd.observability.metrics import Metrics

DONE = ("transferd_outcomes_total", "done")
CPU = ("process_cpu_seconds_total", "")
OUTBOX = "transferd_outbox_waiting_events"
MEMORY = "process_resident_memory_bytes"
UNREACHABLE = "http://127.0.0.1:1"


def replica(groups: int) -> str:
    """The metrics of a replica that has committed so many groups."""
    metrics = Metrics()
    metrics.gauge("transferd_ready", "Ready.", lambda: 1)
    for _ in range(groups):
        metrics(GroupCommitted(7, 4, 2, 1, oldest_wait_s=0.003, duration_s=0.2))
        metrics(EnvelopeFailed("mailbox-full"))
        for cache in ("hit", "hit", "hit", "miss"):
            metrics(WalletRead(cache))
    return metrics.exposed()[0].decode()


def worker(waiting: float) -> str:
    """The metrics of a worker with so many events in the outbox."""
    metrics = Metrics()
    metrics.gauge("transferd_worker_ready", "Ready.", lambda: 1)
    metrics.gauge(OUTBOX, "Events.", lambda: waiting)
    metrics.gauge("transferd_outbox_oldest_seconds", "Age.", lambda: 1.5)
    return metrics.exposed()[0].decode()


def between(before: str, after: str, seconds: float = 2.0) -> dict[str, float | None]:
    """The figures between two texts."""
    return figures_of(difference(parse(before, 100.0), parse(after, 100.0 + seconds)))


@contextmanager
def answering(texts: list[str]) -> Iterator[str]:
    """The URL of a server that answers with these texts, then again with the last; "" is 503."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            text = texts.pop(0) if len(texts) > 1 else texts[0]
            self.send_response(200 if text else 503)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def clock(step_s: float = 2.0) -> Callable[[], float]:
    """100, then later by the step at each call."""
    times = (100.0 + step_s * number for number in range(10_000))
    return lambda: next(times)


# Arithmetic


@pytest.mark.parametrize(
    ("name", "of_replica", "of_worker"),
    [
        ("done_per_s", 8.0, None),
        ("refused_per_s", 4.0, None),
        ("replayed_per_s", 2.0, None),
        ("turned_away_per_s", 2.0, None),
        ("requests_per_s", 0.0, None),
        ("group_size_mean", 7.0, None),
        # All values are in one bucket: 2 to 4 ms, and 125 to 250 ms.
        ("wait_p95_ms", 2 + 0.95 * 2, None),
        ("wait_mean_ms", 3.0, None),
        ("commit_p95_ms", 125 + 0.95 * 125, None),
        ("commit_mean_ms", 200.0, None),
        ("cache_hit_share", 0.75, None),
        ("outbox_waiting", None, 9.0),
        ("outbox_oldest_s", None, 1.5),
    ],
)
def test_metrics_of_the_service_become_figures(
    name: str, of_replica: float | None, of_worker: float | None
) -> None:
    assert between(replica(2), replica(6))[name] == pytest.approx(of_replica)
    assert between(worker(7), worker(9))[name] == pytest.approx(of_worker)


def test_cpu_and_memory_are_figures_of_every_process() -> None:
    change = Change(2.0, {CPU: 1.0}, {MEMORY: 64.0 * 2**20, "transferd_worker_ready": 1.0})
    assert (figures_of(change)["cpu_share"], figures_of(change)["rss_mib"]) == (0.5, 64.0)


@pytest.mark.parametrize("text", ["", "# nothing\n", "other_total 3\n", "transferd_ready NaN\n"])
def test_a_figure_without_its_metric_is_zero_or_missing(text: str) -> None:
    assert {value for value in between(text, text).values() if value is not None} == {0.0}


def test_no_time_between_two_scrapes_gives_no_figures() -> None:
    assert between(replica(1), replica(2), seconds=0.0) == {each.name: None for each in FIGURES}


A, B = ("a_total", ""), ("b_total", "x")


@pytest.mark.parametrize(
    ("before", "after", "counted"),
    [
        ({A: 10.0}, {A: 25.0}, {A: 15.0}),
        ({A: 10.0}, {A: 10.0}, {A: 0.0}),
        ({}, {A: 3.0}, {A: 3.0}),
        # A restart: all counts are new, including those above the old count.
        ({A: 10.0}, {A: 4.0}, {A: 4.0}),
        ({A: 10.0, B: 5.0}, {A: 12.0, B: 1.0}, {A: 12.0, B: 1.0}),
        ({A: 10.0}, {}, {}),
    ],
)
def test_a_counter_that_decreases_or_disappears_is_a_restart(
    before: Mapping[Series, float], after: Mapping[Series, float], counted: Mapping[Series, float]
) -> None:
    assert difference(Scrape(5.0, before, {}), Scrape(7.0, after, {})) == Change(2.0, counted, {})


def test_changes_are_joined_over_time_and_over_processes() -> None:
    first = Change(2.0, {A: 20.0}, {MEMORY: 10.0, OUTBOX: 3.0})
    second = Change(8.0, {A: 40.0}, {MEMORY: 4.0, OUTBOX: 5.0})
    largest = {MEMORY: 10.0, OUTBOX: 5.0}
    assert in_sequence(first, second) == Change(10.0, {A: 60.0}, largest)
    # All workers have the same outbox.
    shared = {MEMORY: 14.0, OUTBOX: 5.0}
    assert in_parallel([first, second]) == Change(8.0, {A: 60.0}, shared)
    rates = [first.per_second(), second.per_second()]
    assert in_parallel(rates) == Change(1.0, {A: 15.0}, shared)
    assert in_parallel([]) == Change()


@pytest.mark.parametrize(
    ("share", "cumulative", "expected"),
    [
        (0.95, {}, None),
        (0.95, {1.0: 0, inf: 0}, None),
        (0.5, {1.0: 10, inf: 10}, 0.5),
        (0.5, {1.0: 0, 2.0: 10, inf: 10}, 1.5),
        (0.9, {1.0: 5, 2.0: 10, 4.0: 10, inf: 10}, 1.8),
        (1.0, {1.0: 10, 2.0: 10, inf: 10}, 1.0),
        # Above the last finite bound.
        (0.95, {1.0: 5, 2.0: 6, inf: 10}, 2.0),
    ],
)
def test_a_quantile_is_interpolated(
    share: float, cumulative: dict[float, float], expected: float | None
) -> None:
    assert quantile(share, cumulative) == pytest.approx(expected)


# States of processes


@pytest.mark.parametrize(
    ("answers", "role", "is_up", "done_per_s"),
    [
        # Scraped once: up, and no figures yet.
        ([replica(1)], "replica", True, None),
        ([replica(1), replica(2)], "replica", True, [2.0]),
        ([worker(1), worker(2)], "worker", True, [None]),
        # Restarted.
        ([replica(3), replica(1)], "replica", True, [2.0]),
        ([replica(1), replica(2), ""], "replica", False, None),
        # Up again: the rate is a mean over the time that it was down.
        ([replica(1), "", "", replica(4)], "replica", True, [2.0]),
        ([""], None, False, None),
        (["<html>"], None, False, None),
        (["a{ 1\n"], None, False, None),
        (["\x00"], None, False, None),
    ],
)
def test_a_process_has_a_state_and_figures_while_it_is_up(
    answers: list[str], role: str | None, is_up: bool, done_per_s: list[float | None] | None
) -> None:
    with answering(list(answers)) as url:
        server_side = ServerSide([url, UNREACHABLE], clock=clock())
        for _ in answers:
            assert server_side.scrape_once() in {0, 1}
        state, down = server_side.states()
    name = url.removeprefix("http://")
    assert (state["target"], state["role"], state["is_up"]) == (name, role, is_up)
    assert (state["trouble"] is None) == is_up
    assert (down["target"], down["role"], down["is_up"]) == ("127.0.0.1:1", None, False)
    figures = server_side.rows[-1]["figures"]
    assert set(figures) == (set() if done_per_s is None else {name, "total"})
    assert [each["done_per_s"] for each in figures.values()] == (done_per_s or []) * 2
    assert repr(server_side) == f"<ServerSide {int(is_up)} of 2 up>"


def test_the_total_adds_up_rates_over_different_times() -> None:
    always, later = [replica(groups) for groups in (1, 2, 3, 4)], [replica(1), "", "", replica(4)]
    with answering(always) as first, answering(later) as second:
        server_side = ServerSide([first, second], clock=clock())
        for _ in range(4):
            server_side.scrape_once()
    rates = [each["done_per_s"] for each in server_side.rows[-1]["figures"].values()]
    assert rates == [2.0, 2.0, 4.0]


def test_a_summary_starts_with_the_run() -> None:
    # The process is down at the start of the second run, which starts with its next answer.
    texts = [replica(groups) for groups in (1, 3, 5, 9)]
    with answering([*texts, "", replica(20), replica(21)]) as url:
        server_side = ServerSide([url, UNREACHABLE], clock=clock())
        server_side.scrape_once()
        server_side.start_run()
        server_side.scrape_once()
        first = server_side.summary()
        server_side.start_run()
        server_side.scrape_once()
        second = server_side.summary()
    run, down = first["targets"]
    assert (run["role"], run["seconds"], run["done_per_s"]) == ("replica", 4.0, 6.0)
    assert run["results"] == {"done": 24, "refused": 12, "replayed": 6}
    assert run["turned_away"] == {"mailbox-full": 6}
    assert run["rss_first_mib"] > 0
    assert run["rss_last_mib"] > 0
    assert (down["is_up"], down["seconds"], down["done_per_s"]) == (False, 0.0, None)
    assert first["total"]["results"]["done"] == 24
    assert second["total"]["results"]["done"] == 4


def test_an_extra_round_counts_but_has_no_row() -> None:
    times = iter([0.0, 2.0, 2.1])
    with answering([replica(1), replica(2), replica(3)]) as url:
        server_side = ServerSide([url], clock=lambda: next(times))
        server_side.start_run()
        server_side.scrape_once()
        assert server_side.summary()["total"]["results"]["done"] == 8
    assert [row["at_s"] for row in server_side.rows] == [0.0, 2.0]


def test_no_more_rows_are_kept_than_the_limit() -> None:
    server_side = ServerSide([], clock=clock())
    for _ in range(ROWS_MAX + 10):
        server_side.scrape_once()
    assert len(server_side.rows) == ROWS_MAX
    assert server_side.rows[-1] == {"at_s": 100.0 + 2 * (ROWS_MAX + 9), "figures": {}}


@pytest.mark.parametrize(
    ("given", "scraped"),
    [
        ("http://app:8080", "http://app:8080/metrics"),
        ("http://app:8080/", "http://app:8080/metrics"),
        ("http://app:8080/inner/metrics", "http://app:8080/inner/metrics"),
        ("app:8080", "http://app:8080/metrics"),
    ],
)
def test_a_base_url_is_enough(given: str, scraped: str) -> None:
    assert metrics_url(given) == scraped


@pytest.mark.parametrize("given", ["", "ftp://app/metrics", "http:///metrics"])
def test_a_url_that_is_not_http_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match="not an http URL"):
        metrics_url(given)


def test_a_name_of_several_replicas_leads_to_each_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(2, 1, 6, "", (number, 80)) for number in ("10.0.0.2", "10.0.0.1", "10.0.0.2")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: found)
    urls = ["http://10.0.0.1:8080/metrics", "http://10.0.0.2:8080/metrics"]
    assert addresses("http://app:8080/metrics") == urls


def test_no_more_addresses_are_scraped_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(2, 1, 6, "", (f"127.1.0.{n}", 1)) for n in range(TARGETS_MAX + 5)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: found)
    server_side = ServerSide(["http://app:1"])
    assert server_side.scrape_once() == 0
    assert len(server_side.states()) == TARGETS_MAX
