"""How much of a group one wallet may fill, so that a busy one does not delay the others."""

from collections.abc import Callable

from transferd.config import Limits


class FairShare:
    """A wallet that is alone fills its turns; beside others it brings about as much as all of them.

    Each envelope of a group waits for the whole group. A full turn of a wallet with too many
    requests takes 50 ms, the turns of the others together 2 ms. `clock` gives seconds.
    """

    __slots__ = ("_clock", "_limits", "_shared_until")

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock
        self._shared_until = 0.0

    def envelopes_max(self, ready: int) -> int:
        """Most envelopes one wallet may bring while `ready` wallets wait."""
        limits = self._limits
        now = self._clock()
        others = ready - 1
        if others > 0:
            self._shared_until = now + limits.shared_for_s
        elif now >= self._shared_until:
            # A group without others is no proof that there are none; they come every few groups.
            return limits.turn_envelopes_max
        return min(limits.turn_envelopes_max, max(limits.shared_turn_envelopes_min, others))
