"""A round as a load test has it: a bounded history, and statements. It makes captures, but keeps no
history of other changes of holds."""

from loadtest.proof.answers import json_object
from loadtest.proof.batches import with_items
from loadtest.proof.bounded import StatementCheck, replay_violation
from loadtest.proof.complaints import transfer_complaint
from loadtest.proof.history import Answered, History, Request
from loadtest.proof.ids import foreign_ids
from loadtest.proof.record import Entry, Kind, Operation
from loadtest.proof.rules.books import sums
from loadtest.proof.violations import FOREIGN_ID, WRONG_ANSWER, Violation
from tests.unit.true_rounds import Round


class LoadTestView:
    """The attributes are there to plant faults; `statements` are oldest first.

    `answered` are the violations that the users find in answers, before any audit.
    """

    def __init__(self, done: Round) -> None:
        wallets = {row.id: row for row in done.ledger.wallets}
        self.start = {id: row.state for id, row in done.ledger.before.items() if id in wallets}
        self.final = {id: row.state for id, row in wallets.items() if id in self.start}
        self.balance_min = {
            id: None if row.funding else -row.overdraft_limit for id, row in wallets.items()
        }
        self.statements: dict[str, list[Entry]] = {id: [] for id in self.start}
        for row in done.ledger.transfers:
            for wallet, entry in row.entries:
                self.statements.get(wallet, []).append(entry)
        for change in done.ledger.changes:
            self.statements.get(change.wallet, []).append(change.entry)
        for entries in self.statements.values():
            entries.sort(key=lambda entry: entry.version)
        named = [name for row in done.ledger.transfers for name, _ in row.entries]
        ids = dict.fromkeys([*done.ledger.before, *wallets, *named])
        self.history = History({id: number for number, id in enumerate(ids)})
        self.answered: list[Violation] = []
        history, _ = with_items(done.history, done.ledger)
        for operation in history:
            if operation.moves_money:
                self._listen(operation)
        self.answered += [
            Violation(FOREIGN_ID, id)
            for operation in done.history
            for each in operation.tries
            for id in foreign_ids(each.body, done.ledger.number)
        ]

    def violations(self) -> list[Violation]:
        """As the users and then the audit find them."""
        check = StatementCheck(self.history)
        for id, entries in self.statements.items():
            check.wallet(id, self.start[id], self.final[id], entries, self.balance_min[id])
        return [*self.answered, *sums(self.start, self.final), *check.finish()]

    def kinds(self) -> set[str]:
        """What kinds there are."""
        return {violation.kind for violation in self.violations()}

    def _listen(self, operation: Operation) -> None:
        """What a user makes of the answers to one key."""
        stored = [each for each in operation.tries if each.is_stored]
        if not stored:
            return
        first = stored[0]
        asked = {"source_wallet_id": operation.source, "amount": operation.amount}
        asked["destination_wallet_id"] = operation.destination
        if operation.kind is Kind.CAPTURE and not operation.amount:
            del asked["amount"]
        if first.status == 201:
            answer = json_object(first.body) or {}
            kind = operation.kind.value
            complaint = transfer_complaint(asked, answer, kind, balance_min=None)
            if complaint is None:
                self.history.transferred(answer)
            else:
                self.answered.append(Violation(WRONG_ANSWER, complaint))
        sample = Answered(Request("/transfers", operation.key, b""), first.status, first.body)
        for other in stored[1:]:
            marked = "true" if other.replayed else ""
            found = replay_violation(sample, other.status, other.body, marked)
            self.answered += [found] if found is not None else []
