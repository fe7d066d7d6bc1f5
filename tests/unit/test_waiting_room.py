"""Envelopes delayed by locks and claims: they return, and a claim only delays."""

from tests.unit.samples import Clock, envelope
from transferd.commit.envelope import Envelope
from transferd.commit.waiting_room import Straggler, WaitingRoom
from transferd.config import Limits
from transferd.domain.errors import InternalFailure, Overloaded

LIMITS = Limits()
# Less than any delay, so that rounding does not decide which envelope is due.
HAIR_S = 0.001


class Scene:
    """A waiting room with a clock, and the envelopes that have left it."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.back: list[Straggler] = []
        self.room = WaitingRoom(LIMITS, self.clock, self.back.append)

    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds + HAIR_S

    def settled_claims(self) -> list[bool]:
        """Of the returned envelopes: whether their claim must not be checked again."""
        return [straggler.envelope.claim_settled for straggler in self.back]

    @property
    def turns(self) -> list[list[Envelope]]:
        """The turns of the returned envelopes, each asked as the committer asks."""
        return [list(straggler.take_turn(1)) for straggler in self.back]


async def test_all_claimed_keys_are_looked_up_together_after_a_delay() -> None:
    scene = Scene()
    for name in ("one", "two"):
        scene.room.wait_for_claim(envelope(key=(1, name)))
    assert scene.room.keys_to_ask() == []
    scene.pass_time(LIMITS.claim_poll_s)
    scene.room.wait_for_claim(envelope(key=(1, "three")))
    assert scene.room.keys_to_ask() == [(1, "one"), (1, "two")]


async def test_an_envelope_with_a_known_outcome_goes_into_the_next_group() -> None:
    scene = Scene()
    known, unknown = envelope(key=(1, "known")), envelope(key=(1, "unknown"))
    for each in (known, unknown):
        scene.room.wait_for_claim(each)
    scene.pass_time(LIMITS.claim_poll_s)
    assert scene.room.release({(1, "known")}) == 1
    assert scene.turns == [[known]]
    assert scene.settled_claims() == [True], "the group finds its outcome"
    assert len(scene.room) == 1


async def test_an_envelope_without_an_outcome_is_looked_up_again_later() -> None:
    scene = Scene()
    scene.room.wait_for_claim(envelope(key=(1, "k")))
    scene.pass_time(LIMITS.claim_poll_s)
    assert scene.room.release(()) == 0
    assert scene.room.keys_to_ask() == []
    scene.pass_time(LIMITS.claim_poll_s)
    assert scene.room.keys_to_ask() == [(1, "k")]


async def test_a_claim_only_delays() -> None:
    scene = Scene()
    waiting = envelope(key=(1, "k"))
    scene.room.wait_for_claim(waiting)
    scene.pass_time(LIMITS.claim_wait_s - 2 * HAIR_S)
    scene.room.release(())
    assert scene.back == []
    scene.pass_time(2 * HAIR_S)
    assert scene.room.release(()) == 1
    assert scene.turns == [[waiting]]
    assert scene.settled_claims() == [True], "or the same claim would hold it up again"
    assert not waiting.is_over
    assert len(scene.room) == 0


async def test_an_outcome_that_comes_at_the_end_of_the_wait_counts() -> None:
    scene = Scene()
    waiting = envelope(key=(1, "k"))
    scene.room.wait_for_claim(waiting)
    scene.pass_time(LIMITS.claim_wait_s)
    assert scene.room.release({(1, "k")}) == 1
    assert scene.turns == [[waiting]], "once"


async def test_envelopes_that_wait_for_a_lock_return_in_order_in_turns_of_one() -> None:
    scene = Scene()
    first, second, later = (envelope(key=(1, name)) for name in ("a", "b", "c"))
    scene.room.wait_for_lock(first)
    scene.room.wait_for_lock(second)
    scene.pass_time(LIMITS.step_aside_s / 2)
    scene.room.wait_for_lock(later)
    assert scene.room.release(()) == 0
    assert scene.back == []
    scene.pass_time(LIMITS.step_aside_s / 2)
    assert scene.room.keys_to_ask() == [], "no other replica has claimed their keys"
    scene.room.release(())
    assert scene.turns == [[first], [second]]
    assert scene.settled_claims() == [False, False]
    assert len(scene.room) == 1


async def test_an_envelope_without_time_for_another_attempt_fails_at_once() -> None:
    scene = Scene()
    needed_s = LIMITS.step_aside_s + LIMITS.command_timeout_s
    late, in_time = envelope(wait_s=needed_s - HAIR_S), envelope(wait_s=needed_s + HAIR_S)
    scene.room.wait_for_lock(late)
    scene.room.wait_for_lock(in_time)
    assert isinstance(late.end, Overloaded)
    assert not in_time.is_over
    assert len(scene.room) == 1


async def test_an_envelope_returned_late_is_a_turn_of_one() -> None:
    waiting = envelope()
    straggler = Straggler(waiting, due_at=0.0, patience_until=0.0)
    assert list(straggler.take_turn(1)) == [waiting]
    assert not straggler.end_turn()
    assert not waiting.is_over
    straggler.fail_all(InternalFailure())
    assert isinstance(waiting.end, InternalFailure)
