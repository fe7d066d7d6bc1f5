"""The number of users over time, and the limit that a ramp finds."""

from types import SimpleNamespace

import pytest

from loadtest import shapes
from loadtest.shapes import RAMP_STEPS, SHAPES, TURNED_AWAY_MAX, LimitSeeker, users_at
from loadtest.verdict import Calls, levels_of
from tests.unit.samples import Clock


@pytest.mark.parametrize(
    ("name", "users"),
    [
        # Of 100 users, after 0, 10, 33, 34, 50, 66, 67 and 99.9 of 100 seconds.
        ("constant", [100, 100, 100, 100, 100, 100, 100, 100]),
        ("soak", [100, 100, 100, 100, 100, 100, 100, 100]),
        ("smoke", [10, 10, 10, 10, 10, 10, 10, 10]),
        ("steps", [20, 20, 40, 40, 60, 80, 80, 100]),
        ("spike", [20, 20, 20, 100, 100, 100, 20, 20]),
        ("ramp", [5, 15, 35, 35, 55, 70, 70, 100]),
    ],
)
def test_each_shape_has_its_number_of_users(name: str, users: list[int]) -> None:
    times = (0, 10, 33, 34, 50, 66, 67, 99.9)
    assert [users_at(SHAPES[name], time_s, 100, 100) for time_s in times] == users


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_ends_in_time_and_never_exceeds_the_largest_number(name: str) -> None:
    shape = SHAPES[name]
    end_s = shape.seconds
    assert users_at(shape, end_s, 100, end_s) is None
    assert all(0 < shape.users_at(step / 1_000) <= 1 for step in range(1_000))
    # A clock may be a little late.
    assert shape.users_at(1.0) <= 1


# The limit

STEP = 1 / RAMP_STEPS


class Ramp:
    """A ramp with 10 seconds and 10 more users per step; calls are added up as Locust does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = Clock()
        monkeypatch.setattr(shapes, "time", SimpleNamespace(monotonic=self.clock))
        self.seeker = LimitSeeker(lambda calls: levels_of(calls, 100, 200, 1.0)[0])
        self._step = 0
        self._transfers: dict[int, int] = {}
        self._turned_away = 0

    def step(self, time_ms: int, answers: int = 100, *, turned_away: int = 0) -> bool:
        """Whether a step in which all answers take this long broke a level."""
        at, users = self._step * STEP, (self._step + 1) * 10
        assert not self._asked(at + 0.2 * STEP, users), "nothing is judged before its end"
        self._transfers[time_ms] = self._transfers.get(time_ms, 0) + answers
        self._turned_away += turned_away
        assert not self._asked(at + 0.9 * STEP, users), "nothing is judged before its end"
        self._step += 1
        self.clock.now += 10
        return self._asked(self._step * STEP + 0.001, users + 10)

    def _asked(self, at: float, users: int) -> bool:
        times_ms = dict(self._transfers)
        calls = [
            Calls("POST", "/transfers", sum(times_ms.values()), 0, times_ms),
            Calls("POST", "/transfers (turned away)", self._turned_away, 0, {}),
        ]
        return self.seeker.broke(at, users, calls)


def test_a_ramp_breaks_at_the_step_that_is_too_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    ramp = Ramp(monkeypatch)
    assert not ramp.step(20, 100)
    assert not ramp.step(100, 200)
    assert ramp.step(101, 300)
    assert ramp.seeker.line == (
        "held 20 users, 20 requests/s; broke at 30 users, 30/s: p95 of transfers 101 ms > 100 ms"
    )


def test_only_the_calls_of_the_step_count(monkeypatch: pytest.MonkeyPatch) -> None:
    ramp = Ramp(monkeypatch)
    assert not ramp.step(20, 100_000)
    # Among all calls so far these 100 are below one in a thousand.
    assert ramp.step(500, 100)
    assert "broke at 20 users, 10/s: p95 of transfers 500 ms" in ramp.seeker.line


def test_a_ramp_breaks_where_many_requests_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    ramp = Ramp(monkeypatch)
    assert TURNED_AWAY_MAX == 0.01
    assert not ramp.step(20, 99, turned_away=1)
    assert ramp.step(20, 98, turned_away=2)
    assert ramp.seeker.line == (
        "held 10 users, 10 requests/s; broke at 20 users, 10/s: 2 of 100 were turned away"
    )


def test_a_ramp_can_break_at_its_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    ramp = Ramp(monkeypatch)
    assert ramp.step(500, turned_away=50)
    assert ramp.seeker.line == (
        "no step held; broke at 10 users, 10/s: p95 of transfers 500 ms > 100 ms;"
        " p99 of transfers 500 ms > 200 ms; 50 of 150 were turned away"
    )


def test_the_last_step_is_judged_when_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    ramp = Ramp(monkeypatch)
    assert [ramp.step(20) for _ in range(RAMP_STEPS - 1)] == [False] * (RAMP_STEPS - 1)
    assert ramp.step(500)
    assert f"broke at {RAMP_STEPS * 10} users" in ramp.seeker.line
