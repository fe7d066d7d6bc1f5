"""The checks of a bounded history: of samples, and of single statements."""

from collections.abc import Collection, Sequence

from loadtest.proof.answers import change_of
from loadtest.proof.history import Acknowledged, Answered, History
from loadtest.proof.record import Entry, State
from loadtest.proof.rules.books import statement
from loadtest.proof.rules.transfers import Matching
from loadtest.proof.violations import CHANGED_REPLAY, DOUBLED_TRANSFER, Violation


def replay_violation(sample: Answered, status: int, body: bytes, replayed: str) -> Violation | None:
    """A repeated request gets the status and bytes of its first answer, marked as a replay."""
    change = change_of((sample.status, sample.answer), (status, body))
    if change is None and replayed == "true":
        return None
    text = f"{sample.request.path} with key {sample.request.key}"
    return Violation(CHANGED_REPLAY, f"{text}: {change or 'repeated, and not marked as a replay'}")


class StatementCheck:
    """`violations` are those found so far.

    Without a history, which was too long to be kept, only each statement itself is checked.
    """

    def __init__(self, history: History | None) -> None:
        self._matching: Matching | None = None
        self.violations: list[Violation] = []
        if history is not None:
            acknowledged = Acknowledged(history)
            self._matching = Matching(acknowledged)
            for each in acknowledged.twice:
                text = f"transfer {each} was the answer to two requests"
                self.violations.append(Violation(DOUBLED_TRANSFER, text))

    @property
    def has_unknown(self) -> bool:
        """Whether the ledger has transfers that are in no answer."""
        return self._matching is not None and bool(self._matching.unknown)

    def wallet(
        self,
        wallet: str,
        start: State,
        final: State,
        entries: Sequence[Entry],
        balance_min: int | None = 0,
    ) -> None:
        """Check one wallet, with its entries since the start, oldest first."""
        self.violations += statement(wallet, start, final, entries, balance_min)
        if self._matching is not None:
            for entry in entries:
                self.violations += self._matching.entry(wallet, entry)

    def finish(self, executed: Collection[str] = ()) -> list[Violation]:
        """All violations; `executed` are transfers that cannot be in an answer."""
        if self._matching is not None:
            self.violations += self._matching.finish(executed)
        return self.violations
