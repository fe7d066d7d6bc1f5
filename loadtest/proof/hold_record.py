"""The record of holds: acknowledged changes in packed form, and holds as the API shows them."""

import struct
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

# The kinds of the entries of a statement that are about holds.
CREATE: Final = "hold_create"
ADJUST: Final = "hold_adjust"
CAPTURE: Final = "hold_capture"
RELEASE: Final = "hold_release"
EXPIRE: Final = "hold_expire"
# The transfer of a capture: the entry after CAPTURE.
CAPTURE_TRANSFER: Final = "capture"
CHANGES: Final = (CREATE, ADJUST, CAPTURE, RELEASE, EXPIRE)

_KIND_OF_PATH: Final = {"holds": CREATE, "adjust": ADJUST, "capture": CAPTURE, "release": RELEASE}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_RECORD: Final = struct.Struct(">16sIB?qqqqq")
HOLD_RECORD_BYTES: Final = _RECORD.size


class HoldChange(NamedTuple):
    """An acknowledged change of a hold. Money in minor units, times in microseconds since 1970.

    A capture has the amount of its transfer and no other values of the hold. `is_final`: a final
    capture.
    """

    hold: str
    wallet: str
    kind: str
    is_final: bool
    amount_minor: int
    captured_minor: int
    released_minor: int
    expires_us: int
    at_us: int

    @property
    def ends(self) -> bool:
        """Whether it ends its hold."""
        return self.is_final or self.kind == RELEASE


class ShownHold(NamedTuple):
    """A hold as `GET /holds/{id}` shows it."""

    id: str
    wallet: str
    amount_minor: int
    captured_minor: int
    released_minor: int
    remaining_minor: int
    status: str
    expires_us: int

    @classmethod
    def of(cls, view: Mapping[str, Any]) -> "ShownHold":
        """From the body of an answer."""
        names = ("id", "source_wallet_id", "amount", "captured", "released", "remaining", "status")
        return cls._make([*(view[name] for name in names), microseconds(view["expires_at"])])


class HoldsRead(NamedTuple):
    """The holds of a wallet at the end.

    known: each hold that the statement or an answer names; None if it is unknown to the service.
    active: the holds in the list of active holds.
    """

    known: Mapping[str, ShownHold | None]
    active: Sequence[ShownHold]


def kind_of_path(path: str) -> str | None:
    """The kind of change that a POST to this path asks for; None if it is not about a hold."""
    parts = path.strip("/").split("/")
    return _KIND_OF_PATH.get(parts[-1]) if parts[0] == "holds" else None


def hold_of_path(path: str) -> str:
    """The id of the hold in `/holds/{id}/...`."""
    return path.split("/")[2]


def change_of(path: str, asked: Mapping[str, Any], answer: Mapping[str, Any]) -> HoldChange:
    """The change that the success of a POST acknowledges.

    Raises KeyError, TypeError or ValueError if the answer is not what the contract says.
    """
    kind = kind_of_path(path)
    if kind is None:
        raise ValueError(f"{path} is not about a hold")
    if kind == CAPTURE:
        values = (bool(asked.get("final", True)), answer["amount"], 0, 0, 0)
        at_us = microseconds(answer["created_at"])
        return HoldChange(hold_of_path(path), answer["source_wallet_id"], kind, *values, at_us)
    hold = ShownHold.of(answer)
    amounts = (hold.amount_minor, hold.captured_minor, hold.released_minor, hold.expires_us)
    return HoldChange(
        hold.id, hold.wallet, kind, False, *amounts, microseconds(answer["updated_at"])
    )


def packed(change: HoldChange, wallet_number: int) -> bytes:
    """The change in a fixed number of bytes."""
    _, _, kind, *values = change
    id = UUID(change.hold).bytes
    return _RECORD.pack(id, wallet_number, CHANGES.index(kind), *values)


def unpacked(data: bytes | bytearray, wallets: Sequence[str]) -> Iterator[HoldChange]:
    """The reverse of `packed`, for many changes."""
    for id, wallet, kind, *values in _RECORD.iter_unpack(data):
        yield HoldChange(str(UUID(bytes=id)), wallets[wallet], CHANGES[kind], *values)


def microseconds(text: str) -> int:
    """A time of the API, in microseconds since 1970."""
    return (datetime.fromisoformat(text) - _EPOCH) // _MICROSECOND
