"""Wallet id -> live actor: starts them, lets them retire, drains them at the end."""

import asyncio
from collections.abc import Callable

from transferd.actors.gate import Gate
from transferd.actors.mailbox import Mailbox
from transferd.actors.wallet_actor import WalletActor
from transferd.commit.answer import Answer
from transferd.commit.committer import Committer
from transferd.commit.envelope import Envelope
from transferd.commit.outcomes import key_reused
from transferd.commit.renderer import Renderer
from transferd.commit.turn import Solo
from transferd.config import Limits
from transferd.domain.errors import (
    DeadlineExceeded,
    Draining,
    Overloaded,
    RequestInProgress,
    TransferdError,
)
from transferd.domain.key import Key


class Router:
    """The one way in for every command. `clock` gives seconds."""

    def __init__(
        self,
        committer: Committer,
        renderer: Renderer,
        limits: Limits,
        clock: Callable[[], float],
    ) -> None:
        self._committer = committer
        self._renderer = renderer
        self._limits = limits
        self._clock = clock
        self._actors: dict[str, WalletActor] = {}
        self._by_key: dict[Key, Envelope] = {}
        self._gate = Gate(limits)
        # With how many transfers each is inside the gate.
        self._in_flight: dict[Envelope, int] = {}
        self._nothing_in_flight = asyncio.Event()
        self.is_draining = False

    def __repr__(self) -> str:
        state = ", draining" if self.is_draining else ""
        return f"<Router {len(self._actors)} actors, {self._gate!r}{state}>"

    @property
    def live_actors(self) -> int:
        """How many wallets have something waiting."""
        return len(self._actors)

    @property
    def backlog(self) -> int:
        """How many envelopes are on their way."""
        return len(self._in_flight)

    @property
    def gate(self) -> Gate:
        """Where callers wait while too much is on its way."""
        return self._gate

    def mailbox_depths(self) -> list[int]:
        """How many envelopes wait in each mailbox that there is."""
        return [len(actor.mailbox) for actor in self._actors.values()]

    async def ask(self, envelope: Envelope) -> Answer:
        """Have the command executed, at most once per key. Raises TransferdError.

        Equal keys join the first one's answer, also across wallets. If the caller goes away, the
        command runs on.
        """
        while envelope.key is not None and (first := self._by_key.get(envelope.key)) is not None:
            answer = await self._join(first, envelope)
            if answer is not None:
                return answer
            # It has waited for the other one until now, not in a mailbox.
            envelope.enqueued_at = self._clock()
        if self.is_draining:
            raise Draining()
        if envelope.key is not None:
            self._by_key[envelope.key] = envelope
        self._in_flight[envelope] = 0
        envelope.on_over = self._over
        try:
            await self._enter(envelope)
        except TransferdError as error:
            # Those who joined hear the same. The frames of the way here hold the envelope, which
            # will hold the error: a cycle, and a storm of refusals leaves thousands of them.
            envelope.fail(error.with_traceback(None))
        except asyncio.CancelledError:
            # The caller went away before it was let in: nothing happened.
            envelope.fail(Overloaded())
            raise
        try:
            # If the caller goes away from now on, the command runs on.
            return await envelope.answer
        finally:
            # An error that is raised here holds this frame: the same cycle.
            del envelope

    async def _enter(self, envelope: Envelope) -> None:
        """Through the gate into the mailbox. Raises Overloaded or MailboxFull."""
        if not self._gate.try_enter(envelope.weight):
            await self._gate.wait(self._limits.mailbox_wait_s, envelope.weight)
        if envelope.is_over:
            # The sweeper failed it and, with those inside, made the room that let it in.
            self._gate.leave(envelope.weight)
            return
        self._in_flight[envelope] = envelope.weight
        if envelope.wallet_id is None:
            self._committer.announce(Solo(envelope))
            return
        self._actor(envelope.wallet_id).tell(envelope)

    def _over(self, envelope: Envelope) -> None:
        """The command is over, just now: free its place and its key."""
        if weight := self._in_flight.pop(envelope):
            self._gate.leave(weight)
        if envelope.key is not None:
            del self._by_key[envelope.key]
        if not self._in_flight:
            self._nothing_in_flight.set()

    def _actor(self, wallet_id: str) -> WalletActor:
        actor = self._actors.get(wallet_id)
        return actor if actor is not None else self._start(wallet_id)

    def _start(self, wallet_id: str) -> WalletActor:
        mailbox = Mailbox(self._limits.mailbox_envelopes_max)
        actor = WalletActor(wallet_id, mailbox, self._committer, self._retire)
        self._actors[wallet_id] = actor
        return actor

    def _retire(self, actor: WalletActor) -> None:
        if self._actors.get(actor.wallet_id) is actor:
            del self._actors[actor.wallet_id]

    async def _join(self, first: Envelope, envelope: Envelope) -> Answer | None:
        """The first one's answer for an equal key; None if that was not the key's own outcome."""
        if len(first.watchers) >= self._limits.joined_requests_max:
            raise RequestInProgress()
        remaining_s = envelope.deadline - self._clock()
        try:
            answer = await asyncio.wait_for(first.watch(), remaining_s)
        except (TimeoutError, DeadlineExceeded):
            raise RequestInProgress() from None
        if not answer.kept:
            return None
        if not envelope.fingerprint.matches(first.stored_fingerprint):
            return self._renderer.outcome(envelope, key_reused())
        return Answer(answer.status, answer.body, replayed=True)

    def pending(self, key: Key) -> bool:
        """Whether a request with that key is on its way here."""
        return key in self._by_key

    async def sweep(self) -> None:
        """Fail envelopes that wait too long, until cancelled."""
        while True:
            await asyncio.sleep(self._limits.sweep_interval_s)
            self.sweep_once()

    def sweep_once(self) -> int:
        """One round of `sweep`; how many envelopes were failed."""
        now = self._clock()
        enqueued_before = now - self._limits.mailbox_wait_s
        failed = sum(actor.mailbox.expire(enqueued_before) for actor in self._actors.values())
        # The committer answers before the deadline. This bounds the wait if it does not.
        late = [envelope for envelope in self._in_flight if envelope.deadline < now]
        for envelope in late:
            envelope.fail(DeadlineExceeded())
        return failed + len(late)

    async def drain(self) -> bool:
        """Take nothing new and wait for what is on its way; False if that took too long."""
        self.is_draining = True
        if not self._in_flight:
            return True
        self._nothing_in_flight.clear()
        try:
            await asyncio.wait_for(self._nothing_in_flight.wait(), self._limits.drain_timeout_s)
        except TimeoutError:
            return False
        return True
