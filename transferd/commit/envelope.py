"""The envelope: a command that is in flight between its caller and the group commit."""

import asyncio
from copy import copy

from transferd.commit.answer import Answer
from transferd.commit.origin import Origin
from transferd.domain.command import Command, weight_of
from transferd.domain.errors import DeadlineExceeded, InternalFailure, TransferdError
from transferd.domain.key import Fingerprint, Key


class Envelope:
    """A command with its key, origin and deadline, and later its answer or failure.

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
        # The fingerprint that PostgreSQL and Redis hold with the outcome. If an earlier version of
        # the service has stored the outcome, this is its fingerprint: it recognizes no other one.
        self.stored_fingerprint = fingerprint.value
        self.origin = origin
        self.enqueued_at = enqueued_at
        self.deadline = deadline
        # True once the wait for another replica's claim is over. Then only PostgreSQL is asked.
        self.claim_settled = False
        # True once the connection was lost during a COMMIT that included the command. From then on
        # no answer may say that the command did nothing.
        self.in_doubt = False
        # The answer or the failure; None while the command runs.
        self.end: Answer | TransferdError | None = None
        # One future for each request that waits for the command.
        self.waiters: list[asyncio.Future[Answer]] = []

    def __repr__(self) -> str:
        state = "answered" if self.is_over else "waiting"
        return f"<Envelope {type(self.command).__name__}, {state}>"

    @property
    def is_over(self) -> bool:
        """Whether the command has an answer or a failure."""
        return self.end is not None

    def wait(self) -> asyncio.Future[Answer]:
        """Returns a new future of the answer. Cancelling it does not cancel the command."""
        waiter: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.waiters.append(waiter)
        if self.end is not None:
            self._wake()
        return waiter

    def settle(self, answer: Answer) -> None:
        """Answer every request that waits for the command."""
        if self.in_doubt and self.key is None and not answer.kept:
            # The COMMIT in doubt may have succeeded and caused this refusal: it changes the version
            # that the condition compares.
            self.fail(DeadlineExceeded())
        elif self.end is None:
            self.end = answer
            self._wake()

    def fail(self, error: TransferdError) -> None:
        """Raise `error` in every request that waits for the command."""
        if self.in_doubt and not isinstance(error, InternalFailure):
            error = DeadlineExceeded()
        if self.end is None:
            self.end = error
            self._wake()

    def _wake(self) -> None:
        end = self.end
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            if waiter.done():
                continue
            if isinstance(end, TransferdError):
                # A copy for each caller: a traceback refers to the frames of its caller, and these
                # to the envelope. Many refusals would leave thousands of such reference cycles.
                waiter.set_exception(copy(end))
                # Read the exception: asyncio logs one that is never read, and a caller may be gone.
                waiter.exception()
            elif end is not None:
                waiter.set_result(end)
