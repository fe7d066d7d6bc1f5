"""How much of a group one wallet may fill, so that a stormed one does not hold up the others."""

from collections.abc import Callable

from transferd.config import Limits


class FairShare:
    """A wallet that is alone fills its turns; beside others it brings about as much as all of them.

    Everybody in a group waits for the whole of it: a full turn of a stormed wallet takes fifty
    milliseconds, what the others bring two. `clock` gives seconds.
    """

    __slots__ = ("_clock", "_limits", "_shared_until")

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock
        self._shared_until = 0.0

    def envelopes_max(self, ready: int) -> int:
        """Of one turn in a group of which `ready` turns are ready."""
        limits = self._limits
        now = self._clock()
        others = ready - 1
        if others > 0:
            self._shared_until = now + limits.shared_for_s
        elif now >= self._shared_until:
            # A group without others is no proof that there are none; they come every few groups.
            return limits.turn_envelopes_max
        return min(limits.turn_envelopes_max, max(limits.shared_turn_envelopes_min, others))
