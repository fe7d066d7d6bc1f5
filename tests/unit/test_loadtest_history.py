"""What a process was told: requests until they are settled, samples, versions, and its report."""

import pickle
import subprocess
import sys
from typing import Any
from uuid import UUID

import pytest

from loadtest.proof import history as module
from loadtest.proof.history import SAMPLES_MAX, Acknowledged, Answered, History, Request, Told
from loadtest.proof.violations import LOST_TRANSFER, STALE_READ, Violation
from tests.support.project import ROOT

# Locust's own code, in an interpreter of its own: its import replaces the sockets of a process.
_THROUGH_LOCUST = """
import pickle, sys
from locust.rpc.protocol import Message
message = Message("transferd-done", pickle.load(sys.stdin.buffer), "worker-1")
pickle.dump(Message.unserialize(message.serialize()).data, sys.stdout.buffer)
"""


def through_locust(data: Any) -> Any:
    """As it arrives at the master."""
    result = subprocess.run(
        [sys.executable, "-c", _THROUGH_LOCUST],
        cwd=ROOT,
        input=pickle.dumps(data),
        capture_output=True,
        check=True,
    )
    return pickle.loads(result.stdout)


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


def told(*numbers: int) -> History:
    history = History({"ada": 0, "bob": 1})
    for number in numbers:
        history.transferred(transfer(number))
    return history


def assert_acknowledged(history: History, *numbers: int) -> None:
    """In this order."""
    found = [(id, *told) for id, told in Acknowledged(history).items()]
    assert found == [
        (str(UUID(int=number)), Told("ada", "bob", 100 + number, number, 7 * number))
        for number in numbers
    ]


# Requests and samples


def test_a_request_is_open_until_it_is_settled_and_then_a_sample() -> None:
    history = told()
    for number in (1, 1, 2, 3):
        history.sent(request(number))
    assert history.open == {f"key-{number}": request(number) for number in (1, 2, 3)}
    history.settled(request(1), 201, b"done")
    # Nothing became of this one: it is neither open nor a sample.
    history.nothing_happened(request(2))
    assert list(history.open) == ["key-3"]
    assert history.samples == [Answered(request(1), 201, b"done")]
    # What was never sent can be settled.
    history.nothing_happened(request(4))
    history.settled(request(4), 422, b"no")
    assert list(history.open) == ["key-3"]


def test_samples_are_a_random_share_of_all() -> None:
    history = told()
    for number in range(10 * SAMPLES_MAX):
        history.settled(request(number), 201, b"")
        if number == SAMPLES_MAX - 1:
            # As long as there is room each answer is one.
            assert [each.request.key for each in history.samples] == [
                f"key-{n}" for n in range(SAMPLES_MAX)
            ]
    assert len(history.samples) == SAMPLES_MAX
    numbers = [int(each.request.key.removeprefix("key-")) for each in history.samples]
    assert len(set(numbers)) == SAMPLES_MAX
    # 30 of the first tenth and 150 of the later half are to be expected, give or take 5 and 8; so
    # wide bounds leave less than one in a million to chance.
    early = sum(number < SAMPLES_MAX for number in numbers)
    assert 4 <= early <= 65
    assert 100 <= sum(number >= 5 * SAMPLES_MAX for number in numbers) <= 200


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


def test_versions_only_grow() -> None:
    history = told()
    assert history.version_of("ada") == -1
    seen = []
    for version in (0, 4, 2, 4, 5):
        history.saw("ada", version)
        seen.append(history.version_of("ada"))
    assert seen == [0, 4, 4, 4, 5]


def test_transfers_are_remembered_in_order_and_tell_the_version_of_their_source() -> None:
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


def test_only_the_latest_transfers_are_kept_in_full() -> None:
    kept = History({}).recent.maxlen
    assert kept is not None
    history = told(*range(kept + 1))
    assert len(history.recent) == kept
    assert history.recent[0] == transfer(1)


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


def test_a_piece_holds_no_more_than_a_heartbeat_can_wait_for() -> None:
    history = told()
    history.acknowledged += bytes(40_001 * 44)
    assert [len(chunk) for chunk in history.chunks()] == [880_000, 880_000, 44]


def worker(first: int) -> History:
    history = told(first, first + 1)
    # Not UTF-8 and not ASCII: bodies are bytes.
    history.sent(Request("/transfers/batch", f"open-{first}", b"\xff\x00\xc3\xa9"))
    history.settled(request(first), 201, b"\x80 posted")
    history.settled(request(first + 1, "/transfers/1/reversal"), 422, b"{}")
    history.violations.add(Violation(LOST_TRANSFER, f"é {first}"))
    return history


@pytest.fixture(scope="module")
def sent() -> Any:
    """The reports of two workers as the master gets them: the message and its pieces."""
    return through_locust(
        [[each.to_message(), list(each.chunks())] for each in (worker(1), worker(5))]
    )


def test_a_report_arrives_as_it_was_sent(sent: list[Any]) -> None:
    master, original = told(), worker(1)
    message, chunks = sent[0]
    master.merge_message(message)
    for chunk in chunks:
        master.acknowledged += chunk
    assert_acknowledged(master, 1, 2)
    assert master.acknowledged_total == 2
    assert master.open == original.open
    assert master.samples == original.samples
    assert master.violations == original.violations


def test_the_reports_of_all_workers_add_up(sent: list[Any]) -> None:
    master = told(9)
    master.violations.add(Violation(STALE_READ, "its own"))
    for message, chunks in sent:
        for chunk in chunks:
            master.acknowledged += chunk
        master.merge_message(message)
    assert_acknowledged(master, 9, 1, 2, 5, 6)
    assert master.acknowledged_total == 5
    assert list(master.open) == ["open-1", "open-5"]
    assert [each.request.key for each in master.samples] == ["key-1", "key-2", "key-5", "key-6"]
    assert master.violations.counts == {LOST_TRANSFER: 2, STALE_READ: 1}
    assert [each.text for each in master.violations.told] == ["its own", "é 1", "é 5"]
