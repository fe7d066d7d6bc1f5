"""What the committer asks for the envelopes of its next group."""

from collections.abc import Sequence
from typing import Protocol

from transferd.commit.envelope import Envelope
from transferd.domain.errors import InternalFailure


class TurnSource(Protocol):
    """An actor, a batch or a straggler that has announced a turn."""

    @property
    def weight(self) -> int:
        """How many transfers the turn has at least."""
        ...

    def take_turn(self, envelopes_max: int) -> Sequence[Envelope]:
        """The envelopes for the next transaction, in the order in which they are decided."""
        ...

    def done(self) -> None:
        """Called once, when each envelope of the turn has left the group."""
        ...

    def crashed(self) -> None:
        """Called after `take_turn` or `done` has raised: fail the envelopes that wait here."""
        ...


class Solo:
    """A turn of one envelope that no actor gives."""

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

    def done(self) -> None:
        """No envelope waits behind it."""

    def crashed(self) -> None:
        """Fail the envelope."""
        self.envelope.fail(InternalFailure())
