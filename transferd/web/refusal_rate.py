"""How fast refusals go out, so that callers cannot use up the core by being refused."""

import random
from collections.abc import Callable


class RefusalRate:
    """A burst of answers at once, then `per_s`, though none later than `delay_max_s`.

    The Generic Cell Rate Algorithm: one number, whatever the rate (ITU-T I.371). `clock` gives
    seconds.
    """

    __slots__ = ("_burst_s", "_clock", "_delay_max_s", "_due_at", "_interval_s")

    def __init__(
        self, *, per_s: float, burst: int, delay_max_s: float, clock: Callable[[], float]
    ) -> None:
        self._interval_s = 1 / per_s
        self._burst_s = burst / per_s
        self._delay_max_s = delay_max_s
        self._clock = clock
        # When the next one would be due if they came evenly.
        self._due_at = 0.0

    def delay_s(self) -> float:
        """How long the answer that is ready now has to wait."""
        now = self._clock()
        self._due_at = max(now, self._due_at) + self._interval_s
        delay_s = self._due_at - now - self._burst_s
        if delay_s > self._delay_max_s:
            self._due_at -= self._interval_s
            # Not all after the same time, or they would come back all at the same time.
            delay_s = self._delay_max_s * random.uniform(0.5, 1.0)
        return max(0.0, delay_s)
