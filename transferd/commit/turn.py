"""Turns: a turn is the envelopes that one source adds to a group."""

from collections.abc import Sequence
from typing import Protocol

from transferd.commit.envelope import Envelope
from transferd.domain.errors import TransferdError


class TurnSource(Protocol):
    """A source of turns: an actor, or a single envelope that belongs to no actor."""

    @property
    def weight(self) -> int:
        """The least number of transfers in the turn."""
        ...

    @property
    def waiting(self) -> int:
        """The number of envelopes that wait."""
        ...

    def take_turn(self, envelopes_max: int) -> Sequence[Envelope]:
        """Remove and return envelopes for the next transaction, in the order of decision."""
        ...

    def end_turn(self) -> bool:
        """Called after the group of the turn. Returns whether another turn is ready."""
        ...

    def fail_all(self, error: TransferdError) -> None:
        """Fail all waiting envelopes. Called after `take_turn` has raised."""
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

    @property
    def waiting(self) -> int:
        """1: the envelope."""
        return 1

    def take_turn(self, envelopes_max: int) -> Sequence[Envelope]:
        """Returns the envelope; every group has room for one."""
        return (self.envelope,)

    def end_turn(self) -> bool:
        """Returns False: there is only one envelope."""
        return False

    def fail_all(self, error: TransferdError) -> None:
        """Fail the envelope."""
        self.envelope.fail(error)
