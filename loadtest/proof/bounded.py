"""Checks of a bounded history: samples of answers, and statements one by one."""

from collections.abc import Collection, Sequence

from loadtest.proof.answers import change_of
from loadtest.proof.history import Acknowledged, Answered, History, acknowledged_holds
from loadtest.proof.hold_record import HoldsRead
from loadtest.proof.record import Entry, State
from loadtest.proof.rules.books import statement
from loadtest.proof.rules.hold_statements import HoldMatching
from loadtest.proof.rules.transfers import Matching
from loadtest.proof.violations import CHANGED_REPLAY, DOUBLED_TRANSFER, Violation


def replay_violation(sample: Answered, status: int, body: bytes, replayed: str) -> Violation | None:
    """A repeated request must get the status and bytes of its first answer, marked as a replay."""
    change = change_of((sample.status, sample.answer), (status, body))
    if change is None and replayed == "true":
        return None
    text = f"{sample.request.path} with key {sample.request.key}"
    return Violation(CHANGED_REPLAY, f"{text}: {change or 'repeated, and not marked as a replay'}")


class StatementCheck:
    """Compares statements with a history; `violations` are the violations so far.

    history: None if it was too long to be kept. Then each statement is checked only in itself.
    """

    def __init__(self, history: History | None) -> None:
        self._matching: Matching | None = None
        self._holds = HoldMatching(None if history is None else acknowledged_holds(history))
        self.violations: list[Violation] = []
        if history is not None:
            acknowledged = Acknowledged(history)
            self._matching = Matching(acknowledged)
            for each in acknowledged.twice:
                text = f"transfer {each} was the answer to two requests"
                self.violations.append(Violation(DOUBLED_TRANSFER, text))

    @property
    def has_unknown(self) -> bool:
        """Whether the ledger has transfers or changes of holds that are in no answer."""
        unknown = self._matching is not None and bool(self._matching.unknown)
        return unknown or bool(self._holds.unknown)

    def wallet(
        self,
        wallet: str,
        start: State,
        final: State,
        entries: Sequence[Entry],
        balance_min: int | None = 0,
        *,
        holds: HoldsRead | None = None,
    ) -> None:
        """Check one wallet. `entries`: since the start, oldest first.

        holds: the holds that it pays; None if neither its entries nor the wallet name one.
        """
        self.violations += statement(wallet, start, final, entries, balance_min)
        if self._matching is not None:
            for entry in entries:
                self.violations += self._matching.entry(wallet, entry)
        if holds is not None:
            self.violations += self._holds.payer(wallet, start, final, entries, holds)

    def finish(self, executed: Collection[str] = ()) -> list[Violation]:
        """All violations. `executed`: transfers and holds whose answers the client did not get."""
        if self._matching is not None:
            self.violations += self._matching.finish(executed)
        self.violations += self._holds.finish(executed)
        return self.violations
