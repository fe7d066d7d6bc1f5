"""A command on its way from its caller to the group commit and back."""

import asyncio
from collections.abc import Callable

from transferd.commit.answer import Answer
from transferd.commit.origin import Origin
from transferd.domain.book import Command
from transferd.domain.errors import DeadlineExceeded, InternalFailure, TransferdError
from transferd.domain.key import Fingerprint, Key
from transferd.domain.transfer import Batch


class Envelope:
    """A command with its key, its origin, its deadline (in seconds of the clock) and its answer."""

    __slots__ = (
        "answer",
        "claim_settled",
        "command",
        "deadline",
        "enqueued_at",
        "fingerprint",
        "in_doubt",
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
        # How many transfers it adds to a group. A batch is never divided.
        self.weight = len(command.transfers) if isinstance(command, Batch) else 1
        # The wallet whose actor takes it. A batch has many wallets and is a turn of its own: None.
        self.wallet_id = wallet_id
        self.key = key
        self.fingerprint = fingerprint
        # PostgreSQL and Redis store this fingerprint with the outcome. If an earlier version has
        # stored the outcome, its fingerprint stays, because that version knows no other one.
        self.stored_fingerprint = fingerprint.value
        self.origin = origin
        self.enqueued_at = enqueued_at
        self.deadline = deadline
        self.urgent = urgent
        # Set when the wait for another replica's claim is over: then PostgreSQL alone decides.
        self.claim_settled = False
        # Set when the connection was lost during a COMMIT with it. From then on no answer may say
        # that the command did nothing.
        self.in_doubt = False
        # Set when it has an answer or a failure.
        self.is_over = False
        # Called once, when the command is over, also after its caller has gone away.
        self.on_over: Callable[[Envelope], None] | None = None
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        # One future for each further request with the same key: when the first caller goes away,
        # `answer` is cancelled and these are not.
        self.watchers: list[asyncio.Future[Answer]] = []

    def __repr__(self) -> str:
        state = "answered" if self.is_over else "waiting"
        return f"<Envelope {type(self.command).__name__} for {self.wallet_id}, {state}>"

    def settle(self, answer: Answer) -> None:
        """Answer every request that waits for the command."""
        if self.in_doubt and self.key is None and not answer.kept:
            # Its own COMMIT, during which the connection was lost, may have changed the version.
            self.fail(DeadlineExceeded())
            return
        for future in self._end():
            future.set_result(answer)

    def fail(self, error: TransferdError) -> None:
        """End every request that waits for the command with a failure of the machinery."""
        if self.in_doubt and not isinstance(error, InternalFailure):
            error = DeadlineExceeded()
        for future in self._end():
            future.set_exception(error)
            # asyncio logs an exception that is never read, and the caller may have gone away.
            future.exception()

    def watch(self) -> asyncio.Future[Answer]:
        """A future of the same answer, for a further request with the same key."""
        watcher: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.watchers.append(watcher)
        return watcher

    def _end(self) -> list[asyncio.Future[Answer]]:
        """Call `on_over`, once, and return the futures that wait for the answer."""
        self.is_over = True
        if (on_over := self.on_over) is not None:
            self.on_over = None
            on_over(self)
        return [future for future in (self.answer, *self.watchers) if not future.done()]
