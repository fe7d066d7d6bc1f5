"""A rate limit for refusals, so that refused callers cannot use up the core."""

import random
from collections.abc import Callable

from transferd.config import Limits


class RefusalRate:
    """A burst of refusals without delay, then an even rate, none delayed beyond the limit.

    The Generic Cell Rate Algorithm: one number for every rate (ITU-T I.371). `clock` gives
    seconds.
    """

    __slots__ = ("_burst_s", "_clock", "_delay_max_s", "_due_at", "_interval_s")

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self._interval_s = 1 / limits.mailbox_refusals_per_s
        self._burst_s = limits.mailbox_refusals_burst / limits.mailbox_refusals_per_s
        self._delay_max_s = limits.mailbox_refusal_delay_s
        self._clock = clock
        # When the next answer would be due at an even rate.
        self._due_at = 0.0

    def delay_s(self) -> float:
        """The delay of the next answer, in seconds."""
        now = self._clock()
        self._due_at = max(now, self._due_at) + self._interval_s
        delay_s = self._due_at - now - self._burst_s
        if delay_s > self._delay_max_s:
            self._due_at -= self._interval_s
            # Random, so that callers do not all retry at the same time.
            delay_s = self._delay_max_s * random.uniform(0.5, 1.0)
        return max(0.0, delay_s)
