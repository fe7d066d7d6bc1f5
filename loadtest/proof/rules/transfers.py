"""Each transfer in an answer is in the ledger once, in both wallets, with the same values."""

from collections.abc import Collection, Iterator, Mapping, Sequence

from loadtest.proof.evidence import Evidence
from loadtest.proof.history import TransferAnswer
from loadtest.proof.record import Entry
from loadtest.proof.violations import (
    DOUBLED_TRANSFER,
    INVENTED_TRANSFER,
    LOST_TRANSFER,
    WRONG_ANSWER,
    Violation,
)

_SOURCE, _DESTINATION = 1, 2


class Matching:
    """Compares answers with statements, entry by entry, so that one statement is in memory.

    answers: the answers about each transfer of the run, by its id. `unknown`: the transfers of the
    ledger that are in no answer.
    """

    def __init__(self, answers: Mapping[str, Sequence[TransferAnswer]]) -> None:
        self._answers = answers
        self._sides: dict[str, int] = {}
        self.unknown: set[str] = set()

    def entry(self, wallet: str, entry: Entry) -> Iterator[Violation]:
        """Compare one entry of a statement."""
        transfer = entry.transfer
        if transfer is None:
            return
        side = _SOURCE if entry.amount_minor < 0 else _DESTINATION
        if self._sides.get(transfer, 0) & side:
            text = f"transfer {transfer} stands twice in wallet {wallet}"
            yield Violation(DOUBLED_TRANSFER, text)
        self._sides[transfer] = self._sides.get(transfer, 0) | side
        answers = self._answers.get(transfer)
        if answers is None:
            self.unknown.add(transfer)
        for answer in answers or ():
            if not _agrees(wallet, entry, answer):
                text = f"transfer {transfer}: answered as {answer}, wallet {wallet} has {entry}"
                yield Violation(WRONG_ANSWER, text)

    def finish(self, explained: Collection[str] = ()) -> Iterator[Violation]:
        """The violations that are known after all entries.

        explained: transfers that were executed although the client got no answer.
        """
        for transfer in sorted(self.unknown.difference(explained)):
            text = f"transfer {transfer} is in the ledger and in no answer of this run"
            yield Violation(INVENTED_TRANSFER, f"{text} (or two runs share these wallets)")
        for transfer in self._answers:
            if self._sides.get(transfer, 0) != _SOURCE | _DESTINATION:
                text = f"transfer {transfer} was acknowledged and is not in the ledger"
                yield Violation(LOST_TRANSFER, text)


def unmatched(evidence: Evidence) -> Iterator[Violation]:
    """Each transfer in the ledger has an answer, and the reverse."""
    matching = Matching(evidence.answers)
    for wallet in evidence.entries:
        for entry in evidence.statement(wallet):
            yield from matching.entry(wallet, entry)
    yield from matching.finish()


def _agrees(wallet: str, entry: Entry, answer: TransferAnswer) -> bool:
    if entry.amount_minor >= 0:
        return (wallet, entry.amount_minor) == (answer.destination, answer.amount_minor)
    return (wallet, -entry.amount_minor, entry.version, entry.balance_after_minor) == (
        answer.source,
        answer.amount_minor,
        answer.source_version,
        answer.source_balance_after_minor,
    )
