"""The router of a ledger: finds or creates the actor of a wallet, and drops idle actors."""

import asyncio
from collections.abc import Callable

from transferd.actors.gate import Gate
from transferd.actors.intake import Intake
from transferd.actors.mailbox import Mailbox
from transferd.actors.wallet_actor import WalletActor
from transferd.commit.answer import Answer
from transferd.commit.committer import Committer
from transferd.commit.envelope import Envelope
from transferd.commit.renderer import Renderer
from transferd.commit.turn import Solo
from transferd.config import Limits
from transferd.domain.command import BulkCommand, paying_wallet
from transferd.domain.errors import (
    DeadlineExceeded,
    Draining,
    Overloaded,
    RequestInProgress,
    TransferdError,
)
from transferd.domain.key import Key
from transferd.domain.refusals import key_reused


class Router:
    """Accepts every command of a ledger in this replica. `clock` returns seconds."""

    def __init__(  # noqa: PLR0917 the parts below it
        self,
        intake: Intake,
        committer: Committer,
        bulk: Committer,
        renderer: Renderer,
        limits: Limits,
        clock: Callable[[], float],
    ) -> None:
        self._intake = intake
        self._committer = committer
        # Commits what takes long, batches and expiries, so that other commands do not wait for it.
        self._bulk = bulk
        self._renderer = renderer
        self._limits = limits
        self._clock = clock
        self._actors: dict[str, WalletActor] = {}
        self._by_key: dict[Key, Envelope] = {}
        self._gate = Gate(intake, limits)
        # Whether each envelope in flight has entered the gate.
        self._in_flight: dict[Envelope, bool] = {}

    def __repr__(self) -> str:
        return f"<Router {self.live_actors} actors, {self._gate!r}>"

    @property
    def live_actors(self) -> int:
        """The number of wallets with envelopes that wait or are in a group."""
        return sum(not actor.is_idle for actor in self._actors.values())

    @property
    def backlog(self) -> int:
        """The number of envelopes in flight."""
        return len(self._in_flight)

    @property
    def gate(self) -> Gate:
        """The gate, at which callers wait while too many commands are in flight."""
        return self._gate

    def mailbox_depths(self) -> list[int]:
        """The number of envelopes in each mailbox that is not empty."""
        return [depth for actor in self._actors.values() if (depth := len(actor.mailbox))]

    async def ask(self, envelope: Envelope) -> Answer:
        """Execute the command, at most once per key, and return its answer. Raises TransferdError.

        While an envelope with the same key is in flight, also of another wallet, the call waits for
        its answer. If the caller is cancelled, the command continues.
        """
        while (first := self._running(envelope.key)) is not None:
            answer = await self._join(first, envelope)
            if answer is not None:
                return answer
            # The envelope has waited for the first one. Its time in a mailbox begins now.
            envelope.enqueued_at = self._clock()
        if self._intake.is_draining:
            raise Draining()
        if envelope.key is not None:
            self._by_key[envelope.key] = envelope
        self._in_flight[envelope] = False
        try:
            await self._enter(envelope)
            return await envelope.wait()
        finally:
            self._leave_when_over(envelope)

    def _running(self, key: Key | None) -> Envelope | None:
        """The envelope with that key whose command is not over."""
        envelope = self._by_key.get(key) if key is not None else None
        return None if envelope is None or envelope.is_over else envelope

    async def _enter(self, envelope: Envelope) -> None:
        """Pass the gate and deliver the envelope, or fail it; then nothing has happened."""
        try:
            if not self._gate.try_enter():
                await self._gate.wait(self._limits.mailbox_wait_s)
            self._in_flight[envelope] = True
            # The sweeper may have failed the envelope while it waited.
            if not envelope.is_over:
                self._deliver(envelope)
        except TransferdError as error:
            # The traceback would refer to this frame and so to the envelope.
            envelope.fail(error.with_traceback(None))
        except asyncio.CancelledError:
            envelope.fail(Overloaded())
            raise

    def _deliver(self, envelope: Envelope) -> None:
        """Put the envelope into the mailbox of its paying wallet. Raises MailboxFull.

        Bulk work goes to its committer without an actor.
        """
        if isinstance(envelope.command, BulkCommand):
            self._bulk.announce(Solo(envelope))
            return
        wallet_id = paying_wallet(envelope.command)
        if wallet_id is None:
            self._committer.announce(Solo(envelope))
            return
        actor = self._actors.get(wallet_id)
        if actor is None:
            mailbox = Mailbox(self._limits.mailbox_envelopes_max)
            actor = self._actors[wallet_id] = WalletActor(wallet_id, mailbox, self._committer)
        actor.tell(envelope)

    def _leave_when_over(self, envelope: Envelope) -> None:
        """Free the envelope's place at the gate and its key, now or when the command is over."""
        if envelope.is_over:
            self._leave(envelope)
        else:
            # The caller was cancelled, and the command continues.
            envelope.wait().add_done_callback(lambda _: self._leave(envelope))

    def _leave(self, envelope: Envelope) -> None:
        if self._in_flight.pop(envelope):
            self._gate.leave()
        if envelope.key is not None and self._by_key.get(envelope.key) is envelope:
            del self._by_key[envelope.key]

    async def _join(self, first: Envelope, envelope: Envelope) -> Answer | None:
        """Wait for the answer of the first envelope. None if that answer is not kept: the key is
        free."""
        if len(first.waiters) > self._limits.joined_requests_max:
            raise RequestInProgress()
        remaining_s = envelope.deadline - self._clock()
        try:
            answer = await asyncio.wait_for(first.wait(), remaining_s)
        except (TimeoutError, DeadlineExceeded):
            raise RequestInProgress() from None
        if not answer.kept:
            return None
        if not envelope.fingerprint.matches(first.stored_fingerprint):
            return self._renderer.answer(envelope, key_reused())
        return Answer(answer.status, answer.body, replayed=True)

    def pending(self, key: Key) -> bool:
        """Whether a command with that key is in flight in this replica."""
        return self._running(key) is not None

    def sweep_once(self) -> int:
        """Fail envelopes that wait too long and drop idle actors. Returns how many have failed."""
        now = self._clock()
        enqueued_before = now - self._limits.mailbox_wait_s
        failed = sum(actor.mailbox.expire(enqueued_before) for actor in self._actors.values())
        # The committer answers before the deadline. This limits the wait if it does not.
        late = [envelope for envelope in self._in_flight if envelope.deadline < now]
        for envelope in late:
            envelope.fail(DeadlineExceeded())
        for wallet_id in [id for id, actor in self._actors.items() if actor.is_idle]:
            del self._actors[wallet_id]
        return failed + len(late)
