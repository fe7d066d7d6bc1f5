"""Envelopes that wait for another replica's claim on their key, or for a locked wallet."""

from collections.abc import Callable, Container

from transferd.commit.envelope import Envelope
from transferd.commit.turn import Solo
from transferd.config import Limits
from transferd.domain.errors import Overloaded
from transferd.domain.key import Key


class Straggler(Solo):
    """An envelope that has left a group, and enters a later one as a turn of its own.

    It is checked next at `due_at`. From `patience_until` on it ignores the claim.
    """

    __slots__ = ("due_at", "patience_until")

    def __init__(self, envelope: Envelope, due_at: float, patience_until: float) -> None:
        super().__init__(envelope)
        self.due_at = due_at
        self.patience_until = patience_until


class WaitingRoom:
    """Delays envelopes until their key has an outcome or their wait is over.

    `announce` adds a straggler to the next group. Times are in seconds of `clock`.
    """

    def __init__(
        self, limits: Limits, clock: Callable[[], float], announce: Callable[[Straggler], None]
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._announce = announce
        self._claimed: list[Straggler] = []
        self._locked: list[Straggler] = []

    def __repr__(self) -> str:
        return f"<WaitingRoom {len(self._claimed)} claimed, {len(self._locked)} locked>"

    def __len__(self) -> int:
        return len(self._claimed) + len(self._locked)

    def wait_for_claim(self, envelope: Envelope) -> None:
        """Delay a command whose key another replica has claimed."""
        now = self._clock()
        self._claimed.append(
            Straggler(envelope, now + self._limits.claim_poll_s, now + self._limits.claim_wait_s)
        )

    def wait_for_lock(self, envelope: Envelope) -> None:
        """Delay a command whose wallet another transaction has locked, or fail it if too late."""
        now = self._clock()
        if now + self._limits.step_aside_s > envelope.deadline - self._limits.command_timeout_s:
            envelope.fail(Overloaded())
            return
        self._locked.append(Straggler(envelope, now + self._limits.step_aside_s, now))

    def keys_to_ask(self) -> list[Key]:
        """The keys of all claimed envelopes that are due, for one query."""
        now = self._clock()
        return [
            straggler.envelope.key
            for straggler in self._claimed
            if straggler.due_at <= now and straggler.envelope.key is not None
        ]

    def release(self, known: Container[Key]) -> int:
        """Announce envelopes whose key is in `known` or whose wait is over. Returns their number.

        The group looks the outcome up again under its locks and refreshes the cache, because the
        replica that committed it may have failed before its refresh.
        """
        now = self._clock()
        staying: list[Straggler] = []
        leaving: list[Straggler] = []
        for straggler in self._claimed:
            if straggler.envelope.key in known or straggler.patience_until <= now:
                straggler.envelope.claim_settled = True
                leaving.append(straggler)
            else:
                if straggler.due_at <= now:
                    straggler.due_at = now + self._limits.claim_poll_s
                staying.append(straggler)
        self._claimed = staying
        leaving += [straggler for straggler in self._locked if straggler.due_at <= now]
        self._locked = [straggler for straggler in self._locked if straggler.due_at > now]
        for straggler in leaving:
            self._announce(straggler)
        return len(leaving)
