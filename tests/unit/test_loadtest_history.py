"""The history of a process: open requests, samples, versions, and its report."""

from typing import Any
from uuid import UUID

import pytest

from loadtest.proof import history as module
from loadtest.proof.history import (
    Acknowledged,
    Answered,
    History,
    Request,
    TransferAnswer,
    acknowledged_holds,
)
from loadtest.proof.hold_record import CAPTURE, CREATE, HoldChange
from loadtest.proof.violations import LOST_TRANSFER, STALE_READ, Violation


def request(number: int, path: str = "/transfers") -> Request:
    return Request(path, f"key-{number}", b'{"amount":%d}' % number)


def transfer(number: int, source: str = "ada", destination: str = "bob") -> dict[str, Any]:
    return {
        "id": str(UUID(int=number)),
        "source_wallet_id": source,
        "destination_wallet_id": destination,
        "amount": 100 + number,
        "source_version": number,
        "source_balance_after": 7 * number,
    }


def reserve(history: History, number: int) -> None:
    """A hold of Ada's wallet is acknowledged."""
    answer = {
        "id": str(UUID(int=number)),
        "source_wallet_id": "ada",
        "amount": 2**53,
        "captured": 2,
        "released": 3,
        "remaining": 2**53 - 5,
        "status": "active",
        "expires_at": "2030-01-08T00:00:00.000001Z",
        "updated_at": f"2030-01-01T00:00:00.{number:06}Z",
    }
    history.succeeded(Request("/holds", f"hold-{number}", b"{}"), answer)


def told(*numbers: int) -> History:
    history = History({"ada": 0, "bob": 1})
    for number in numbers:
        history.transferred(transfer(number))
    return history


def assert_acknowledged(history: History, *numbers: int) -> None:
    """In this order."""
    found = [(id, *told) for id, told in Acknowledged(history).items()]
    assert found == [
        (str(UUID(int=number)), TransferAnswer("ada", "bob", 100 + number, number, 7 * number))
        for number in numbers
    ]


# Requests and samples


def test_a_request_is_open_until_it_is_settled_and_then_a_sample() -> None:
    history = told()
    for number in (1, 1, 2, 3):
        history.sent(request(number))
    assert history.open == {f"key-{number}": request(number) for number in (1, 2, 3)}
    history.settled(request(1), 201, b"done")
    # This one was turned away: it is neither open nor a sample.
    history.nothing_happened(request(2))
    assert list(history.open) == ["key-3"]
    assert history.samples == [Answered(request(1), 201, b"done")]
    # A request that was never sent can be settled.
    history.nothing_happened(request(4))
    history.settled(request(4), 422, b"no")
    assert list(history.open) == ["key-3"]


@pytest.mark.parametrize(("drawn", "replaced"), [(0, 0), (2, 2), (3, None), (6, None)])
def test_each_answer_has_the_same_chance(
    monkeypatch: pytest.MonkeyPatch, drawn: int, replaced: int | None
) -> None:
    asked: list[int] = []

    def draw(stop: int) -> int:
        asked.append(stop)
        return drawn

    monkeypatch.setattr(module, "SAMPLES_MAX", 3)
    monkeypatch.setattr("loadtest.proof.history.random.randrange", draw)
    history = told()
    for number in range(4):
        history.settled(request(number), 201, b"")
    # The fourth of four.
    assert asked == [4]
    places = [each.request for each in history.samples]
    assert [place for place, each in enumerate(places) if each == request(3)] == (
        [] if replaced is None else [replaced]
    )


# Versions and transfers


def test_transfers_are_stored_in_order_and_show_the_version_of_their_source() -> None:
    history = told(3, 9, 7)
    assert_acknowledged(history, 3, 9, 7)
    assert history.acknowledged_total == 3
    assert list(history.recent) == [transfer(3), transfer(9), transfer(7)]
    assert history.version_of("ada") == 9
    assert history.version_of("bob") == -1


def test_beyond_its_bound_it_only_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ACKNOWLEDGED_MAX", 2)
    history = told(1, 2, 3, 4)
    assert_acknowledged(history, 1, 2)
    assert history.acknowledged_total == 4
    assert history.version_of("ada") == 4
    assert history.recent[-1] == transfer(4)


# From process to process


@pytest.mark.parametrize(("count", "pieces"), [(0, []), (1, [1]), (3, [3]), (7, [3, 3, 1])])
def test_pieces_are_small_and_make_up_the_whole(
    monkeypatch: pytest.MonkeyPatch, count: int, pieces: list[int]
) -> None:
    monkeypatch.setattr(module, "_CHUNK_TRANSFERS", 3)
    history = told(*range(count))
    chunks = list(history.chunks())
    assert [len(chunk) // 44 for chunk in chunks] == pieces
    assert b"".join(chunks) == history.acknowledged


# Holds


def test_a_change_of_a_hold_is_unpacked_as_it_was_packed() -> None:
    history = told()
    reserve(history, 5)
    capture = transfer(7) | {"kind": "capture", "created_at": "2030-01-01T00:00:01Z"}
    id, request = str(UUID(int=5)), f"/holds/{UUID(int=5)}/capture"
    for body in (b"", b'{"final":false}', b'{"final":true}'):
        history.succeeded(Request(request, "k", body), capture)
    new_year_us = 1_893_456_000_000_000
    last_us = new_year_us + 7 * 86_400_000_000 + 1
    late_us = new_year_us + 1_000_000
    assert acknowledged_holds(history) == {
        id: [
            HoldChange(id, "ada", CREATE, False, 2**53, 2, 3, last_us, new_year_us + 5),
            *(
                HoldChange(id, "ada", CAPTURE, is_final, 107, 0, 0, 0, late_us)
                for is_final in (True, False, True)
            ),
        ]
    }
    # Each capture is a transfer as well.
    assert (history.acknowledged_total, history.hold_changes_total) == (3, 4)


def test_beyond_its_bound_it_only_counts_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HOLD_CHANGES_MAX", 2)
    history = told()
    for number, is_complete in ((1, True), (2, True), (3, False)):
        reserve(history, number)
        assert history.is_complete is is_complete
    assert list(acknowledged_holds(history)) == [str(UUID(int=number)) for number in (1, 2)]


def worker(first: int) -> History:
    history = told(first, first + 1)
    # Not UTF-8 and not ASCII: bodies are bytes.
    history.sent(Request("/transfers/batch", f"open-{first}", b"\xff\x00\xc3\xa9"))
    history.settled(request(first), 201, b"\x80 posted")
    history.settled(request(first + 1, "/transfers/1/reversal"), 422, b"{}")
    reserve(history, first)
    history.violations.add(Violation(LOST_TRANSFER, f"é {first}"))
    return history


def test_the_reports_of_all_workers_add_up() -> None:
    master = told(9)
    master.violations.add(Violation(STALE_READ, "its own"))
    for each in (worker(1), worker(5)):
        for chunk in each.chunks():
            master.acknowledged += chunk
        for chunk in each.hold_chunks():
            master.hold_changes += chunk
        master.merge_message(each.to_message())
    assert_acknowledged(master, 9, 1, 2, 5, 6)
    assert master.acknowledged_total == 5
    assert list(acknowledged_holds(master)) == [str(UUID(int=number)) for number in (1, 5)]
    assert master.hold_changes_total == 2
    assert list(master.open) == ["open-1", "open-5"]
    assert [each.request.key for each in master.samples] == ["key-1", "key-2", "key-5", "key-6"]
    assert master.violations.counts == {LOST_TRANSFER: 2, STALE_READ: 1}
    assert [each.text for each in master.violations.reported] == ["its own", "é 1", "é 5"]
