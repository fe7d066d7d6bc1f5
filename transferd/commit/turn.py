"""The source of the envelopes of a group."""

from collections.abc import Sequence
from typing import Protocol

from transferd.commit.envelope import Envelope
from transferd.domain.errors import TransferdError


class TurnSource(Protocol):
    """An actor, a batch or a straggler that has announced a turn."""

    @property
    def weight(self) -> int:
        """Least number of transfers in the turn."""
        ...

    def take_turn(self, envelopes_max: int) -> Sequence[Envelope]:
        """The envelopes for the next transaction, in the order in which they are decided."""
        ...

    def end_turn(self) -> bool:
        """The envelopes of the turn have left the group. True if another turn is ready."""
        ...

    def fail_all(self, error: TransferdError) -> None:
        """Fail all envelopes that wait here, because `take_turn` has raised."""
        ...


class Solo:
    """A turn of one envelope that belongs to no actor."""

    __slots__ = ("envelope",)

    def __init__(self, envelope: Envelope) -> None:
        self.envelope = envelope

    def __repr__(self) -> str:
        return f"<Solo {self.envelope!r}>"

    @property
    def weight(self) -> int:
        """The weight of the envelope."""
        return self.envelope.weight

    def take_turn(self, envelopes_max: int) -> Sequence[Envelope]:
        """The envelope; a group always has room for one."""
        return (self.envelope,)

    def end_turn(self) -> bool:
        """No other envelope waits here."""
        return False

    def fail_all(self, error: TransferdError) -> None:
        """Fail the envelope."""
        self.envelope.fail(error)
