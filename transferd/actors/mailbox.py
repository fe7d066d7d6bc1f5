"""A bounded queue of envelopes."""

from collections import deque
from itertools import chain

from transferd.commit.envelope import Envelope
from transferd.domain.command import is_urgent
from transferd.domain.errors import MailboxFull, Overloaded, TransferdError


class Mailbox:
    """First in, first out. Urgent envelopes go ahead of the others and are never refused."""

    __slots__ = ("_envelopes_max", "_normal", "_urgent")

    def __init__(self, envelopes_max: int) -> None:
        self._urgent: deque[Envelope] = deque()
        self._normal: deque[Envelope] = deque()
        self._envelopes_max = envelopes_max

    def __len__(self) -> int:
        return len(self._urgent) + len(self._normal)

    def __repr__(self) -> str:
        return f"<Mailbox {len(self)} of {self._envelopes_max}>"

    def put(self, envelope: Envelope) -> None:
        """Queue the envelope. Raises MailboxFull; then nothing has happened."""
        if is_urgent(envelope.command):
            self._urgent.append(envelope)
        elif len(self) >= self._envelopes_max:
            raise MailboxFull()
        else:
            self._normal.append(envelope)

    def take(self, envelopes_max: int) -> list[Envelope]:
        """Remove and return the first envelopes, at most `envelopes_max`."""
        urgent, normal = self._urgent, self._normal
        taken = [urgent.popleft() for _ in range(min(envelopes_max, len(urgent)))]
        taken += [normal.popleft() for _ in range(min(envelopes_max - len(taken), len(normal)))]
        return taken

    def expire(self, enqueued_before: float) -> int:
        """Fail envelopes that were queued before `enqueued_before`. Returns their number."""
        expired = [e for e in chain(self._urgent, self._normal) if e.enqueued_at < enqueued_before]
        if expired:
            self._urgent = deque(e for e in self._urgent if e.enqueued_at >= enqueued_before)
            self._normal = deque(e for e in self._normal if e.enqueued_at >= enqueued_before)
            for envelope in expired:
                envelope.fail(Overloaded())
        return len(expired)

    def fail_all(self, error: TransferdError) -> None:
        """Remove all envelopes and fail them."""
        envelopes = [*self._urgent, *self._normal]
        self._urgent.clear()
        self._normal.clear()
        for envelope in envelopes:
            envelope.fail(error)
