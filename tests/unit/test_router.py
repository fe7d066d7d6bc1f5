"""The router: equal keys join, every envelope gets its answer, and no entry is left behind."""

import asyncio
import gc
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import orjson
import pytest

from tests.unit.samples import OK, Clock, HandCommitter, envelope, settled, transfer
from transferd.actors.intake import Intake
from transferd.actors.router import Router
from transferd.actors.wallet_actor import WalletActor
from transferd.commit.answer import Answer
from transferd.commit.envelope import Envelope
from transferd.config import Limits
from transferd.domain.errors import (
    DatabaseUnavailable,
    DeadlineExceeded,
    Draining,
    InternalFailure,
    MailboxFull,
    Overloaded,
    RequestInProgress,
)
from transferd.domain.transfer import Batch, BatchMode, Transfer
from transferd.web.rendering import Rendering

KEY = (1, "lunch")
NOT_KEPT = Answer(422, b"{}")
REPLAYED = Answer(OK.status, OK.body, replayed=True)
# A wait of 0.05 s at the gate, and shorter waits inside it.
QUICK = Limits(
    mailbox_wait_s=0.05,
    statement_timeout_s=0.04,
    idle_in_transaction_timeout_s=0.03,
    relay_publish_timeout_s=0.015,
    lock_timeout_s=0.02,
)

Asking = asyncio.Task[Answer]


class House:
    """A router; the test makes its groups."""

    def __init__(self, limits: Limits) -> None:
        self.clock = Clock()
        self.committer = HandCommitter()
        self.bulk = HandCommitter()
        self.intake = Intake(limits)
        self.router = Router(
            self.intake, self.committer, self.bulk, Rendering(), limits, self.clock
        )

    async def ask(self, *envelopes: Envelope) -> list[Asking]:
        """Callers ask one after the other, and wait."""
        asking = [asyncio.create_task(self.router.ask(each)) for each in envelopes]
        await settled()
        return asking

    def take_turns(self) -> list[Envelope]:
        """Put all ready turns into a group, which stays in flight."""
        turns = [source.take_turn(1_000) for source in self.committer.announced]
        return [envelope for turn in turns for envelope in turn]


async def failures(asking: Iterable[Asking]) -> list[type]:
    return [type(end) for end in await asyncio.gather(*asking, return_exceptions=True)]


def house(limits: Limits | None = None, **changes: Any) -> House:
    return House(replace(limits or Limits(), **changes))


async def assert_nothing_left(home: House) -> None:
    await settled()
    home.router.sweep_once()
    assert (home.router.live_actors, home.router.backlog) == (0, 0)
    assert repr(home.router) == "<Router 0 actors, <Gate 0 inside, 0 waiting>>"
    assert not home.router.pending(KEY)


# Equal keys


async def test_a_command_is_executed_and_answered() -> None:
    home = house()
    sent = envelope(key=KEY)
    [asking] = await home.ask(sent)
    assert repr(home.router) == "<Router 1 actors, <Gate 1 inside, 0 waiting>>"
    assert home.router.pending(KEY)
    assert home.committer.commit() == [sent]
    assert await asking == OK
    await assert_nothing_left(home)


async def test_equal_keys_join_the_first() -> None:
    home = house()
    first, *others = [envelope(key=KEY) for _ in range(3)]
    asking = await home.ask(first, *others)
    assert home.router.backlog == 1
    assert home.committer.commit() == [first]
    assert await asyncio.gather(*asking) == [OK] + [REPLAYED] * 2
    assert home.committer.commit() == []
    await assert_nothing_left(home)


async def test_a_key_that_is_used_for_something_else_is_refused_also_across_wallets() -> None:
    home = house()
    asking, other = await home.ask(
        envelope("ada", key=KEY), envelope("bob", key=KEY, fingerprint=b"other")
    )
    assert len(home.committer.commit()) == 1
    refused = await other
    assert orjson.loads(refused.body)["code"] == "idempotency-key-reused"
    assert (refused.status, refused.kept, refused.replayed) == (422, False, False)
    assert await asking == OK
    await assert_nothing_left(home)


async def test_the_same_text_is_another_key_for_another_client() -> None:
    home = house()
    both = [envelope(key=(1, "lunch")), envelope(key=(2, "lunch"))]
    asking = await home.ask(*both)
    assert home.committer.commit() == both
    assert await asyncio.gather(*asking) == [OK, OK]


async def test_joined_envelopes_share_the_failure_of_the_first() -> None:
    home = house()
    asking = await home.ask(envelope(key=KEY), envelope(key=KEY), envelope(key=KEY))
    [first] = home.take_turns()
    first.fail(DatabaseUnavailable())
    assert await failures(asking) == [DatabaseUnavailable] * 3
    assert not home.router.pending(KEY), "the key is free for another try"


async def test_after_the_deadline_of_the_first_joined_envelopes_are_in_progress() -> None:
    home = house()
    asking = await home.ask(envelope(key=KEY), envelope(key=KEY))
    [first] = home.take_turns()
    first.fail(DeadlineExceeded())
    assert await failures(asking) == [DeadlineExceeded, RequestInProgress]


async def test_envelopes_above_the_limit_may_not_join() -> None:
    home = house(joined_requests_max=2)
    *asking, last = await home.ask(*(envelope(key=KEY) for _ in range(4)))
    assert await failures([last]) == [RequestInProgress]
    home.committer.commit()
    assert [answer.status for answer in await asyncio.gather(*asking)] == [OK.status] * 3


async def test_if_the_first_one_is_not_kept_the_second_is_executed() -> None:
    home = house()
    first, second, third = (envelope(key=KEY) for _ in range(3))
    asking = await home.ask(first, second, third)
    assert home.committer.commit(NOT_KEPT) == [first]
    await settled()
    assert home.committer.commit() == [second]
    assert await asyncio.gather(*asking) == [NOT_KEPT, OK, REPLAYED]
    await assert_nothing_left(home)


async def test_a_joined_envelope_past_its_deadline_is_in_progress() -> None:
    home = house()
    first, hurried = envelope(key=KEY), envelope(key=KEY, wait_s=0.01)
    asking, joined = await home.ask(first, hurried)
    with pytest.raises(RequestInProgress):
        await joined
    assert not asking.done()
    assert home.committer.commit() == [first]
    assert await asking == OK
    await assert_nothing_left(home)


async def test_the_first_goes_on_when_a_joined_caller_leaves() -> None:
    home = house()
    asking, joined = await home.ask(envelope(key=KEY), envelope(key=KEY))
    joined.cancel()
    with pytest.raises(asyncio.CancelledError):
        await joined
    home.committer.commit()
    assert await asking == OK


# Refused


async def test_a_full_mailbox_refuses_all_with_that_key_and_frees_it() -> None:
    home = house(mailbox_envelopes_max=1)
    [inside] = await home.ask(envelope())
    assert await failures(await home.ask(envelope(key=KEY))) == [MailboxFull]
    assert not home.router.pending(KEY)
    [elsewhere] = await home.ask(envelope("bob", key=KEY))
    home.committer.commit()
    assert [await inside, await elsewhere] == [OK, OK]
    await assert_nothing_left(home)


async def test_a_key_that_is_used_again_before_its_first_caller_wakes_is_freed_once() -> None:
    home = house(mailbox_envelopes_max=1)
    first = envelope(key=KEY)
    [asking] = await home.ask(first)
    first.settle(OK)
    # Refused without a pause: the first envelope is still in the mailbox.
    with pytest.raises(MailboxFull):
        await home.router.ask(envelope(key=KEY))
    assert await asking == OK
    home.committer.commit()
    await assert_nothing_left(home)
    assert await home.intake.drain()


async def test_a_storm_of_refusals_leaves_no_work_for_the_garbage_collector() -> None:
    home = house(mailbox_envelopes_max=1)
    [inside] = await home.ask(envelope())
    gc.collect()
    gc.disable()
    try:
        for _ in range(50):
            with pytest.raises(MailboxFull):
                await home.router.ask(envelope(key=KEY))
        assert gc.collect() < 50
    finally:
        gc.enable()
    home.committer.commit()
    assert await inside == OK


async def test_an_envelope_that_waits_too_long_at_the_gate_is_refused_with_all_that_joined() -> (
    None
):
    home = house(QUICK, backlog_low=0, backlog_high=1, backlog_max=3)
    [inside] = await home.ask(envelope())
    outside = await home.ask(envelope("bob", key=KEY), envelope("bob", key=KEY))
    assert repr(home.router) == "<Router 1 actors, <Gate 1 inside, 1 waiting>>"
    assert await failures(outside) == [Overloaded, Overloaded]
    home.committer.commit()
    assert await inside == OK
    await assert_nothing_left(home)


async def test_an_envelope_admitted_at_the_low_mark_is_executed() -> None:
    home = house(backlog_low=0, backlog_high=1, backlog_max=3)
    asking = await home.ask(envelope("ada"), envelope("bob"), envelope("cyd"))
    for wallet_id in ("ada", "bob", "cyd"):
        [executed] = home.committer.commit()
        assert isinstance(executed.command, Transfer)
        assert executed.command.source_wallet_id == wallet_id
        await settled()
    assert await asyncio.gather(*asking) == [OK] * 3
    await assert_nothing_left(home)


async def test_a_large_batch_leaves_the_gate_open_and_goes_to_a_committer_of_its_own() -> None:
    home = house(backlog_low=1, backlog_high=2, backlog_max=3)
    batch = Batch(BatchMode.ATOMIC, (transfer(), transfer(), transfer()))
    both = envelope(), envelope()
    both[0].command = batch
    asking = await home.ask(*both)
    assert [each.command for each in home.committer.commit()] == [transfer()]
    assert await asking[1] == OK
    assert [each.command for each in home.bulk.commit()] == [batch]
    assert await asking[0] == OK
    await assert_nothing_left(home)


# Crashes


async def test_after_a_crash_the_key_and_the_wallet_are_free_for_another_try() -> None:
    home = house()
    asking = await home.ask(envelope(key=KEY), envelope())
    home.committer.announced.popleft().fail_all(InternalFailure())
    assert await failures(asking) == [InternalFailure, InternalFailure]
    await assert_nothing_left(home)
    [again] = await home.ask(envelope(key=KEY))
    home.committer.commit()
    assert await again == OK


# Sweep


async def test_the_sweep_fails_envelopes_that_waited_too_long_in_a_mailbox() -> None:
    home = house()
    old, young = envelope(key=KEY), envelope("bob", enqueued_at=4.0)
    asking = await home.ask(old, young)
    home.clock.now = 5.0
    assert home.router.sweep_once() == 0
    home.clock.now = 5.001
    assert home.router.sweep_once() == 1
    assert await failures(asking[:1]) == [Overloaded]
    assert home.router.backlog == 1
    assert home.committer.commit() == [young]
    await assert_nothing_left(home)


async def test_the_sweep_fails_envelopes_past_their_deadline_at_every_place() -> None:
    home = house()
    [lost, kept] = await home.ask(envelope(key=KEY), envelope("bob", enqueued_at=3.0))
    in_flight = home.take_turns()
    home.clock.now = 10.0
    assert home.router.sweep_once() == 0
    home.clock.now = 10.001
    assert home.router.sweep_once() == 1
    assert await failures([lost]) == [DeadlineExceeded], "it may have happened"
    assert not home.router.pending(KEY)
    for each in in_flight:
        each.settle(OK)
    assert await kept == OK
    assert home.router.backlog == 0


async def test_an_envelope_admitted_past_its_deadline_leaves_nothing_behind() -> None:
    # A replica that was paused for longer than a deadline meets all of this at once.
    home = house(backlog_low=0, backlog_high=1, backlog_max=3)
    asking = await home.ask(envelope(), envelope("bob", key=KEY))
    home.take_turns()
    home.clock.now = 11.0
    assert home.router.sweep_once() == 2
    assert await failures(asking) == [DeadlineExceeded, DeadlineExceeded]
    home.committer.commit()
    await assert_nothing_left(home)


# Drain


async def test_a_draining_router_takes_nothing_new_and_waits_for_the_rest() -> None:
    home = house()
    [asking] = await home.ask(envelope(key=KEY))
    draining = asyncio.create_task(home.intake.drain())
    await settled()
    assert repr(home.router) == "<Router 1 actors, <Gate 1 inside, 0 waiting>>"
    assert repr(home.intake) == "<Intake of 1 commands, draining>"
    assert await failures(await home.ask(envelope())) == [Draining]
    [joined] = await home.ask(envelope(key=KEY))
    assert not draining.done()
    home.committer.commit()
    assert await draining
    assert await asking == OK
    assert await joined == REPLAYED
    assert (home.router.live_actors, home.router.backlog) == (0, 0)


async def test_a_drain_that_takes_too_long_is_reported() -> None:
    home = house(drain_timeout_s=0.01)
    [asking] = await home.ask(envelope())
    assert not await home.intake.drain()
    home.committer.commit()
    assert await asking == OK
    assert await home.intake.drain()


# Memory


async def test_ten_thousand_wallets_leave_no_actors_behind() -> None:
    gc.collect()
    before = actors_alive()
    home = house(backlog_low=9_998, backlog_high=9_999, backlog_max=10_000)
    envelopes = [envelope(f"wallet-{number}", key=(1, str(number))) for number in range(9_999)]
    asking = await home.ask(*envelopes)
    assert home.router.live_actors == 9_999
    asking += await home.ask(envelope("the last one"))
    while home.committer.commit():
        await settled()
    assert await asyncio.gather(*asking) == [OK] * 10_000
    await assert_nothing_left(home)
    assert actors_alive() == before


def actors_alive() -> int:
    return sum(isinstance(each, WalletActor) for each in gc.get_objects())


async def test_the_command_goes_on_for_joined_callers_when_the_first_leaves() -> None:
    home = house()
    gone, joined = await home.ask(envelope(key=KEY), envelope(key=KEY))
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    home.committer.commit()
    assert await joined == REPLAYED
    assert home.router.backlog == 0


# Metrics and repr


async def test_it_exports_the_depth_of_the_mailboxes() -> None:
    home = house()
    assert home.router.mailbox_depths() == []
    asking = await home.ask(envelope("ada"), envelope("ada"), envelope("bob"))
    assert sorted(home.router.mailbox_depths()) == [1, 2]
    assert (home.router.gate.inside, home.router.gate.waiting) == (3, 0)
    home.committer.commit()
    await asyncio.gather(*asking)
    await assert_nothing_left(home)
