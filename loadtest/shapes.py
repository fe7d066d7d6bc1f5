"""The number of users over time, and the search for the limit of the service."""

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from loadtest.verdict import Calls, Level

# Small steps find the limit more exactly; each step must be long enough to measure p95.
RAMP_STEPS = 20
# A service that turns away a larger share of requests is at its limit.
TURNED_AWAY_MAX = 0.01
TURNED_AWAY = "(turned away)"


@dataclass(frozen=True)
class Shape:
    """`users_at`: share of the run (0 to 1) -> share of the largest number of users."""

    question: str
    seconds: float
    users_at: Callable[[float], float]
    # The run ends at the first step that misses a level.
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
    "smoke": Shape("a tenth of the users for half a minute: does it work at all?", 30, _smoke),
    "steps": Shape("five equal steps: how does latency follow load?", 150, _steps),
    "spike": Shape("a fifth, then all at once, then a fifth: does it recover?", 90, _spike),
    "ramp": Shape("twenty steps, until a level is missed: where is the limit?", 200, _ramp, True),
    "soak": Shape("all users for an hour", 3600, _constant),
}


def users_at(shape: Shape, elapsed_s: float, most: int, seconds: float) -> int | None:
    """The number of users at this time; None at the end."""
    if elapsed_s >= seconds:
        return None
    return max(1, round(most * shape.users_at(elapsed_s / seconds)))


class LimitSeeker:
    """Finds the first step of a ramp that misses a level."""

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
        """Whether any step met all levels; otherwise the limit is below the first step."""
        return bool(self._held)

    @property
    def line(self) -> str:
        held = self._held or "no step held"
        return f"{held}; {self._broken}" if self._broken else f"{held}; no level broke"

    def broke(self, at: float, users: int, calls: Sequence[Calls]) -> bool:
        """Whether the step that has just ended missed a level. Called each second.

        at: the share of the run, 0 to 1. calls: the counts since the start of the run.
        """
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
