"""The share of a group that one wallet may fill, so that a busy wallet does not delay others."""

from collections.abc import Callable

from transferd.config import Limits


class FairShare:
    """Limits a turn while other wallets are ready: to about as many envelopes as all others bring.

    Each envelope of a group waits for the whole group. A full turn of a flooded wallet takes 50 ms,
    the turns of all others together 2 ms. `clock` returns seconds.
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
            # No other wallet was ready for `shared_for_s`. A single group without others does not
            # prove that there are none: each waits for its answer before it sends again.
            return limits.turn_envelopes_max
        return min(limits.turn_envelopes_max, max(limits.shared_turn_envelopes_min, others))
