"""A command on its way: the envelope it travels in, who gives it a turn, the answer it gets."""

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from transferd.domain.book import Command, Outcome
from transferd.domain.errors import DeadlineExceeded, InternalFailure, Refused, TransferdError
from transferd.domain.key import Fingerprint, Key
from transferd.domain.transfer import Batch, PostedTransfer
from transferd.domain.wallet import Wallet


class Answer(NamedTuple):
    """An HTTP status and body. `kept` tells that it is (or would be) what the key leads to."""

    status: int
    body: bytes
    kept: bool = True
    replayed: bool = False


class Origin(NamedTuple):
    """The request that a command came from; carried through to the notification.

    `traceparent` names the request's own span if it is traced, `parent` the one it came with.
    """

    request_id: str
    traceparent: str
    instance: str
    parent: str | None = None


class Envelope:
    """A command, who sent it, how long they wait (in the clock's seconds), and their answer."""

    __slots__ = (
        "answer",
        "claim_settled",
        "command",
        "deadline",
        "enqueued_at",
        "fingerprint",
        "in_doubt",
        "is_inside",
        "is_over",
        "key",
        "on_over",
        "origin",
        "stored_fingerprint",
        "urgent",
        "wallet_id",
        "watchers",
        "weight",
    )

    def __init__(
        self,
        command: Command,
        *,
        wallet_id: str | None,
        key: Key | None,
        fingerprint: Fingerprint,
        origin: Origin,
        enqueued_at: float,
        deadline: float,
        urgent: bool = False,
    ) -> None:
        self.command = command
        # How much of a group it is: the transfers of a batch, which is never divided.
        self.weight = len(command.transfers) if isinstance(command, Batch) else 1
        # Whose actor gives the turn; a batch has many wallets, and takes a turn of its own.
        self.wallet_id = wallet_id
        self.key = key
        self.fingerprint = fingerprint
        # The one that is stored with the outcome, in PostgreSQL and in Redis. An outcome that an
        # earlier version has stored keeps its fingerprint, the only one which that version knows.
        self.stored_fingerprint = fingerprint.value
        self.origin = origin
        self.enqueued_at = enqueued_at
        self.deadline = deadline
        self.urgent = urgent
        # Set once another replica's claim has been waited for: PostgreSQL alone decides then.
        self.claim_settled = False
        # Set once a COMMIT with it was cut: from then on nobody may say that nothing happened.
        self.in_doubt = False
        # Whether it counts in the backlog; the router's business.
        self.is_inside = False
        # Whether it has been settled or failed, whoever may still be waiting.
        self.is_over = False
        # Told once, when the command is over, also if nobody waits for the answer any more.
        self.on_over: Callable[[Envelope], None] | None = None
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        # Requests with the same key. They wait on their own: if the first caller goes away, its
        # answer is cancelled and theirs is not.
        self.watchers: list[asyncio.Future[Answer]] = []

    def __repr__(self) -> str:
        state = "answered" if self.is_over else "waiting"
        return f"<Envelope {type(self.command).__name__} for {self.wallet_id}, {state}>"

    def settle(self, answer: Answer) -> None:
        """Answer whoever waits."""
        if self.in_doubt and self.key is None and not answer.kept:
            # It may be its own COMMIT, which was cut, that has changed the version.
            self.fail(DeadlineExceeded())
            return
        for future in self._end():
            future.set_result(answer)

    def fail(self, error: TransferdError) -> None:
        """Answer whoever waits with a failure of the machinery."""
        if self.in_doubt and not isinstance(error, InternalFailure):
            error = DeadlineExceeded()
        for future in self._end():
            future.set_exception(error)
            # Nobody may be waiting any more; asyncio would then complain about an unseen exception.
            future.exception()

    def watch(self) -> asyncio.Future[Answer]:
        """A further wait for the same answer."""
        watcher: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.watchers.append(watcher)
        return watcher

    def _end(self) -> list[asyncio.Future[Answer]]:
        """The command is over: tell so, once, and return the waits that are still open."""
        self.is_over = True
        if (on_over := self.on_over) is not None:
            self.on_over = None
            on_over(self)
        return [future for future in (self.answer, *self.watchers) if not future.done()]


class TurnSource(Protocol):
    """Whoever has announced that a turn is ready: an actor, a batch, or a straggler."""

    @property
    def weight(self) -> int:
        """How much of a group the turn takes at least."""
        ...

    def take_turn(self, envelopes_max: int) -> Sequence[Envelope]:
        """What goes into one transaction now, in the order in which it is to be decided."""
        ...

    def done(self) -> None:
        """Called once when each envelope of the turn was answered or has left the group."""
        ...

    def crashed(self) -> None:
        """`take_turn` or `done` raised: answer everybody who waits here."""
        ...


class Solo:
    """A turn of one envelope that no actor gives."""

    __slots__ = ("envelope",)

    def __init__(self, envelope: Envelope) -> None:
        self.envelope = envelope

    def __repr__(self) -> str:
        return f"<Solo {self.envelope!r}>"

    @property
    def weight(self) -> int:
        """That of the envelope."""
        return self.envelope.weight

    def take_turn(self, envelopes_max: int) -> Sequence[Envelope]:
        """The one envelope; there is always room for one."""
        return (self.envelope,)

    def done(self) -> None:
        """Nothing waits behind it."""

    def crashed(self) -> None:
        """Answer the one who waits."""
        self.envelope.fail(InternalFailure())


class Renderer(Protocol):
    """Turns results into bytes. The edge knows how; it is handed in from above."""

    def outcome(self, envelope: Envelope, outcome: Outcome) -> Answer:
        """The answer to a command that was decided just now."""
        ...

    def refusal(self, envelope: Envelope, refused: Refused) -> bytes:
        """The problem that a refusal is shown as."""
        ...

    def batch(self, results: Sequence[bytes]) -> bytes:
        """The body of a posted batch from those of its transfers and problems."""
        ...

    def transfer(self, transfer: PostedTransfer) -> bytes:
        """The body of a posted transfer; for a stored one it is the same bytes for ever."""
        ...

    def wallet(self, wallet: Wallet) -> bytes:
        """The body of a wallet."""
        ...
