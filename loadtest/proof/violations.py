"""The kinds of violations; each is a fault of the service under any load."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

# A load test finds these kinds. The rules name the kinds that only a full record shows.
# Acknowledged, and not in the ledger.
LOST_TRANSFER: Final = "lost-transfer"
# One key moved money more than once, or one transfer is twice in a statement.
DOUBLED_TRANSFER: Final = "doubled-transfer"
# In the ledger, though no request of this run asked for it.
INVENTED_TRANSFER: Final = "invented-transfer"
# A balance that does not follow from the one before it, or a changed sum.
WRONG_BALANCE: Final = "wrong-balance"
# The versions of a wallet have a gap or a repetition.
VERSION_GAP: Final = "version-gap"
# A repeated request got other bytes, or was refused after its success.
CHANGED_REPLAY: Final = "changed-replay"
# An answer that is older than an earlier one to this client.
STALE_READ: Final = "stale-read"
# An answer that does not fit its request, or breaks the contract in another way.
WRONG_ANSWER: Final = "wrong-answer"
# An invalid request was executed, or caused a 5xx.
BAD_REQUEST_TAKEN: Final = "bad-request-taken"
SERVER_ERROR_ON_BAD_REQUEST: Final = "server-error-on-bad-request"

# Only this many violations of a kind are reported in full.
TOLD_OF_A_KIND_MAX = 20


@dataclass(frozen=True)
class Violation:
    """Its kind, and a sentence with the ids for an investigation."""

    kind: str
    text: str


@dataclass
class Violations:
    """The number of violations of each kind, and the first few in full."""

    counts: Counter[str] = field(default_factory=Counter)
    told: list[Violation] = field(default_factory=list)

    def add(self, violation: Violation) -> bool:
        """Add one; returns whether it is reported in full."""
        self.counts[violation.kind] += 1
        if self.counts[violation.kind] > TOLD_OF_A_KIND_MAX:
            return False
        self.told.append(violation)
        return True

    def merge(self, other: "Violations") -> None:
        """Add those of another process."""
        mine = self.counts.copy()
        self.counts.update(other.counts)
        for violation in other.told:
            mine[violation.kind] += 1
            if mine[violation.kind] <= TOLD_OF_A_KIND_MAX:
                self.told.append(violation)

    @property
    def total(self) -> int:
        """The number of violations of all kinds."""
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
