"""The number of users over time, and the search for the limit of the service."""

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from loadtest.verdict import Calls, Level

# Steps of the ramp: small enough to name a rate, long enough to measure p95 in each.
RAMP_STEPS = 20
# A service that turns away more than this share is at its limit.
TURNED_AWAY_MAX = 0.01
TURNED_AWAY = "(turned away)"


@dataclass(frozen=True)
class Shape:
    """`users_at` gives the users at a share of the run (0 to 1), as a share of the most users."""

    question: str
    seconds: float
    users_at: Callable[[float], float]
    # Ends early, at the step at which a level breaks.
    seeks_limit: bool = False


def _constant(_: float) -> float:
    return 1.0


def _steps(at: float) -> float:
    return (math.floor(min(at, 0.999) * 5) + 1) / 5


def _spike(at: float) -> float:
    return 1.0 if 1 / 3 <= at < 2 / 3 else 0.2


def _ramp(at: float) -> float:
    return (math.floor(min(at, 0.999) * RAMP_STEPS) + 1) / RAMP_STEPS


def _smoke(_: float) -> float:
    return 0.1


SHAPES = {
    "constant": Shape("all users from the start", 60, _constant),
    "smoke": Shape("a tenth of the users for a moment: does it work at all?", 30, _smoke),
    "steps": Shape("five even steps: how does latency follow load?", 150, _steps),
    "spike": Shape("a fifth, then all at once, then a fifth: does it recover?", 90, _spike),
    "ramp": Shape("more and more until a level breaks: where is its limit?", 200, _ramp, True),
    "soak": Shape("all users for an hour", 3600, _constant),
}


def users_at(shape: Shape, elapsed_s: float, most: int, seconds: float) -> int | None:
    """The number of users at this time; None at the end."""
    if elapsed_s >= seconds:
        return None
    return max(1, round(most * shape.users_at(elapsed_s / seconds)))


class LimitSeeker:
    """Watches each step of a ramp, and finds the one at which a level breaks."""

    def __init__(self, judge: Callable[[Sequence[Calls]], Sequence[Level]]) -> None:
        self._judge = judge
        self._step = 0
        self._users = 0
        self._began_s = time.monotonic()
        self._before: Sequence[Calls] = ()
        self._held = ""
        self._broken = ""

    @property
    def held(self) -> bool:
        """Whether any step held: a service that breaks at the first one has no known limit."""
        return bool(self._held)

    @property
    def line(self) -> str:
        """The result so far."""
        held = self._held or "no step held"
        return f"{held}; {self._broken}" if self._broken else f"{held}; no level broke"

    def broke(self, at: float, users: int, calls: Sequence[Calls]) -> bool:
        """Called each second with the share of the run: whether an ended step broke a level."""
        step = math.floor(at * RAMP_STEPS)
        if step == self._step:
            self._users = users
            return False
        now = time.monotonic()
        step_calls = between(self._before, calls)
        broken = [str(level) for level in self._judge(step_calls) if not level.held]
        turned_away = sum(each.requests for each in step_calls if TURNED_AWAY in each.name)
        requests = sum(each.requests for each in step_calls)
        if turned_away > requests * TURNED_AWAY_MAX:
            broken.append(f"{turned_away} of {requests} were turned away")
        rate = (requests - turned_away) / (now - self._began_s)
        if broken:
            self._broken = f"broke at {self._users} users, {rate:,.0f}/s: {'; '.join(broken)}"
            return True
        self._held = f"held {self._users} users, {rate:,.0f} requests/s"
        self._step, self._users, self._before, self._began_s = step, users, calls, now
        return False


def between(before: Sequence[Calls], after: Sequence[Calls]) -> list[Calls]:
    """The calls between two counts."""
    earlier = {(each.method, each.name): each for each in before}
    found = []
    for each in after:
        old = earlier.get((each.method, each.name), Calls(each.method, each.name, 0, 0, {}))
        found.append(
            replace(
                each,
                requests=each.requests - old.requests,
                failures=each.failures - old.failures,
                times_ms=Counter(each.times_ms) - Counter(old.times_ms),
            )
        )
    return found
