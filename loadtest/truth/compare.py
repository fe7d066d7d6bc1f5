"""The ledger against the history: pure, so that it is tested with planted faults."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from loadtest.truth.history import Acknowledged
from loadtest.truth.violations import (
    DOUBLED_TRANSFER,
    INVENTED_TRANSFER,
    LOST_TRANSFER,
    STALE_READ,
    VERSION_GAP,
    WRONG_ANSWER,
    WRONG_BALANCE,
    Violation,
)
from loadtest.world import State


class Entry(NamedTuple):
    """A row of a statement. Signed amount and balance in minor units."""

    transfer_id: str | None
    amount_minor: int
    balance_after_minor: int
    version: int


@dataclass(frozen=True)
class Ledger:
    """The wallets of a run (a wallet's number is its place), before and after it.

    `statements` has the entries of each in between, newest first.
    """

    wallets: Sequence[str]
    start: Mapping[str, State]
    final: Mapping[str, State]
    statements: Mapping[str, Sequence[Entry]]


def compare_sums(start: Mapping[str, State], final: Mapping[str, State]) -> list[Violation]:
    """All money stays among these wallets, so their sum is what it was."""
    before = sum(state.balance_minor for state in start.values())
    after = sum(state.balance_minor for state in final.values())
    if before == after:
        return []
    return [
        Violation(
            WRONG_BALANCE,
            f"the sum of all {len(start)} wallets was {before} and is {after} ({after - before:+})",
        )
    ]


def compare(ledger: Ledger, acknowledged: Mapping[str, Acknowledged]) -> list[Violation]:
    """Every wallet's entries add up, and are what was acknowledged: once, on both sides."""
    comparison = Comparison(ledger.wallets, acknowledged)
    violations = []
    for wallet_id in ledger.wallets:
        start, final = ledger.start[wallet_id], ledger.final[wallet_id]
        violations += comparison.wallet(
            wallet_id, start, final, ledger.statements.get(wallet_id, ())
        )
    return violations + comparison.finish()


class Comparison:
    """Wallet by wallet, so that no more than one statement is in memory.

    Without `acknowledged` only what a statement says by itself is looked at.
    """

    def __init__(
        self, wallets: Sequence[str], acknowledged: Mapping[str, Acknowledged] | None
    ) -> None:
        self._numbers = {wallet_id: number for number, wallet_id in enumerate(wallets)}
        self._acknowledged = acknowledged
        # Transfers by id: 1 for the side that pays, 2 for the other one.
        self._seen: dict[str, int] = {}
        # In the ledger, and no answer told of them.
        self.invented: set[str] = set()

    def wallet(
        self, wallet_id: str, start: State, final: State, entries: Sequence[Entry]
    ) -> list[Violation]:
        """One more; `entries` are newest first."""
        violations = _chain(wallet_id, start, final, entries)
        if self._acknowledged is not None:
            for entry in entries:
                violations += self._side(wallet_id, entry, self._acknowledged)
        return violations

    def finish(self) -> list[Violation]:
        """What only all of them together show."""
        violations = [
            Violation(
                INVENTED_TRANSFER,
                f"transfer {each} is in the ledger and no answer of this run told of it (or"
                " another run uses the same wallets: give each its own --seed-name)",
            )
            for each in sorted(self.invented)
        ]
        violations += [
            Violation(LOST_TRANSFER, f"transfer {each} was acknowledged and is not in the ledger")
            for each in self._acknowledged or ()
            if self._seen.get(each, 0) != 3
        ]
        return violations

    def _side(
        self, wallet_id: str, entry: Entry, acknowledged: Mapping[str, Acknowledged]
    ) -> list[Violation]:
        transfer = entry.transfer_id
        if transfer is None:
            return []
        told = acknowledged.get(transfer)
        if told is None:
            self.invented.add(transfer)
            return []
        violations = []
        side = 1 if entry.amount_minor < 0 else 2
        if self._seen.get(transfer, 0) & side:
            text = f"transfer {transfer} stands twice in wallet {wallet_id}"
            violations.append(Violation(DOUBLED_TRANSFER, text))
        self._seen[transfer] = self._seen.get(transfer, 0) | side
        if not _is_as_told(entry, told, self._numbers[wallet_id]):
            text = f"transfer {transfer}: told {told}, wallet {wallet_id} has {entry}"
            violations.append(Violation(WRONG_ANSWER, text))
        return violations


def _chain(wallet_id: str, start: State, final: State, entries: Sequence[Entry]) -> list[Violation]:
    """From the start to now: version by version, each balance the one before plus what moved."""
    violations = []
    before = start
    for entry in reversed(entries):
        if entry.version != before.version + 1:
            text = f"wallet {wallet_id}: version {entry.version} follows {before.version}"
            violations.append(Violation(VERSION_GAP, text))
        elif entry.balance_after_minor != before.balance_minor + entry.amount_minor:
            wrong = entry.balance_after_minor - before.balance_minor - entry.amount_minor
            violations.append(
                Violation(
                    WRONG_BALANCE,
                    f"wallet {wallet_id}: at version {entry.version} the balance is {wrong:+} off"
                    f" (transfer {entry.transfer_id})",
                )
            )
        if entry.balance_after_minor < 0:
            # None of these wallets has an overdraft.
            text = f"wallet {wallet_id}: {entry.balance_after_minor} at version {entry.version}"
            violations.append(Violation(WRONG_BALANCE, f"{text} is below zero"))
        before = State(entry.balance_after_minor, entry.version)
    # Somebody may have gone on while we were reading; then the statement is the newer one.
    stated = {entry.version: entry.balance_after_minor for entry in entries}
    stated[start.version] = start.balance_minor
    said = stated.get(final.version)
    if final.version > before.version:
        text = (
            f"wallet {wallet_id}: version {final.version}, its statement ends at {before.version}"
        )
        violations.append(Violation(VERSION_GAP, text))
    elif final.version < start.version:
        text = f"wallet {wallet_id}: version {final.version}, and {start.version} at the start"
        violations.append(Violation(STALE_READ, text))
    elif said is not None and said != final.balance_minor:
        text = f"wallet {wallet_id}: {final.balance_minor}, its statement says {said}"
        violations.append(Violation(WRONG_BALANCE, text))
    return violations


def _is_as_told(entry: Entry, told: Acknowledged, number: int) -> bool:
    if entry.amount_minor < 0:
        return (number, -entry.amount_minor, entry.version, entry.balance_after_minor) == (
            told.source,
            told.amount_minor,
            told.source_version,
            told.source_balance_after,
        )
    return (number, entry.amount_minor) == (told.destination, told.amount_minor)
