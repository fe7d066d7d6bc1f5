"""The ledger has each transfer of an answer once, on both sides, as in the answer."""

from collections.abc import Collection, Iterator, Mapping, Sequence

from loadtest.proof.evidence import Evidence
from loadtest.proof.history import Told
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
    """Compares entry by entry, so that only one statement is in memory.

    `told` are the answers about each transfer of the run, by its id. `unknown` are the transfers of
    the ledger that are not in `told`.
    """

    def __init__(self, told: Mapping[str, Sequence[Told]]) -> None:
        self._told = told
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
        answers = self._told.get(transfer)
        if answers is None:
            self.unknown.add(transfer)
        for told in answers or ():
            if not _is_as_told(wallet, entry, told):
                text = f"transfer {transfer}: answered as {told}, wallet {wallet} has {entry}"
                yield Violation(WRONG_ANSWER, text)

    def finish(self, explained: Collection[str] = ()) -> Iterator[Violation]:
        """The violations that all entries show; `explained` were executed without an answer."""
        for transfer in sorted(self.unknown.difference(explained)):
            text = f"transfer {transfer} is in the ledger and in no answer of this run"
            yield Violation(INVENTED_TRANSFER, f"{text} (or two runs share these wallets)")
        for transfer in self._told:
            if self._sides.get(transfer, 0) != _SOURCE | _DESTINATION:
                text = f"transfer {transfer} was acknowledged and is not in the ledger"
                yield Violation(LOST_TRANSFER, text)


def unmatched(evidence: Evidence) -> Iterator[Violation]:
    """The whole ledger of a round."""
    matching = Matching(evidence.told)
    for wallet in evidence.entries:
        for entry in evidence.statement(wallet):
            yield from matching.entry(wallet, entry)
    yield from matching.finish()


def _is_as_told(wallet: str, entry: Entry, told: Told) -> bool:
    if entry.amount_minor >= 0:
        return (wallet, entry.amount_minor) == (told.destination, told.amount_minor)
    return (wallet, -entry.amount_minor, entry.version, entry.balance_after_minor) == (
        told.source,
        told.amount_minor,
        told.source_version,
        told.source_balance_after_minor,
    )
