"""The history of a run with a bounded size: transfers, open requests, samples of answers."""

import random
import struct
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import UUID

import orjson

from loadtest.proof.hold_record import (
    HOLD_RECORD_BYTES,
    HoldChange,
    change_of,
    packed,
    unpacked,
)
from loadtest.proof.violations import Violations

# A transfer takes 44 bytes here and about 400 in the audit, so this many take 0.8 GB. With more
# transfers the audit checks only sums and statements, and the verdict says so.
ACKNOWLEDGED_MAX = 2_000_000
# A change of a hold takes 63 bytes here and about 600 in the audit.
HOLD_CHANGES_MAX = 500_000
# Enough to find a fault that affects one replay in a hundred. Each costs a request at the end.
SAMPLES_MAX = 300
# With large batches the report of a worker would be too large for one message.
SAMPLE_BYTES_MAX = 65_536
# Keys that were turned away. The audit looks them up only if a transfer is in no answer.
TURNED_AWAY_MAX = 20_000
# The latest transfers, which the persona Reader reads by id.
_RECENT_MAX = 2_000
# Transfers in one message to the master. A larger message would delay its heartbeats.
_CHUNK_TRANSFERS = 20_000

_RECORD = struct.Struct(">16sIIqiq")


class TransferAnswer(NamedTuple):
    """A transfer in an answer with 201."""

    source: str
    destination: str
    amount_minor: int
    source_version: int
    source_balance_after_minor: int

    @classmethod
    def by(cls, answer: Mapping[str, Any]) -> "TransferAnswer":
        """From the body of an answer. A missing member becomes None, which equals no entry."""
        names = ("source_wallet_id", "destination_wallet_id", "amount", "source_version")
        return cls._make(answer.get(name) for name in (*names, "source_balance_after"))


@dataclass(frozen=True)
class Request:
    """A POST that can be repeated: path, key and the exact bytes of its body."""

    path: str
    key: str
    body: bytes


@dataclass(frozen=True)
class Answered:
    """A request with the answer that every repetition must get."""

    request: Request
    status: int
    answer: bytes


@dataclass
class History:
    """The record of a run in one process. `numbers`: wallet id -> its number in the world."""

    numbers: dict[str, int]
    acknowledged: bytearray = field(default_factory=bytearray)
    acknowledged_total: int = 0
    # The acknowledged changes of holds, captures included.
    hold_changes: bytearray = field(default_factory=bytearray)
    hold_changes_total: int = 0
    # Requests without a final answer.
    open: dict[str, Request] = field(default_factory=dict)
    samples: list[Answered] = field(default_factory=list)
    turned_away: deque[str] = field(default_factory=lambda: deque(maxlen=TURNED_AWAY_MAX))
    recent: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=_RECENT_MAX))
    violations: Violations = field(default_factory=Violations)
    # The latest version of each wallet in an answer to this process.
    versions: dict[str, int] = field(default_factory=dict)
    _settled: int = 0

    def sent(self, request: Request) -> None:
        """The request is about to be sent; its outcome is open."""
        self.open[request.key] = request

    def nothing_happened(self, request: Request) -> None:
        """The request was not executed, so the audit does not repeat it."""
        if self.open.pop(request.key, None) is not None:
            self.turned_away.append(request.key)

    def settled(self, request: Request, status: int, answer: bytes) -> None:
        """The request has its final answer. The audit repeats a random sample of these."""
        self.open.pop(request.key, None)
        if len(request.body) + len(answer) > SAMPLE_BYTES_MAX:
            return
        self._settled += 1
        sample = Answered(request, status, answer)
        if len(self.samples) < SAMPLES_MAX:
            self.samples.append(sample)
        elif (place := random.randrange(self._settled)) < SAMPLES_MAX:
            self.samples[place] = sample

    def transferred(self, transfer: dict[str, Any]) -> None:
        """A transfer was acknowledged for the first time."""
        self.acknowledged_total += 1
        self.recent.append(transfer)
        self.saw(transfer["source_wallet_id"], transfer["source_version"])
        if self.acknowledged_total <= ACKNOWLEDGED_MAX:
            self.acknowledged += _RECORD.pack(
                UUID(transfer["id"]).bytes,
                self.numbers[transfer["source_wallet_id"]],
                self.numbers[transfer["destination_wallet_id"]],
                transfer["amount"],
                transfer["source_version"],
                transfer["source_balance_after"],
            )

    def succeeded(self, request: Request, answer: dict[str, Any]) -> None:
        """A request about a hold was acknowledged for the first time."""
        change = change_of(request.path, orjson.loads(request.body or b"{}"), answer)
        if "source_version" in answer:
            self.transferred(answer)
        self.hold_changes_total += 1
        if self.hold_changes_total <= HOLD_CHANGES_MAX:
            self.hold_changes += packed(change, self.numbers[change.wallet])

    @property
    def is_complete(self) -> bool:
        """Whether it was short enough to be kept."""
        return (
            self.acknowledged_total <= ACKNOWLEDGED_MAX
            and self.hold_changes_total <= HOLD_CHANGES_MAX
        )

    def saw(self, wallet_id: str, version: int) -> None:
        """An answer had this version of the wallet, so no later answer may have an older one."""
        if version > self.versions.get(wallet_id, -1):
            self.versions[wallet_id] = version

    def version_of(self, wallet_id: str) -> int:
        """The lowest version that the answer to a new request may have; -1 if none is known."""
        return self.versions.get(wallet_id, -1)

    def chunks(self) -> Iterator[bytes]:
        """The acknowledged transfers in pieces."""
        return _pieces(self.acknowledged, _RECORD.size * _CHUNK_TRANSFERS)

    def hold_chunks(self) -> Iterator[bytes]:
        """The acknowledged changes of holds in pieces."""
        return _pieces(self.hold_changes, HOLD_RECORD_BYTES * _CHUNK_TRANSFERS)

    def to_message(self) -> dict[str, Any]:
        """The history without the chunks, for another process."""
        return {
            "acknowledged_total": self.acknowledged_total,
            "hold_changes_total": self.hold_changes_total,
            "settled": self._settled,
            "turned_away": list(self.turned_away),
            "open": [[each.path, each.key, each.body] for each in self.open.values()],
            "samples": [
                [each.request.path, each.request.key, each.request.body, each.status, each.answer]
                for each in self.samples
            ],
            "violations": self.violations.to_message(),
        }

    def merge_message(self, message: dict[str, Any]) -> None:
        """Add the history of another process, without its chunks."""
        self.acknowledged_total += message["acknowledged_total"]
        self.hold_changes_total += message["hold_changes_total"]
        self._settled += message["settled"]
        self.turned_away.extend(message["turned_away"])
        for path, key, body in message["open"]:
            self.open[key] = Request(path, key, body)
        self.samples += [
            Answered(Request(path, key, body), status, answer)
            for path, key, body, status, answer in message["samples"]
        ]
        self.violations.merge(Violations.from_message(message["violations"]))


class Acknowledged(Mapping[str, Sequence[TransferAnswer]]):
    """The transfers of a history by their ids; they stay packed to save memory.

    `twice`: the ids that are in the answers to two requests.
    """

    def __init__(self, history: History) -> None:
        self._packed = history.acknowledged
        self._wallets = list(history.numbers)
        self._places: dict[bytes, int] = {}
        self.twice: list[str] = []
        for place, (transfer_id, *_) in enumerate(_RECORD.iter_unpack(self._packed)):
            if transfer_id in self._places:
                self.twice.append(str(UUID(bytes=transfer_id)))
            self._places[transfer_id] = place

    def __getitem__(self, transfer_id: str) -> Sequence[TransferAnswer]:
        place = self._places[UUID(transfer_id).bytes]
        _, source, destination, *rest = _RECORD.unpack_from(self._packed, place * _RECORD.size)
        return (TransferAnswer(self._wallets[source], self._wallets[destination], *rest),)

    def __iter__(self) -> Iterator[str]:
        return (str(UUID(bytes=transfer_id)) for transfer_id in self._places)

    def __len__(self) -> int:
        return len(self._places)


def acknowledged_holds(history: History) -> dict[str, list[HoldChange]]:
    """The acknowledged changes of each hold."""
    changes: dict[str, list[HoldChange]] = {}
    for change in unpacked(history.hold_changes, list(history.numbers)):
        changes.setdefault(change.hold, []).append(change)
    return changes


def _pieces(data: bytearray, size: int) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield bytes(data[start : start + size])
