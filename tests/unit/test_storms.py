"""A wallet under a storm: its share of a group, and the rate at which its callers are refused."""

from tests.unit.samples import Clock
from transferd.commit.fair_share import FairShare
from transferd.config import Limits
from transferd.web.refusal_rate import RefusalRate


def share(clock: Clock) -> FairShare:
    return FairShare(alone_max=100, shared_min=8, shared_for_s=0.25, clock=clock)


def test_a_wallet_that_is_alone_fills_its_turns() -> None:
    assert share(Clock()).envelopes_max(0) == 100


def test_beside_others_it_brings_as_many_as_they_do_but_never_few() -> None:
    fair = share(Clock())
    assert [fair.envelopes_max(ready) for ready in (1, 8, 9, 40, 499)] == [8, 8, 9, 40, 100]


def test_others_are_remembered_for_a_while() -> None:
    clock = Clock()
    fair = share(clock)
    fair.envelopes_max(2)
    clock.now += 0.2
    assert fair.envelopes_max(0) == 8
    clock.now += 0.1
    assert fair.envelopes_max(0) == 100


def refusal_rate(clock: Clock) -> RefusalRate:
    limits = Limits(
        mailbox_refusals_per_s=10, mailbox_refusals_burst=3, mailbox_refusal_delay_s=1.0
    )
    return RefusalRate(limits, clock)


def test_a_burst_is_answered_at_once_and_the_rest_at_a_steady_rate() -> None:
    rate = refusal_rate(Clock())
    delays = [round(rate.delay_s(), 6) for _ in range(6)]
    assert delays == [0, 0, 0, 0.1, 0.2, 0.3]


def test_delays_differ_and_none_exceeds_the_longest() -> None:
    rate = refusal_rate(Clock())
    delays = [rate.delay_s() for _ in range(1_000)]
    assert max(delays) <= 1.0
    assert len({round(delay, 3) for delay in delays[100:] if delay >= 0.5}) > 100


def test_after_a_storm_answers_are_quick_again() -> None:
    clock = Clock()
    rate = refusal_rate(clock)
    for _ in range(1_000):
        rate.delay_s()
    clock.now += 1.5
    assert rate.delay_s() == 0
