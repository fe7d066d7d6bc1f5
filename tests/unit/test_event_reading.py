"""Reading of events by the notifier. A broker that others use may deliver any bytes."""

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from tests.unit.samples import NOW, posted
from transferd.commit.events import cloud_event, event_of_transfer
from transferd.domain.ledger import MAIN
from transferd.notifications.event import Event, Unreadable
from transferd.notifications.sinks.log import LogSink
from transferd.notifications.sinks.result import SinkResult
from transferd.observability.logging import Log

TRACEPARENT = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


def body(**changes: Any) -> bytes:
    """A transfer's event with some attributes changed; Ellipsis leaves one out."""
    transfer = event_of_transfer(posted(created_at=NOW))
    event = orjson.loads(cloud_event(transfer._asdict(), MAIN.name))
    merged = event | {"traceparent": TRACEPARENT} | changes
    return orjson.dumps({name: value for name, value in merged.items() if value is not ...})


def test_a_published_event_is_read() -> None:
    event = Event.read(body())
    assert (event.id, event.type, event.time) == ("lunch", "transfer.posted", NOW)
    assert event.wallets == ("ada", "bob")
    assert event.traceparent == TRACEPARENT
    assert event.json["data"]["amount"] == 100


@pytest.mark.parametrize(
    ("type", "data", "wallets"),
    [
        ("wallet.frozen", {"id": "ada"}, ("ada",)),
        ("user.created", {"id": "ada's owner"}, ()),
        ("weather.changed", {}, ()),
        (
            "transfer.reversed",
            {"source_wallet_id": "bob", "destination_wallet_id": "ada"},
            ("bob", "ada"),
        ),
        # A wallet must not wait for itself.
        (
            "transfer.posted",
            {"source_wallet_id": "ada", "destination_wallet_id": "ada"},
            ("ada",),
        ),
    ],
)
def test_an_event_is_about_the_wallets_of_its_kind(
    type: str, data: dict[str, str], wallets: tuple[str, ...]
) -> None:
    assert Event.read(body(type=type, data=data)).wallets == wallets


def test_a_time_may_have_any_offset_but_has_one() -> None:
    time = Event.read(body(time="2030-01-02T05:04:05.678901+02:00")).time
    assert time == NOW
    assert time.utcoffset() == timedelta(hours=2)
    assert Event.read(body(time="2030-01-02T03:04:05Z")).time == datetime(
        2030, 1, 2, 3, 4, 5, tzinfo=UTC
    )


@pytest.mark.parametrize(
    "unreadable",
    [
        b"",
        b"not json",
        b"\xff\xfe",
        b'"text"',
        b"{}",
        body(id=...),
        body(id=7),
        body(id="x" * 201),
        body(id="two\r\nlines: injected"),
        body(type=...),
        body(type="transfer.\n"),
        body(time=...),
        body(time="soon"),
        body(time="2030-01-02T03:04:05"),
        body(data=...),
        body(data=None),
        body(data={}),
        body(data={"source_wallet_id": "ada"}),
        body(data={"source_wallet_id": "ada", "destination_wallet_id": 7}),
        body(traceparent=7),
        body(traceparent="a\r\nb: c"),
        body(traceparent="x" * 201),
    ],
    ids=lambda unreadable: unreadable[:60].decode(errors="replace"),
)
def test_an_unreadable_event_raises_the_documented_error(unreadable: bytes) -> None:
    with pytest.raises(Unreadable):
        Event.read(unreadable)


def test_the_log_has_one_line_for_an_event_without_its_data(log_lines: list[Any]) -> None:
    event = Event.read(body(requestid="request-1"))
    assert LogSink(Log()).deliver(event.json) == SinkResult()
    assert log_lines == [
        {
            "event": "event",
            "log_level": "info",
            "type": "transfer.posted",
            "id": "lunch",
            "request_id": "request-1",
            "trace_id": "a" * 32,
            "transfer_id": "lunch",
        }
    ]


@pytest.mark.parametrize("traceparent", ["", "odd", "odd-", ...])
def test_an_event_without_a_valid_trace_can_be_logged(
    traceparent: Any, log_lines: list[Any]
) -> None:
    event = Event.read(body(traceparent=traceparent))
    assert LogSink(Log()).deliver(event.json).error is None
    [line] = log_lines
    assert (line["id"], line["request_id"], line["trace_id"]) == ("lunch", None, None)


_JSON = some.recursive(
    some.none() | some.booleans() | some.integers(-(2**63), 2**63) | some.text(max_size=9),
    lambda inner: (
        some.lists(inner, max_size=3)
        | some.dictionaries(
            some.sampled_from(["id", "type", "time", "data", "traceparent", "source_wallet_id"]),
            inner,
        )
    ),
)


@given(_JSON)
def test_no_value_raises_an_undocumented_error(value: Any) -> None:
    try:
        event = Event.read(orjson.dumps(value))
    except Unreadable:
        return
    assert event.id.isprintable()


@pytest.mark.parametrize("name", ["id", "type", "time", "data", "traceparent"])
@settings(max_examples=40)
@given(value=_JSON)
def test_an_event_with_one_wrong_value_raises_no_undocumented_error(name: str, value: Any) -> None:
    try:
        event = Event.read(body(**{name: value}))
    except Unreadable:
        return
    assert all(isinstance(wallet, str) for wallet in event.wallets)
