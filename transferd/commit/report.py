"""The report of a group commit."""

from dataclasses import dataclass, field
from datetime import datetime

from transferd.commit.answer import Answer
from transferd.commit.envelope import Envelope
from transferd.domain.errors import TransferdError
from transferd.domain.wallet import Wallet
from transferd.observability.facts import About


@dataclass(slots=True)
class Report:
    """The result of a group. Each envelope is in exactly one of the first three lists.

    Envelopes in `aside` wait for a locked wallet. The counts count each transfer of a batch.
    """

    answers: list[tuple[Envelope, Answer]] = field(default_factory=list)
    failures: list[tuple[Envelope, TransferdError]] = field(default_factory=list)
    aside: list[Envelope] = field(default_factory=list)
    wallets: dict[str, Wallet] = field(default_factory=dict)
    posted: int = 0
    refused: int = 0
    replayed: int = 0
    # The database's time of the group, and the clock of the service before it was read.
    at: datetime | None = None
    asked_at: float = 0.0
    # How late the expiry of each hold was that the group has written, in seconds.
    late_expiries_s: list[float] = field(default_factory=list)
    # One entry per posted transfer; filled only if a hook wants per-request facts.
    posted_abouts: list[About] = field(default_factory=list)

    def add(self, other: "Report") -> None:
        """Add the result of a later transaction of the same group."""
        self.answers += other.answers
        self.failures += other.failures
        self.aside += other.aside
        self.wallets |= other.wallets
        if self.at is None:
            self.at, self.asked_at = other.at, other.asked_at
        self.posted += other.posted
        self.refused += other.refused
        self.replayed += other.replayed
        self.posted_abouts += other.posted_abouts
