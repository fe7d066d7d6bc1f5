"""A bounded queue of envelopes."""

from collections import deque

from transferd.commit.envelope import Envelope
from transferd.domain.errors import MailboxFull, Overloaded, TransferdError


class Mailbox:
    """First in, first out; urgent envelopes go ahead and are never turned away."""

    __slots__ = ("_envelopes", "_envelopes_max", "_urgent")

    def __init__(self, envelopes_max: int) -> None:
        self._envelopes: deque[Envelope] = deque()
        self._envelopes_max = envelopes_max
        # How many at the head are urgent: the next urgent one goes behind them.
        self._urgent = 0

    def __len__(self) -> int:
        return len(self._envelopes)

    def __repr__(self) -> str:
        return f"<Mailbox {len(self._envelopes)} of {self._envelopes_max}>"

    def put(self, envelope: Envelope) -> None:
        """Queue it. Raises MailboxFull; then nothing happened."""
        if envelope.urgent:
            self._envelopes.insert(self._urgent, envelope)
            self._urgent += 1
        elif len(self._envelopes) >= self._envelopes_max:
            raise MailboxFull()
        else:
            self._envelopes.append(envelope)

    def take(self, envelopes_max: int) -> list[Envelope]:
        """At most that many, in the order of their turn."""
        count = min(envelopes_max, len(self._envelopes))
        self._urgent = max(0, self._urgent - count)
        return [self._envelopes.popleft() for _ in range(count)]

    def expire(self, enqueued_before: float) -> int:
        """Fail those that have waited since before then; nothing has happened to them yet."""
        expired = [e for e in self._envelopes if e.enqueued_at < enqueued_before]
        if expired:
            self._envelopes = deque(e for e in self._envelopes if e.enqueued_at >= enqueued_before)
            self._urgent = sum(e.urgent for e in self._envelopes)
            for envelope in expired:
                envelope.fail(Overloaded())
        return len(expired)

    def fail_all(self, error: TransferdError) -> None:
        """Fail all envelopes in it."""
        self._urgent = 0
        while self._envelopes:
            self._envelopes.popleft().fail(error)
