"""The service's own figures in a load test: from texts to samples, changes, points, a summary."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import inf
from threading import Thread

import pytest

from loadtest.dashboards.figures import Account, Point, point, total
from loadtest.dashboards.scrape import (
    Change,
    Sample,
    Series,
    at_once,
    change,
    in_turn,
    parse,
    quantile,
    side_by_side,
)
from loadtest.dashboards.server_side import TARGETS_MAX, ServerSide
from loadtest.dashboards.targets import POINTS_MAX, Address, Target, addresses, metrics_url
from transferd.observability.facts import EnvelopeFailed, GroupCommitted, WalletRead
from transferd.observability.metrics import Metrics

DONE = ("transferd_outcomes_total", "done")
REPLICA = {"transferd_ready": 1.0, "process_resident_memory_bytes": 64.0 * 2**20}
WORKER = {
    "transferd_worker_ready": 1.0,
    "transferd_outbox_waiting_events": 7.0,
    "transferd_outbox_oldest_seconds": 1.5,
    "process_resident_memory_bytes": 32.0 * 2**20,
}


def busy_replica(groups: int) -> str:
    """What a replica tells that has committed so many groups."""
    metrics = Metrics()
    metrics.gauge("transferd_ready", "Ready.", lambda: 1)
    for _ in range(groups):
        metrics(GroupCommitted(7, 4, 2, 1, oldest_wait_s=0.003, duration_s=0.2))
        metrics(EnvelopeFailed("mailbox-full"))
        metrics(WalletRead("hit"))
        metrics(WalletRead("hit"))
        metrics(WalletRead("hit"))
        metrics(WalletRead("miss"))
    return metrics.exposed()[0].decode()


def sample(at_s: float, counted: dict[Series, float], gauges: dict[str, float]) -> Sample:
    return Sample(at_s, counted, gauges)


def said(at_s: float, done: float) -> Sample:
    return sample(at_s, {DONE: done}, REPLICA)


@contextmanager
def telling(*texts: str) -> Iterator[str]:
    """The address of somebody who answers with these texts, one after the other."""
    waiting = list(texts)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            text = waiting.pop(0) if len(waiting) > 1 else waiting[0]
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


# Texts


def test_what_a_replica_tells_becomes_figures() -> None:
    before, after = parse(busy_replica(2), 100.0), parse(busy_replica(6), 102.0)
    told = point(after, change(before, after))
    assert (told.done_per_s, told.refused_per_s, told.replayed_per_s) == (8.0, 4.0, 2.0)
    assert told.turned_away_per_s == 2.0
    assert told.group_size_mean == 7.0
    assert told.commit_mean_ms == pytest.approx(200)
    # All lie in one bucket, from 125 to 250 ms.
    assert told.commit_p95_ms == pytest.approx(125 + 0.95 * 125)
    assert told.wait_mean_ms == pytest.approx(3)
    assert told.wait_p95_ms == pytest.approx(2 + 0.95 * 2)
    assert told.cache_hit_share == 0.75
    assert told.requests_per_s == 0.0
    assert told.cpu_share is not None
    assert told.rss_mib is not None
    assert told.outbox_waiting is None


@pytest.mark.parametrize("text", ["", "# nothing\n", "other_total 3\n", "transferd_ready NaN\n"])
def test_families_that_are_missing_are_nothing(text: str) -> None:
    assert parse(text, 1.0) == Sample(1.0, {}, {})
    told = point(parse(text, 2.0), change(parse(text, 1.0), parse(text, 2.0)))
    assert told == Point(
        2.0,
        done_per_s=0.0,
        refused_per_s=0.0,
        replayed_per_s=0.0,
        turned_away_per_s=0.0,
        requests_per_s=0.0,
        cpu_share=0.0,
    )


def test_what_is_not_the_format_is_an_error() -> None:
    with pytest.raises(ValueError):  # noqa: PT011  the words are those of the library
        parse("<html>", 1.0)


# Changes


@pytest.mark.parametrize(
    ("before", "after", "counted"),
    [
        ({DONE: 10.0}, {DONE: 25.0}, {DONE: 15.0}),
        ({DONE: 10.0}, {DONE: 10.0}, {DONE: 0.0}),
        # The first of a kind.
        ({}, {DONE: 3.0}, {DONE: 3.0}),
        # Another process: all of it is new, even what happens to be above the old count.
        ({DONE: 10.0}, {DONE: 4.0}, {DONE: 4.0}),
        ({DONE: 10.0, ("a", ""): 5.0}, {DONE: 12.0, ("a", ""): 1.0}, {DONE: 12.0, ("a", ""): 1.0}),
        ({DONE: 10.0}, {}, {}),
    ],
)
def test_a_counter_that_went_back_began_anew(
    before: dict[Series, float], after: dict[Series, float], counted: dict[Series, float]
) -> None:
    assert change(sample(5.0, before, {}), sample(7.0, after, {})) == Change(2.0, counted)


def test_changes_add_up() -> None:
    first, second = Change(2.0, {DONE: 20.0}), Change(8.0, {DONE: 40.0})
    assert in_turn(first, second) == Change(10.0, {DONE: 60.0})
    assert side_by_side([first, second, Change()]) == Change(1.0, {DONE: 15.0})
    assert at_once([first, second]) == Change(8.0, {DONE: 60.0})
    assert at_once([]) == Change()


@pytest.mark.parametrize(
    ("share", "cumulative", "expected"),
    [
        (0.95, {}, None),
        (0.95, {1.0: 0, inf: 0}, None),
        (0.5, {1.0: 10, inf: 10}, 0.5),
        (0.5, {1.0: 0, 2.0: 10, inf: 10}, 1.5),
        (0.9, {1.0: 5, 2.0: 10, 4.0: 10, inf: 10}, 1.8),
        (1.0, {1.0: 10, 2.0: 10, inf: 10}, 1.0),
        # Beyond the last bound nobody knows more.
        (0.95, {1.0: 5, 2.0: 6, inf: 10}, 2.0),
        (0.0, {1.0: 0, 2.0: 10, inf: 10}, 1.0),
    ],
)
def test_a_quantile_is_interpolated(
    share: float, cumulative: dict[float, float], expected: float | None
) -> None:
    assert quantile(share, cumulative) == (None if expected is None else pytest.approx(expected))


# Points


def test_a_worker_tells_of_the_outbox_and_of_no_commands() -> None:
    told = point(sample(3.0, {}, WORKER), Change(2.0, {("process_cpu_seconds_total", ""): 1.0}))
    assert told == Point(3.0, outbox_waiting=7, outbox_oldest_s=1.5, cpu_share=0.5, rss_mib=32)


def test_no_time_between_two_scrapes_gives_no_rate() -> None:
    told = point(said(3.0, 5), change(said(3.0, 4), said(3.0, 5)))
    assert told == Point(3.0, rss_mib=64.0)


def test_a_total_adds_rates_and_shares_one_outbox() -> None:
    points = [
        Point(9.0, cpu_share=0.5, rss_mib=10.0),
        Point(9.0, cpu_share=0.25, outbox_waiting=3),
        Point(9.0, outbox_waiting=5, outbox_oldest_s=2.0),
    ]
    together = total(9.0, points, [Change(2.0, {DONE: 4.0}), Change(4.0, {DONE: 4.0})])
    assert together.done_per_s == 3.0
    assert (together.cpu_share, together.rss_mib) == (0.75, 10.0)
    assert (together.outbox_waiting, together.outbox_oldest_s) == (5, 2.0)
    assert total(9.0, [], []) == Point(9.0)


def test_as_many_points_are_kept_as_the_limit_says() -> None:
    target = Target(Address("http://a:1/metrics", "http://a:1/metrics"))
    for second in range(POINTS_MAX + 10):
        target.answered(said(second, second))
    assert len(target.points) == POINTS_MAX
    assert target.points[-1] == Point(
        POINTS_MAX + 9, 1.0, 0.0, 0.0, 0.0, 0.0, cpu_share=0.0, rss_mib=64.0
    )


def test_an_extra_look_makes_no_point_but_is_counted() -> None:
    target = Target(Address("http://a:1/metrics", "http://a:1/metrics"))
    target.mark()
    for at_s, done in ((0.0, 100), (2.0, 110), (2.1, 120)):
        target.answered(said(at_s, done))
    assert [each.at_s for each in target.points] == [2.0]
    assert target.account is not None
    assert target.account.change.counted == {DONE: 20.0}


def test_who_was_away_is_told_so_and_counted_later() -> None:
    target = Target(Address("http://a:1/metrics", "http://a:1/metrics"))
    assert target.as_json() == {
        "target": "a:1",
        "role": None,
        "is_up": False,
        "trouble": "not asked yet",
        "point": None,
    }
    target.answered(said(0.0, 0))
    target.answered(said(2.0, 4))
    target.was_away("refused")
    assert (target.as_json()["point"], target.as_json()["trouble"]) == (None, "refused")
    target.answered(said(6.0, 8))
    assert target.newest is not None
    assert target.newest.done_per_s == 1.0
    assert target.role == "replica"


def test_an_account_keeps_the_worst_of_the_outbox() -> None:
    account = Account()
    for waiting, mib in ((5.0, 10), (9.0, 20), (1.0, 30)):
        gauges = WORKER | {"transferd_outbox_waiting_events": waiting}
        gauges["process_resident_memory_bytes"] = mib * 2**20
        account.take(Change(2.0, {("process_cpu_seconds_total", ""): 0.5}), sample(1, {}, gauges))
    assert account.as_json() == {
        "seconds": 6.0,
        "cpu_s": 1.5,
        "rss_first_mib": 10.0,
        "rss_last_mib": 30.0,
        "outbox_waiting_max": 9.0,
        "outbox_oldest_max_s": 1.5,
    }


# Addresses


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ("http://app:8080", "http://app:8080/metrics"),
        ("http://app:8080/", "http://app:8080/metrics"),
        ("http://app:8080/inner/metrics", "http://app:8080/inner/metrics"),
        ("app:8080", "http://app:8080/metrics"),
    ],
)
def test_a_base_url_is_enough(given: str, asked: str) -> None:
    assert metrics_url(given) == asked


@pytest.mark.parametrize("given", ["", "ftp://app/metrics", "http:///metrics"])
def test_what_cannot_be_asked_is_told_at_once(given: str) -> None:
    with pytest.raises(ValueError, match="not an http URL"):
        metrics_url(given)


def test_a_name_of_many_replicas_leads_to_each_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(2, 1, 6, "", (number, 80)) for number in ("10.0.0.2", "10.0.0.1", "10.0.0.2")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: found)
    each = addresses("http://app:8080/metrics")
    assert [address.url for address in each] == [
        "http://10.0.0.1:8080/metrics",
        "http://10.0.0.2:8080/metrics",
    ]
    assert {address.origin for address in each} == {"http://app:8080/metrics"}


def test_not_more_addresses_are_asked_than_the_limit_says(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(2, 1, 6, "", (f"127.1.0.{n}", 1)) for n in range(TARGETS_MAX + 5)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: found)
    server_side = ServerSide(["http://app:1"])
    assert server_side.poll_once() == 0
    assert len(server_side.latest()) == TARGETS_MAX


# All of it


def test_without_anybody_to_ask_there_is_nothing_to_tell() -> None:
    server_side = ServerSide([])
    server_side.start()
    server_side.mark_start()
    assert server_side.poll_once() == 0
    assert (server_side.latest(), server_side.points()) == ([], {"total": []})
    assert server_side.summary()["targets"] == []
    server_side.stop()
    assert repr(server_side) == "<ServerSide 0 of 0 up>"


def test_a_run_is_summed_up_from_its_start() -> None:
    times = iter([100.0, 102.0, 104.0, 106.0])
    with telling(busy_replica(1), busy_replica(3), busy_replica(5), busy_replica(9)) as url:
        server_side = ServerSide([url, "http://127.0.0.1:1"], clock=lambda: next(times))
        assert server_side.poll_once() == 1
        server_side.mark_start()
        server_side.poll_once()
        server_side.poll_once()
        summary = server_side.summary()
    name = url.removeprefix("http://")
    replica, away = summary["targets"]
    assert (replica["target"], replica["role"], replica["seconds"]) == (name, "replica", 4.0)
    assert replica["results"] == {"done": 24, "refused": 12, "replayed": 6}
    assert replica["turned_away"] == {"mailbox-full": 6}
    assert (replica["done_per_s"], replica["group_size_mean"]) == (6.0, 7.0)
    assert replica["commit_p95_ms"] == pytest.approx(243.75)
    assert (away["target"], away["is_up"], away["seconds"]) == ("127.0.0.1:1", False, 0.0)
    assert summary["total"]["results"]["done"] == 24
    assert [each["at_s"] for each in server_side.points(103.0)[name]] == [104.0, 106.0]
    assert [row["target"] for row in server_side.latest()] == [name, "127.0.0.1:1", "total"]
    assert repr(server_side) == "<ServerSide 1 of 2 up>"


@pytest.mark.parametrize("text", ["", "<html>", "a{ 1\n", "\x00"])
def test_an_answer_that_makes_no_sense_is_nobody(text: str) -> None:
    with telling(text) as url:
        server_side = ServerSide([url])
        assert server_side.poll_once() == 0
        [row] = server_side.latest()
    assert (row["is_up"], row["point"]) == (False, None)
    assert row["trouble"]
