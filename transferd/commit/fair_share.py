"""The share of those who are busy, so that they do not delay others."""

from collections.abc import Callable


class FairShare:
    """Limits one while others have envelopes: to about as many as all others bring together.

    So a wallet in a group: each envelope waits for the whole group, a full turn of a flooded wallet
    takes 50 ms, and the turns of all others together 2 ms. And so a ledger beside others, which use
    the same processor. Alone it brings up to `alone_max`, beside others at least `shared_min`.
    Times are in seconds of `clock`.
    """

    __slots__ = ("_alone_max", "_clock", "_shared_for_s", "_shared_min", "_shared_until")

    def __init__(
        self, *, alone_max: int, shared_min: int, shared_for_s: float, clock: Callable[[], float]
    ) -> None:
        self._alone_max = alone_max
        self._shared_min = shared_min
        self._shared_for_s = shared_for_s
        self._clock = clock
        self._shared_until = 0.0

    def envelopes_max(self, others: int) -> int:
        """Most envelopes that one may bring while so many envelopes of others wait."""
        now = self._clock()
        if others > 0:
            self._shared_until = now + self._shared_for_s
        elif now >= self._shared_until:
            # No other was ready for `shared_for_s`. A single group without others does not prove
            # that there are none: each waits for its answer before it sends again.
            return self._alone_max
        return min(self._alone_max, max(self._shared_min, others))
