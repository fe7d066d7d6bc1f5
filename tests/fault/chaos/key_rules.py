"""What each key was promised: one effect, one answer, and the truth."""

from collections import Counter
from collections.abc import Iterator

from tests.fault.chaos.answers import DECIDED, Case, JsonObject, Word, is_stored
from tests.fault.chaos.evidence import Evidence
from tests.fault.chaos.records import Anomaly, Kind, Operation, TransferRow


def lost(evidence: Evidence) -> Iterator[Anomaly]:
    """Whatever was told or stored as posted is in the ledger, and stored under its key."""
    for key, case in evidence.cases.items():
        for id in evidence.owned[key]:
            if id not in evidence.rows:
                yield Anomaly("lost", f"key {key}: transfer {id} is not in the ledger")
        if case.told and key not in evidence.ledger.outcomes:
            yield Anomaly("lost", f"key {key}: transfer {case.told[0]} was told, not its outcome")


def lost_refusal(evidence: Evidence) -> Iterator[Anomaly]:
    """A refusal that is not stored could be followed by a transfer."""
    for key, case in evidence.cases.items():
        codes = [each.code for each in case.tries if each.code in DECIDED]
        if codes and key not in evidence.ledger.outcomes:
            yield Anomaly("lost-refusal", f"key {key}: {codes[0]} was told, but has no outcome")


def doubled(evidence: Evidence) -> Iterator[Anomaly]:
    """One key, one transfer; one transfer, one key; and no twins in the ledger."""
    for key, ids in evidence.owned.items():
        if len(ids) > 1:
            yield Anomaly("doubled", f"key {key} has the transfers {', '.join(ids)}")
    for id, keys in evidence.owners.items():
        if len(keys) > 1:
            yield Anomaly("doubled", f"transfer {id} belongs to the keys {', '.join(keys)}")
    for id, count in Counter(row.id for row in evidence.ledger.transfers).items():
        if count > 1:
            yield Anomaly("doubled", f"transfer {id} is {count} times in the ledger")
    explained = {_pairing(row): id for id, row in evidence.rows.items() if id in evidence.owners}
    for id, row in evidence.rows.items():
        if id not in evidence.owners and _pairing(row) in explained:
            twin = explained[_pairing(row)]
            yield Anomaly("doubled", f"transfer {id} is like {twin}, and no key explains it")


def invented(evidence: Evidence) -> Iterator[Anomaly]:
    """No transfer without a key, or for a key whose every answer said that nothing happened."""
    for id in evidence.rows:
        if id not in evidence.owners:
            yield Anomaly("invented", f"transfer {id} belongs to no key of the history")
    for case, row in evidence.applied:
        if case.nothing_happened:
            statuses = ", ".join(str(each.status) for each in case.tries) or "nothing"
            yield Anomaly("invented", f"key {case.key} got {statuses}, but has transfer {row.id}")


def refused_but_applied(evidence: Evidence) -> Iterator[Anomaly]:
    """Who is refused knows that nothing happened and nothing will.

    Who was merely turned away knows it only if no other try can have been executed.
    """
    for key, case in evidence.cases.items():
        status, stored = evidence.ledger.outcomes.get(key, (0, None))
        if not case.told and _was_refused(case) and (stored is not None or 200 <= status < 300):
            yield Anomaly("refused-but-applied", f"key {key} was refused, but has {stored}")


def applied_but_refused(evidence: Evidence) -> Iterator[Anomaly]:
    """A success and a refusal never share a key, be the refusal told or stored."""
    for key, case in evidence.cases.items():
        if case.success is None:
            continue
        status, _ = evidence.ledger.outcomes.get(key, (201, None))
        if case.refusal is not None:
            told = f"{case.refusal.status} {case.refusal.code}"
            yield Anomaly("applied-but-refused", f"key {key} was told success and {told}")
        elif not 200 <= status < 300:
            yield Anomaly("applied-but-refused", f"key {key} was told success, stored is {status}")


def changed_replay(evidence: Evidence) -> Iterator[Anomaly]:
    """Every final answer to one key has the same status and the same bytes."""
    for key, case in evidence.cases.items():
        # What is not stored is rendered anew, with another request id.
        answers = {
            (each.status, each.body if is_stored(each) else each.code.encode())
            for each, word in zip(case.tries, case.words, strict=True)
            if word in (Word.APPLIED, Word.REFUSED)
        }
        if len(answers) > 1:
            told = " and ".join(f"{status} {body[:200]!r}" for status, body in sorted(answers))
            yield Anomaly("changed-replay", f"key {key} was told {told}")


def unmarked_replay(evidence: Evidence) -> Iterator[Anomaly]:
    """Only one answer to a key is the first; each of the others says that it is a replay."""
    for key, case in evidence.cases.items():
        firsts = [each for each in case.tries if is_stored(each) and not each.replayed]
        if len(firsts) > 1:
            yield Anomaly("unmarked-replay", f"key {key}: {len(firsts)} answers are no replay")


def unsettled(evidence: Evidence) -> Iterator[Anomaly]:
    """The last repetition tells what happened, whatever went on before.

    Who is turned away last and got no answer before still does not know.
    """
    for key, case in evidence.cases.items():
        if not case.tries:
            continue
        last = case.tries[-1]
        is_unknown = case.words[-1] is Word.OPEN or last.status >= 500
        if is_unknown or (Word.OPEN in case.words and not case.is_settled):
            yield Anomaly("unsettled", f"key {key} was last told {last.status} {last.code}")


def wrong_answer(evidence: Evidence) -> Iterator[Anomaly]:
    """A success tells what was asked for, as the ledger has it; a refusal what is stored."""
    for key, case in evidence.cases.items():
        for each, word in zip(case.tries, case.words, strict=True):
            status, _ = evidence.ledger.outcomes.get(key, (each.status, None))
            if word is Word.APPLIED and each.status != 201:
                yield Anomaly("wrong-answer", f"key {key} was told {each.status}, not 201")
            if each.code in DECIDED and status >= 400 and status != each.status:
                yield Anomaly("wrong-answer", f"key {key}: told {each.status}, stored is {status}")
        for body in case.bodies:
            yield from _body_faults(evidence, case, body)
    for case, row in evidence.applied:
        for name, asked in _asked_of_row(case.asked).items():
            if getattr(row, name) != asked:
                got = getattr(row, name)
                text = f"key {case.key}: {name} of {row.id} is {got!r}, asked was {asked!r}"
                yield Anomaly("wrong-answer", text)


def wrong_reversal(evidence: Evidence) -> Iterator[Anomaly]:
    """A reversal goes back where the money came from, and never above what is left."""
    reversed_by_original: Counter[str] = Counter()
    for row in evidence.ledger.transfers:
        original = evidence.rows.get(row.reverses) if row.reverses is not None else None
        # Of an original from before the round nothing is known.
        if original is None:
            continue
        reversed_by_original[original.id] += row.amount
        is_back = (row.source, row.destination) == (original.destination, original.source)
        if original.reverses is not None or not is_back:
            yield Anomaly("wrong-answer", f"transfer {row.id} is no reversal of {original.id}")
    for id, amount in reversed_by_original.items():
        if amount > evidence.rows[id].amount:
            left = evidence.rows[id].amount
            yield Anomaly("wrong-answer", f"{amount} of the {left} of transfer {id} are reversed")


def _pairing(row: TransferRow) -> tuple[str, str, int, str | None]:
    return row.source, row.destination, row.amount, row.reverses


def _was_refused(case: Case) -> bool:
    if case.refusal is not None:
        return True
    statuses = (each.status for each in case.tries)
    return case.nothing_happened and any(400 <= each < 500 and each != 429 for each in statuses)


def _asked_of_row(asked: Operation) -> dict[str, object]:
    return {
        "source": asked.source,
        "destination": asked.destination,
        "amount": asked.amount,
        "reverses": asked.original if asked.kind is Kind.REVERSAL else None,
    }


def _body_faults(evidence: Evidence, case: Case, body: JsonObject | None) -> Iterator[Anomaly]:
    if body is None:
        yield Anomaly("wrong-answer", f"key {case.key}: a success that is no transfer")
        return
    asked = case.asked
    expected: dict[str, object] = {
        "source_wallet_id": asked.source,
        "destination_wallet_id": asked.destination,
        "amount": asked.amount,
        "kind": asked.kind.value,
        "reverses_transfer_id": asked.original if asked.kind is Kind.REVERSAL else None,
    }
    row = evidence.rows.get(body["id"])
    if row is not None:
        expected["source_version"] = row.source_version
        expected["source_balance_after"] = row.source_balance_after
    for name, value in expected.items():
        if body.get(name) != value:
            text = f"key {case.key}: {name} is {body.get(name)!r}, not {value!r}"
            yield Anomaly("wrong-answer", text)
