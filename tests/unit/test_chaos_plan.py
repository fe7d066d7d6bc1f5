"""What `make chaos` plans to break, and when."""

from tests.fault.chaos.faults import FAULTS, schedule


def test_a_plan_is_the_same_for_the_same_seed() -> None:
    names = list(FAULTS)
    plan = schedule(7, names, 600)
    assert plan == schedule(7, names, 600)
    assert plan != schedule(8, names, 600)
    assert all(low <= p.hold_s <= high for p in plan for low, high in [p.fault.hold_s])
    ends = [p.at_s + p.hold_s for p in plan]
    assert all(end < later.at_s for end, later in zip(ends, plan[1:], strict=False))
    assert ends[-1] <= 600


def test_a_plan_has_every_name_before_it_repeats_one() -> None:
    names = ["kill-redis", "flush-redis", "evict-redis"]
    plan = [planned.fault.name for planned in schedule(1, names, 120)]
    assert len(plan) > 9
    for start in range(0, 9, 3):
        assert sorted(plan[start : start + 3]) == sorted(names)
