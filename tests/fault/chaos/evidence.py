"""A round with its cross-references: which key has which transfers, and each wallet's versions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from tests.fault.chaos.answers import Case, cases_of
from tests.fault.chaos.records import Kind, Ledger, Operation, TransferRow, WalletRow


class Entry(NamedTuple):
    """One side of a transfer: what it did to a wallet."""

    transfer: str
    version: int
    amount: int
    balance_after: int
    at_us: int


@dataclass(frozen=True)
class Evidence:
    """What every rule looks at."""

    ledger: Ledger
    cases: Mapping[str, Case]
    reads: Sequence[Operation]
    past: Sequence[Operation]
    rows: Mapping[str, TransferRow]
    # What each key of the history was told of or has in its outcome, and the other way round.
    owned: Mapping[str, Sequence[str]]
    owners: Mapping[str, Sequence[str]]
    wallets: Mapping[str, WalletRow]
    # By wallet and version; more than one is an anomaly.
    entries: Mapping[str, Mapping[int, Sequence[Entry]]]

    def version_before(self, wallet: str) -> int:
        """Where its walk begins: a wallet that was not there before began at version 0."""
        row = self.ledger.before.get(wallet)
        return row.version if row is not None else 0

    def balance_at(self, wallet: str, version: int) -> int | None:
        """Its balance at that version, or None if the round does not tell it once."""
        if version == self.version_before(wallet):
            row = self.ledger.before.get(wallet)
            return row.balance if row is not None else 0
        entries = self.entries.get(wallet, {}).get(version, ())
        return entries[0].balance_after if len(entries) == 1 else None

    @cached_property
    def in_time(self) -> Mapping[str, list[Entry]]:
        """The entries of each wallet in the order of their times."""
        return {
            wallet: sorted(
                (entry for made in entries.values() for entry in made),
                key=lambda entry: (entry.at_us, entry.version),
            )
            for wallet, entries in self.entries.items()
        }

    @cached_property
    def applied(self) -> Sequence[tuple[Case, TransferRow]]:
        """Each operation of the history with each of its transfers."""
        return [
            (case, self.rows[id])
            for key, case in self.cases.items()
            for id in self.owned[key]
            if id in self.rows
        ]


def evidence_of(history: Sequence[Operation], ledger: Ledger) -> Evidence:
    """Look everything up once, so that no rule takes more than linear time (or a sort)."""
    cases = cases_of(history)
    owned = {key: _owned(case, ledger) for key, case in cases.items()}
    owners: dict[str, list[str]] = {}
    for key, ids in owned.items():
        for id in ids:
            owners.setdefault(id, []).append(key)
    return Evidence(
        ledger=ledger,
        cases=cases,
        reads=[operation for operation in history if operation.kind is Kind.READ],
        past=[each for each in history if each.kind in {Kind.INSTANT, Kind.WINDOW}],
        rows={row.id: row for row in ledger.transfers},
        owned=owned,
        owners=owners,
        wallets={wallet.id: wallet for wallet in ledger.wallets},
        entries=_entries(ledger.transfers),
    )


def sides(row: TransferRow) -> tuple[tuple[str, int], tuple[str, int]]:
    """Both its wallets with the versions that it gave them."""
    return (row.source, row.source_version), (row.destination, row.destination_version)


def _owned(case: Case, ledger: Ledger) -> list[str]:
    _, stored = ledger.outcomes.get(case.key, (0, None))
    ids = case.told
    return ids if stored is None or stored in ids else [*ids, stored]


def _entries(rows: Sequence[TransferRow]) -> dict[str, dict[int, list[Entry]]]:
    entries: dict[str, dict[int, list[Entry]]] = {}
    for row in rows:
        for wallet, version, amount, balance_after in (
            (row.source, row.source_version, -row.amount, row.source_balance_after),
            (row.destination, row.destination_version, row.amount, row.destination_balance_after),
        ):
            entry = Entry(row.id, version, amount, balance_after, row.at_us)
            entries.setdefault(wallet, {}).setdefault(version, []).append(entry)
    return entries
