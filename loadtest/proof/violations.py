"""What may be found wrong, by name: each is a bug of the service, whatever the load."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

# These are found by a load test. What only a full record shows is named by its rule.
# Acknowledged, and not in the ledger.
LOST_TRANSFER: Final = "lost-transfer"
# One key moved money more than once, or one transfer stands twice in a statement.
DOUBLED_TRANSFER: Final = "doubled-transfer"
# In the ledger, though no request of this run asked for it.
INVENTED_TRANSFER: Final = "invented-transfer"
# A balance that is not the one before it plus what moved, or a sum that changed.
WRONG_BALANCE: Final = "wrong-balance"
# A wallet's versions have a gap, or one of them stands twice.
VERSION_GAP: Final = "version-gap"
# A repeated request was answered with other bytes, or refused after it had been done.
CHANGED_REPLAY: Final = "changed-replay"
# An answer older than what this client had already been told.
STALE_READ: Final = "stale-read"
# An answer that does not say what was asked for, or breaks the contract in another way.
WRONG_ANSWER: Final = "wrong-answer"
# Nonsense was taken for a request, or broke the server.
BAD_REQUEST_TAKEN: Final = "bad-request-taken"
SERVER_ERROR_ON_BAD_REQUEST: Final = "server-error-on-bad-request"

# A server that is wrong all the time is reported often enough by so many of a kind.
TOLD_OF_A_KIND_MAX = 20


@dataclass(frozen=True)
class Violation:
    """Its kind, and a sentence with the ids that are needed to look into it."""

    kind: str
    text: str


@dataclass
class Violations:
    """All that were found: how many of each kind, and the first few in full."""

    counts: Counter[str] = field(default_factory=Counter)
    told: list[Violation] = field(default_factory=list)

    def add(self, violation: Violation) -> bool:
        """Take one; whether it is among those that are told in full."""
        self.counts[violation.kind] += 1
        if self.counts[violation.kind] > TOLD_OF_A_KIND_MAX:
            return False
        self.told.append(violation)
        return True

    def merge(self, other: "Violations") -> None:
        """Take those of another process."""
        mine = self.counts.copy()
        self.counts.update(other.counts)
        for violation in other.told:
            mine[violation.kind] += 1
            if mine[violation.kind] <= TOLD_OF_A_KIND_MAX:
                self.told.append(violation)

    @property
    def total(self) -> int:
        """How many there were of any kind."""
        return self.counts.total()

    def to_message(self) -> dict[str, Any]:
        """For another process."""
        return {
            "counts": dict(self.counts),
            "told": [[violation.kind, violation.text] for violation in self.told],
        }

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> "Violations":
        """From another process."""
        return cls(
            Counter(message["counts"]), [Violation(kind, text) for kind, text in message["told"]]
        )
