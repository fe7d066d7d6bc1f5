"""A wallet or a ledger under a storm: its share, and the rate at which callers are refused."""

from collections.abc import Sequence
from typing import Any, cast

from tests.unit.samples import Clock, envelope
from transferd.commit.committer import CommitParts, Committer
from transferd.commit.envelope import Envelope
from transferd.commit.fair_share import FairShare
from transferd.commit.lanes import Lanes
from transferd.commit.report import Report
from transferd.commit.trail import Trail
from transferd.commit.turn import Solo
from transferd.config import Limits
from transferd.observability.facts import Facts
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


class LedgerInMemory(Committer):
    """A committer whose groups change nothing, so that it needs no servers."""

    def __init__(self, lanes: Lanes, clock: Clock, envelopes: int) -> None:
        no_servers = CommitParts(*[cast(Any, None)] * 5)
        super().__init__(no_servers, lanes, Limits(), Facts(), clock)
        for _ in range(envelopes):
            self.announce(Solo(envelope()))

    @property
    def node(self) -> str:
        """The same server for all."""
        return "node"

    async def _commit(self, envelopes: Sequence[Envelope], trail: Trail) -> Report:
        return Report()


def busy_ledgers(clock: Clock, *envelopes: int) -> list[LedgerInMemory]:
    lanes = Lanes(lanes_max=2, pause_max_s=0.05)
    return [LedgerInMemory(lanes, clock, count) for count in envelopes]


async def test_a_flooded_ledger_beside_a_calm_one_commits_small_groups_until_it_is_alone() -> None:
    clock = Clock()
    flooded, calm = busy_ledgers(clock, 2_000, 20)
    assert (await flooded.commit_once(), flooded.fills_its_share) == (20, True)
    assert (await calm.commit_once(), calm.fills_its_share) == (20, False)
    assert (await flooded.commit_once(), flooded.fills_its_share) == (16, True)
    clock.now += Limits().group_shared_for_s
    assert (await flooded.commit_once(), flooded.fills_its_share) == (512, False)


async def test_two_flooded_ledgers_do_not_free_each_other() -> None:
    first, second, calm = busy_ledgers(Clock(), 500, 500, 3)
    for flooded in (first, second):
        assert (await flooded.commit_once(), flooded.fills_its_share) == (67, True)
    assert (await calm.commit_once(), calm.fills_its_share) == (3, False)


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
