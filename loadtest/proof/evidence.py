"""The record of a round, indexed by key, transfer, hold, and wallet and version."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from loadtest.proof.answers import JsonObject, Meaning, json_object
from loadtest.proof.batches import with_items
from loadtest.proof.history import TransferAnswer
from loadtest.proof.record import (
    ChangeRow,
    Entry,
    HoldRow,
    HoldState,
    Kind,
    Ledger,
    Operation,
    State,
    TransferRow,
    Try,
    WalletRow,
)

# The kind of the row that a request about a hold writes.
CHANGE_KINDS = {
    Kind.HOLD: "hold_create",
    Kind.ADJUST: "hold_adjust",
    Kind.RELEASE: "hold_release",
}


@dataclass(frozen=True)
class Case:
    """All requests and answers with one key."""

    asked: Operation
    # In the order in which they ended.
    tries: Sequence[Try]
    # The distinct bodies of its successes, if they are transfers; None if a body has no id.
    bodies: Sequence[JsonObject | None]
    # The same, if they are holds.
    holds: Sequence[JsonObject | None] = ()

    @property
    def key(self) -> str:
        return self.asked.key

    @cached_property
    def meanings(self) -> Sequence[Meaning]:
        return [each.meaning for each in self.tries]

    @cached_property
    def began_s(self) -> float:
        """When the first try began: it was not executed before."""
        return min((each.began_s for each in self.tries), default=0.0)

    @cached_property
    def transfers(self) -> list[str]:
        """The ids of the transfers in its successes; usually one."""
        return list(dict.fromkeys(body["id"] for body in self.bodies if body is not None))

    @cached_property
    def success(self) -> Try | None:
        return self._first(Meaning.APPLIED)

    @cached_property
    def refusal(self) -> Try | None:
        return self._first(Meaning.REFUSED)

    @property
    def nothing_happened(self) -> bool:
        """Whether all answers exclude a transfer."""
        return self.success is None and Meaning.OPEN not in self.meanings

    @property
    def is_settled(self) -> bool:
        """Whether there is a final answer."""
        return self.success is not None or self.refusal is not None

    def _first(self, meaning: Meaning) -> Try | None:
        return self.tries[self.meanings.index(meaning)] if meaning in self.meanings else None


@dataclass(frozen=True)
class Evidence:
    """The input of every rule."""

    ledger: Ledger
    cases: Mapping[str, Case]
    reads: Sequence[Operation]
    past: Sequence[Operation]
    rows: Mapping[str, TransferRow]
    # The transfers in the answers and the outcome of each key, and the keys of each transfer.
    owned: Mapping[str, Sequence[str]]
    owners: Mapping[str, Sequence[str]]
    wallets: Mapping[str, WalletRow]
    # By wallet and version. Several entries of one version are a violation.
    entries: Mapping[str, Mapping[int, Sequence[Entry]]]
    holds: Mapping[str, HoldRow]
    # Changes without a transfer by wallet, and those of holds by hold, in the order of versions.
    changes: Mapping[str, Sequence[ChangeRow]]
    lives: Mapping[str, Sequence[ChangeRow]]

    def before(self, wallet: str) -> State:
        """The state of the wallet at the start of the round; a new wallet is empty."""
        row = self.ledger.before.get(wallet)
        return row.state if row is not None else State(0, 0)

    def balance_at(self, wallet: str, version: int) -> int | None:
        """The balance of a wallet at a version; None unless exactly one entry has this version."""
        before = self.before(wallet)
        if version == before.version:
            return before.balance_minor
        entries = self.entries.get(wallet, {}).get(version, ())
        return entries[0].balance_after_minor if len(entries) == 1 else None

    def held_at(self, wallet: str, version: int) -> int:
        """What a wallet holds at a version; holds that are due count until that is written."""
        rows = self._changes_until(wallet, version)
        before = self.ledger.before.get(wallet)
        return rows[-1].held_after if rows else before.held if before is not None else 0

    def active_at(self, wallet: str, version: int) -> list[HoldState]:
        """The active holds of a wallet at a version, in the order of their expiries."""
        last = {
            row.hold.hold: row.hold
            for row in self._changes_until(wallet, version)
            if row.hold is not None
        }
        active = (hold for hold in last.values() if hold.is_active)
        return sorted(active, key=lambda hold: hold.expires_us)

    def _changes_until(self, wallet: str, version: int) -> Sequence[ChangeRow]:
        rows = self.changes.get(wallet, ())
        return rows[: bisect_right(rows, version, key=lambda row: row.version)]

    def changes_of(self, case: Case) -> list[ChangeRow]:
        """The rows that a request about a hold has written; captures are transfers."""
        asked = case.asked
        ids = {body["id"] for body in case.holds if body is not None}
        rows = (row for id in ids | {asked.hold} for row in self.lives.get(id, ()))
        return [
            row
            for row in rows
            if row.kind == CHANGE_KINDS.get(asked.kind)
            and (asked.kind is not Kind.ADJUST or _expiry_of(row) == asked.expires_us)
        ]

    @cached_property
    def changed(self) -> Sequence[tuple[Case, ChangeRow]]:
        """Each acknowledged change of a hold with each of its rows in the ledger."""
        return [
            (case, row)
            for case in self.cases.values()
            if case.success is not None
            for row in self.changes_of(case)
        ]

    @cached_property
    def ordered(self) -> Sequence[tuple[Case, str, Mapping[str, int]]]:
        """Each case with each of its transfers and changes, and their versions of wallets."""
        moved = [(case, f"transfer {row.id}", row.versions) for case, row in self.applied]
        changed = [
            (case, f"change {row.event_id}", {row.wallet: row.version})
            for case, row in self.changed
        ]
        return [*moved, *changed]

    def statement(self, wallet: str) -> list[Entry]:
        """The entries of a wallet in the order of their versions."""
        entries = self.entries.get(wallet, {})
        return [entry for version in sorted(entries) for entry in entries[version]]

    @cached_property
    def in_time(self) -> Mapping[str, list[Entry]]:
        """The entries of each wallet in the order of their times."""
        return {
            wallet: sorted(self.statement(wallet), key=lambda entry: (entry.at_us, entry.version))
            for wallet in self.entries
        }

    @cached_property
    def answers(self) -> Mapping[str, Sequence[TransferAnswer]]:
        """The answers about each transfer; none if only a stored outcome has the transfer."""
        answers: dict[str, list[TransferAnswer]] = {id: [] for id in self.owners}
        for case in self.cases.values():
            for body in case.bodies:
                if body is not None:
                    answers[body["id"]].append(TransferAnswer.by(body))
        return answers

    @cached_property
    def applied(self) -> Sequence[tuple[Case, TransferRow]]:
        """Each case with each of its transfers in the ledger."""
        return [
            (case, self.rows[id])
            for key, case in self.cases.items()
            for id in self.owned[key]
            if id in self.rows
        ]


def evidence_of(history: Sequence[Operation], ledger: Ledger) -> Evidence:
    """Build all indexes once, so that a rule takes linear time, or the time of a sort."""
    history, ledger = with_items(history, ledger)
    cases = _cases(history)
    owned = {key: _owned(case, ledger) for key, case in cases.items()}
    owners: dict[str, list[str]] = {}
    for key, ids in owned.items():
        for id in ids:
            owners.setdefault(id, []).append(key)
    entries: dict[str, dict[int, list[Entry]]] = {}
    for row in ledger.transfers:
        for wallet, entry in row.entries:
            entries.setdefault(wallet, {}).setdefault(entry.version, []).append(entry)
    changes: dict[str, list[ChangeRow]] = {}
    lives: dict[str, list[ChangeRow]] = {}
    for change in sorted(ledger.changes, key=lambda change: change.version):
        by_version = entries.setdefault(change.wallet, {})
        by_version.setdefault(change.version, []).append(change.entry)
        changes.setdefault(change.wallet, []).append(change)
        if change.hold is not None:
            lives.setdefault(change.hold.hold, []).append(change)
    return Evidence(
        ledger=ledger,
        cases=cases,
        reads=[operation for operation in history if operation.kind is Kind.READ],
        past=[each for each in history if each.is_past],
        rows={row.id: row for row in ledger.transfers},
        owned=owned,
        owners=owners,
        wallets={wallet.id: wallet for wallet in ledger.wallets},
        entries=entries,
        holds={hold.id: hold for hold in ledger.holds},
        changes=changes,
        lives=lives,
    )


def _cases(history: Iterable[Operation]) -> dict[str, Case]:
    """The operations that have an outcome, by key. Operations with the same key are one case."""
    by_key: dict[str, list[Operation]] = {}
    for operation in history:
        if operation.has_outcome:
            by_key.setdefault(operation.key, []).append(operation)
    return {key: _case(operations) for key, operations in by_key.items()}


def _case(operations: Sequence[Operation]) -> Case:
    tries = sorted((each for one in operations for each in one.tries), key=lambda t: t.ended_s)
    if not (operations[0].moves_money or operations[0].changes_hold):
        return Case(operations[0], tries, [])
    successes = dict.fromkeys(each.body for each in tries if each.meaning is Meaning.APPLIED)
    documents = [_document(body) for body in successes]
    if operations[0].changes_hold:
        return Case(operations[0], tries, [], documents)
    return Case(operations[0], tries, documents)


def _expiry_of(row: ChangeRow) -> int:
    return 0 if row.hold is None else row.hold.expires_us


def _document(body: bytes) -> JsonObject | None:
    document = json_object(body)
    return document if document is not None and isinstance(document.get("id"), str) else None


def _owned(case: Case, ledger: Ledger) -> list[str]:
    _, stored = ledger.outcomes.get(case.key, (0, None))
    ids = case.transfers
    return ids if stored is None or stored in ids else [*ids, stored]
