"""A command on its way from its caller to the group commit and back."""

import asyncio

from transferd.commit.answer import Answer
from transferd.commit.origin import Origin
from transferd.domain.command import Command, weight_of
from transferd.domain.errors import DeadlineExceeded, InternalFailure, TransferdError
from transferd.domain.key import Fingerprint, Key


class Envelope:
    """A command with its key, its origin and its deadline, and its answer once it has one.

    `enqueued_at` and `deadline` are seconds of the clock.
    """

    __slots__ = (
        "claim_settled",
        "command",
        "deadline",
        "end",
        "enqueued_at",
        "fingerprint",
        "in_doubt",
        "key",
        "origin",
        "stored_fingerprint",
        "waiters",
        "weight",
    )

    def __init__(
        self,
        command: Command,
        *,
        key: Key | None,
        fingerprint: Fingerprint,
        origin: Origin,
        enqueued_at: float,
        deadline: float,
    ) -> None:
        self.command = command
        self.weight = weight_of(command)
        self.key = key
        self.fingerprint = fingerprint
        # PostgreSQL and Redis store this fingerprint with the outcome. If an earlier version has
        # stored the outcome, its fingerprint stays, because that version knows no other one.
        self.stored_fingerprint = fingerprint.value
        self.origin = origin
        self.enqueued_at = enqueued_at
        self.deadline = deadline
        # Set when the wait for another replica's claim is over: then PostgreSQL alone decides.
        self.claim_settled = False
        # Set when the connection was lost during a COMMIT with it. From then on no answer may say
        # that the command did nothing.
        self.in_doubt = False
        # How the command ended; None until then.
        self.end: Answer | TransferdError | None = None
        # One for each request that waits for the command.
        self.waiters: list[asyncio.Future[Answer]] = []

    def __repr__(self) -> str:
        state = "answered" if self.is_over else "waiting"
        return f"<Envelope {type(self.command).__name__}, {state}>"

    @property
    def is_over(self) -> bool:
        """Whether the command has an answer or a failure."""
        return self.end is not None

    def wait(self) -> asyncio.Future[Answer]:
        """A new future of the answer. To cancel it does not cancel the command."""
        waiter: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.waiters.append(waiter)
        if self.end is not None:
            self._wake()
        return waiter

    def settle(self, answer: Answer) -> None:
        """Answer every request that waits for the command."""
        if self.in_doubt and self.key is None and not answer.kept:
            # Its own COMMIT, during which the connection was lost, may have changed the version.
            self.fail(DeadlineExceeded())
        elif self.end is None:
            self.end = answer
            self._wake()

    def fail(self, error: TransferdError) -> None:
        """End every request that waits for the command with a failure of the machinery."""
        if self.in_doubt and not isinstance(error, InternalFailure):
            error = DeadlineExceeded()
        if self.end is None:
            self.end = error
            self._wake()

    def _wake(self) -> None:
        end = self.end
        for waiter in self.waiters:
            if waiter.done():
                continue
            if isinstance(end, TransferdError):
                waiter.set_exception(end)
                # asyncio logs an exception that is never read, and the caller may have gone away.
                waiter.exception()
            elif end is not None:
                waiter.set_result(end)
