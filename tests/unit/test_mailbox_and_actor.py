"""A wallet's queue and its turns: bounded, in order, one at a time, none lost."""

import pytest

from tests.unit.samples import OK, HandCommitter, envelope
from transferd.actors.mailbox import Mailbox
from transferd.actors.wallet_actor import WalletActor
from transferd.commit.envelope import Envelope
from transferd.domain.errors import Draining, InternalFailure, MailboxFull, Overloaded

# Mailbox


def filled(mailbox: Mailbox, count: int) -> list[Envelope]:
    envelopes = [envelope(enqueued_at=float(second)) for second in range(count)]
    for each in envelopes:
        mailbox.put(each)
    return envelopes


async def test_a_full_mailbox_refuses_and_keeps_its_envelopes() -> None:
    mailbox = Mailbox(2)
    inside = filled(mailbox, 2)
    late = envelope()
    with pytest.raises(MailboxFull):
        mailbox.put(late)
    assert not late.is_over, "the exception goes to the caller only"
    assert mailbox.take(9) == inside
    mailbox.put(late)
    assert len(mailbox) == 1


async def test_urgent_envelopes_keep_their_order_among_themselves() -> None:
    mailbox = Mailbox(2)
    [normal] = filled(mailbox, 1)
    freeze, unfreeze, close = (envelope(urgent=True) for _ in range(3))
    mailbox.put(freeze)
    mailbox.put(unfreeze)
    assert mailbox.take(1) == [freeze]
    mailbox.put(close)
    assert mailbox.take(9) == [unfreeze, close, normal]
    mailbox.put(normal)
    mailbox.put(freeze)
    assert mailbox.take(9) == [freeze, normal]


async def test_urgent_envelopes_keep_their_order_when_others_expire_or_fail() -> None:
    mailbox = Mailbox(4)
    old, normal = envelope(urgent=True, enqueued_at=1.0), envelope(enqueued_at=9.0)
    freeze, close = (envelope(urgent=True, enqueued_at=9.0) for _ in range(2))
    for each in (normal, old, freeze):
        mailbox.put(each)
    assert mailbox.expire(5.0) == 1
    mailbox.put(close)
    assert mailbox.take(9) == [freeze, close, normal]
    mailbox.put(old)
    mailbox.fail_all(Draining())
    mailbox.put(normal)
    mailbox.put(close)
    assert mailbox.take(9) == [close, normal]


async def test_an_envelope_that_waits_too_long_fails_and_the_others_stay() -> None:
    mailbox = Mailbox(8)
    first, second, third = filled(mailbox, 3)
    assert mailbox.expire(0.0) == 0
    assert mailbox.expire(1.0) == 1, "second 1 is not before second 1"
    assert isinstance(first.end, Overloaded)
    assert mailbox.take(9) == [second, third]
    assert not second.is_over


async def test_a_mailbox_can_fail_all_its_envelopes() -> None:
    mailbox = Mailbox(8)
    envelopes = filled(mailbox, 3)
    error = Draining()
    mailbox.fail_all(error)
    assert [each.end for each in envelopes] == [error] * 3
    assert len(mailbox) == 0


# Envelope


async def test_an_envelope_is_answered_once() -> None:
    lucky, unlucky = envelope(), envelope()
    early = lucky.wait(), unlucky.wait()
    assert repr(lucky) == "<Envelope Transfer, waiting>"
    lucky.settle(OK)
    lucky.fail(InternalFailure())
    unlucky.fail(InternalFailure())
    unlucky.settle(OK)
    assert repr(lucky) == "<Envelope Transfer, answered>"
    for answered, failed in (early, (lucky.wait(), unlucky.wait())):
        assert answered.result() == OK
        assert isinstance(failed.exception(), InternalFailure)


async def test_a_request_that_stops_waiting_does_not_cancel_the_command() -> None:
    shared = envelope()
    gone, waiting = shared.wait(), shared.wait()
    gone.cancel()
    shared.settle(OK)
    assert waiting.result() == OK


# Actor


class Stage:
    """One actor, whose announcements are recorded."""

    def __init__(self, envelopes_max: int = 8) -> None:
        self.committer = HandCommitter()
        self.actor = WalletActor("ada", Mailbox(envelopes_max), self.committer)

    @property
    def turns_wanted(self) -> int:
        return self.committer.announced.count(self.actor)

    def give_turn(self, envelopes_max: int = 8) -> list[Envelope]:
        """The envelopes that the actor gives to the current group."""
        assert self.committer.announced.popleft() is self.actor
        return list(self.actor.take_turn(envelopes_max))


async def test_an_actor_announces_itself_once_for_all_that_waits() -> None:
    stage = Stage()
    envelopes = [envelope() for _ in range(3)]
    for each in envelopes:
        stage.actor.tell(each)
    assert stage.turns_wanted == 1
    assert stage.give_turn() == envelopes


async def test_an_actor_has_one_turn_at_a_time() -> None:
    stage = Stage()
    stage.actor.tell(envelope())
    stage.give_turn()
    meanwhile = envelope()
    stage.actor.tell(meanwhile)
    assert stage.turns_wanted == 0, "its turn is still in a group"
    assert stage.actor.end_turn()
    assert list(stage.actor.take_turn(8)) == [meanwhile]


async def test_an_actor_has_another_turn_for_envelopes_left_by_a_full_group() -> None:
    stage = Stage()
    first, second, third = (envelope() for _ in range(3))
    for each in (first, second, third):
        stage.actor.tell(each)
    assert stage.give_turn(2) == [first, second]
    assert stage.actor.end_turn()
    assert list(stage.actor.take_turn(2)) == [third]


async def test_an_actor_is_idle_after_its_last_turn_and_announces_itself_again() -> None:
    stage = Stage()
    stage.actor.tell(envelope())
    stage.give_turn()
    idle = [stage.actor.is_idle, not stage.actor.end_turn(), stage.actor.is_idle]
    assert idle == [False, True, True]
    again = envelope()
    stage.actor.tell(again)
    assert stage.give_turn() == [again]


async def test_an_actor_whose_envelopes_have_expired_has_an_empty_turn() -> None:
    stage = Stage()
    stage.actor.tell(envelope())
    assert stage.actor.mailbox.expire(5.0) == 1
    assert stage.give_turn() == []
    assert not stage.actor.end_turn()
    assert stage.actor.is_idle


async def test_an_urgent_envelope_puts_an_idle_actor_at_the_head() -> None:
    stage = Stage()
    other = WalletActor("bob", Mailbox(8), stage.committer)
    other.tell(envelope())
    stage.actor.tell(envelope(urgent=True))
    assert list(stage.committer.announced) == [stage.actor, other]


async def test_a_full_actor_refuses_and_does_not_announce_itself_for_it() -> None:
    stage = Stage(envelopes_max=1)
    stage.actor.tell(envelope())
    with pytest.raises(MailboxFull):
        stage.actor.tell(envelope())
    assert stage.turns_wanted == 1
    assert len(stage.give_turn()) == 1


async def test_an_actor_can_fail_all_its_envelopes() -> None:
    stage = Stage()
    envelopes = [envelope() for _ in range(3)]
    for each in envelopes:
        stage.actor.tell(each)
    stage.actor.fail_all(InternalFailure())
    assert stage.actor.is_idle
    assert all(isinstance(each.end, InternalFailure) for each in envelopes)
    assert len(stage.actor.mailbox) == 0


async def test_an_actor_shows_its_wallet_and_its_mailbox() -> None:
    stage = Stage()
    stage.actor.tell(envelope())
    assert repr(stage.actor) == "<WalletActor ada, <Mailbox 1 of 8>>"
