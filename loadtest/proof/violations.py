"""The kinds of violations. Each is a fault of the service, whatever the load is."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

# The kinds that a load test finds. Kinds that need a full record are named in their rules.
# Acknowledged, but not in the ledger.
LOST_TRANSFER: Final = "lost-transfer"
# One key was executed more than once, or a transfer is in a statement twice.
DOUBLED_TRANSFER: Final = "doubled-transfer"
# In the ledger, although no request of this run explains it.
INVENTED_TRANSFER: Final = "invented-transfer"
# A balance is not the previous balance plus the amount, or the sum of all wallets changed.
WRONG_BALANCE: Final = "wrong-balance"
# The versions of a wallet have a gap or a repetition.
VERSION_GAP: Final = "version-gap"
# A repeated request got other bytes, or was refused after its success.
CHANGED_REPLAY: Final = "changed-replay"
# An answer is older than an earlier answer to this client.
STALE_READ: Final = "stale-read"
# An answer does not agree with its request, or breaks the contract in another way.
WRONG_ANSWER: Final = "wrong-answer"
# A change of a hold was acknowledged, and is not in the statement of the wallet that pays.
LOST_HOLD_CHANGE: Final = "lost-hold-change"
# The statement has a change of a hold that no answer of this run explains.
INVENTED_HOLD_CHANGE: Final = "invented-hold-change"
# A hold does not agree with its statement or with the answers about it.
WRONG_HOLD: Final = "wrong-hold"
# What a wallet holds is not the sum of its active holds, or does not follow from its statement.
WRONG_HELD: Final = "wrong-held"
# The captures of a hold exceed its amount.
CAPTURED_ABOVE_HOLD: Final = "captured-above-hold"
# A hold changed after its end.
HOLD_ENDED_TWICE: Final = "hold-ended-twice"
# A hold was changed after its expiry, or expired before it.
WRONG_EXPIRY: Final = "wrong-expiry"
# An answer, a list, an event or a row of one ledger names an id of another ledger.
FOREIGN_ID: Final = "foreign-id"
# An invalid request was executed, or caused a 5xx.
BAD_REQUEST_TAKEN: Final = "bad-request-taken"
SERVER_ERROR_ON_BAD_REQUEST: Final = "server-error-on-bad-request"

# More violations of a kind are only counted.
REPORTED_OF_A_KIND_MAX = 20


@dataclass(frozen=True)
class Violation:
    """Its kind, and a sentence with the ids that an investigation needs."""

    kind: str
    text: str


@dataclass
class Violations:
    """The number of violations of each kind, and the first few in full."""

    counts: Counter[str] = field(default_factory=Counter)
    reported: list[Violation] = field(default_factory=list)

    def add(self, violation: Violation) -> bool:
        """Add one; returns whether it is reported in full."""
        self.counts[violation.kind] += 1
        if self.counts[violation.kind] > REPORTED_OF_A_KIND_MAX:
            return False
        self.reported.append(violation)
        return True

    def merge(self, other: "Violations") -> None:
        """Add the violations of another process."""
        mine = self.counts.copy()
        self.counts.update(other.counts)
        for violation in other.reported:
            mine[violation.kind] += 1
            if mine[violation.kind] <= REPORTED_OF_A_KIND_MAX:
                self.reported.append(violation)

    @property
    def total(self) -> int:
        return self.counts.total()

    def to_message(self) -> dict[str, Any]:
        """As a message for another process."""
        return {
            "counts": dict(self.counts),
            "reported": [[violation.kind, violation.text] for violation in self.reported],
        }

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> "Violations":
        """From a message of another process."""
        return cls(
            Counter(message["counts"]),
            [Violation(kind, text) for kind, text in message["reported"]],
        )
