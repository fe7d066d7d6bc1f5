"""Rules for keys: each is executed once and has one correct answer."""

from collections import Counter
from collections.abc import Iterator

from loadtest.proof.answers import DECIDED, Meaning, change_of
from loadtest.proof.complaints import transfer_complaint
from loadtest.proof.evidence import Case, Evidence
from loadtest.proof.record import Kind, TransferRow
from loadtest.proof.violations import (
    CHANGED_REPLAY,
    DOUBLED_TRANSFER,
    INVENTED_TRANSFER,
    LOST_TRANSFER,
    WRONG_ANSWER,
    Violation,
)


def lost_outcome(evidence: Evidence) -> Iterator[Violation]:
    """Each success and decided refusal is stored; otherwise a repetition could be executed."""
    for key, case in evidence.cases.items():
        if key in evidence.ledger.outcomes:
            continue
        if case.transfers:
            text = f"key {key}: transfer {case.transfers[0]} was answered, and has no outcome"
            yield Violation(LOST_TRANSFER, text)
        elif case.holds:
            text = f"key {key}: a change of a hold was answered, and has no outcome"
            yield Violation("lost-hold-change", text)
        elif case.success is not None:
            text = f"key {key}: {case.success.status} was answered, and has no outcome"
            yield Violation("lost-outcome", text)
        codes = [each.code for each in case.tries if each.code in DECIDED]
        if codes:
            yield Violation(
                "lost-refusal", f"key {key}: {codes[0]} was answered, and has no outcome"
            )


def doubled(evidence: Evidence) -> Iterator[Violation]:
    """A key has one transfer, a transfer one key, and none without a key is a copy of another."""
    for key, ids in evidence.owned.items():
        if len(ids) > 1:
            yield Violation(DOUBLED_TRANSFER, f"key {key} has the transfers {', '.join(ids)}")
    for id, keys in evidence.owners.items():
        if len(keys) > 1:
            text = f"transfer {id} belongs to the keys {', '.join(keys)}"
            yield Violation(DOUBLED_TRANSFER, text)
    explained = {_pairing(row): id for id, row in evidence.rows.items() if id in evidence.owners}
    for id, row in evidence.rows.items():
        if id not in evidence.owners and _pairing(row) in explained:
            text = f"transfer {id} has the values of {explained[_pairing(row)]}, and no key"
            yield Violation(DOUBLED_TRANSFER, text)


def invented(evidence: Evidence) -> Iterator[Violation]:
    """A key has no transfer if all its answers mean that nothing was executed."""
    for case, row in evidence.applied:
        if case.nothing_happened:
            statuses = ", ".join(str(each.status) for each in case.tries) or "nothing"
            text = f"key {case.key} got {statuses}, but has transfer {row.id}"
            yield Violation(INVENTED_TRANSFER, text)


def refused_but_applied(evidence: Evidence) -> Iterator[Violation]:
    """A refused key has no transfer.

    Neither has a key whose tries were all turned away, at least one of them with a 4xx
    other than 429.
    """
    for key, case in evidence.cases.items():
        status, stored = evidence.ledger.outcomes.get(key, (0, None))
        is_applied = stored is not None or 200 <= status < 300
        if not case.transfers and _was_refused(case) and is_applied:
            yield Violation("refused-but-applied", f"key {key} was refused, but has {stored}")


def applied_but_refused(evidence: Evidence) -> Iterator[Violation]:
    """A key with a success has no refusal, neither in an answer nor stored."""
    for key, case in evidence.cases.items():
        if case.success is None:
            continue
        status, _ = evidence.ledger.outcomes.get(key, (201, None))
        if case.refusal is not None:
            refusal = f"{case.refusal.status} {case.refusal.code}"
            yield Violation("applied-but-refused", f"key {key} got success and {refusal}")
        elif not 200 <= status < 300:
            yield Violation("applied-but-refused", f"key {key} got success, stored is {status}")


def changed_replay(evidence: Evidence) -> Iterator[Violation]:
    """Every final answer to one key has the same status and the same bytes."""
    for key, case in evidence.cases.items():
        # An answer that is not stored is rendered again with another request id: compare its code.
        finals = dict.fromkeys(
            (each.status, each.body if each.is_stored else each.code.encode())
            for each in case.tries
            if each.meaning in (Meaning.APPLIED, Meaning.REFUSED)
        )
        first = next(iter(finals), None)
        for other in finals:
            if first is not None and (change := change_of(first, other)) is not None:
                yield Violation(CHANGED_REPLAY, f"key {key}: {change}")


def unmarked_replay(evidence: Evidence) -> Iterator[Violation]:
    """At most one stored answer to a key is not marked as a replay."""
    for key, case in evidence.cases.items():
        firsts = [each for each in case.tries if each.is_stored and not each.replayed]
        if len(firsts) > 1:
            yield Violation("unmarked-replay", f"key {key}: {len(firsts)} answers are no replay")


def unsettled(evidence: Evidence) -> Iterator[Violation]:
    """The last try of a key is neither open nor a 5xx.

    A key with an open try has a final answer as well.
    """
    for key, case in evidence.cases.items():
        if not case.tries:
            continue
        last = case.tries[-1]
        is_unknown = case.meanings[-1] is Meaning.OPEN or last.status >= 500
        if is_unknown or (Meaning.OPEN in case.meanings and not case.is_settled):
            yield Violation("unsettled", f"key {key} last got {last.status} {last.code}")


def wrong_answer(evidence: Evidence) -> Iterator[Violation]:
    """A success agrees with the request and the ledger, and a refusal with the outcome."""
    for key, case in evidence.cases.items():
        for each in case.tries:
            status, _ = evidence.ledger.outcomes.get(key, (each.status, None))
            expected = 201 if case.asked.kind is Kind.HOLD or case.asked.moves_money else 200
            if each.meaning is Meaning.APPLIED and each.status != expected:
                yield Violation(WRONG_ANSWER, f"key {key} got {each.status}, not {expected}")
            if each.code in DECIDED and status >= 400 and status != each.status:
                yield Violation(WRONG_ANSWER, f"key {key}: got {each.status}, stored is {status}")
        for body in case.bodies:
            asked, kind = _asked(case), case.asked.kind.value
            complaint = transfer_complaint(asked, body or {}, kind, balance_min=None)
            if complaint is not None:
                yield Violation(WRONG_ANSWER, f"key {key}: {complaint}")
    for case, row in evidence.applied:
        if not _asked(case).items() <= _asked_of(row).items():
            text = f"key {case.key}: {row.id} is {_asked_of(row)}, requested {_asked(case)}"
            yield Violation(WRONG_ANSWER, text)


def wrong_reversal(evidence: Evidence) -> Iterator[Violation]:
    """A reversal returns money to its source, and never more than the transfer."""
    reversed_by_original: Counter[str] = Counter()
    for row in evidence.ledger.transfers:
        original = evidence.rows.get(row.reverses) if row.reverses is not None else None
        # The record does not contain originals of earlier rounds.
        if original is None:
            continue
        reversed_by_original[original.id] += row.amount
        is_back = (row.source, row.destination) == (original.destination, original.source)
        if original.reverses is not None or not is_back:
            yield Violation(WRONG_ANSWER, f"transfer {row.id} is not a reversal of {original.id}")
    for id, amount in reversed_by_original.items():
        if amount > evidence.rows[id].amount:
            left = evidence.rows[id].amount
            yield Violation(WRONG_ANSWER, f"{amount} of the {left} of transfer {id} are reversed")


def _asked(case: Case) -> dict[str, object]:
    """The members that an answer to the request must have."""
    asked = case.asked
    members: dict[str, object] = {
        "source_wallet_id": asked.source,
        "destination_wallet_id": asked.destination,
        "amount": asked.amount,
        "reverses_transfer_id": asked.original if asked.kind is Kind.REVERSAL else None,
        "hold_id": asked.hold if asked.kind is Kind.CAPTURE else None,
    }
    if asked.kind is Kind.CAPTURE and not asked.amount:
        # All that is left: the rules for holds compare it with the hold.
        del members["amount"]
    return members


def _asked_of(row: TransferRow) -> dict[str, object]:
    return {
        "source_wallet_id": row.source,
        "destination_wallet_id": row.destination,
        "amount": row.amount,
        "reverses_transfer_id": row.reverses,
        "hold_id": row.hold,
    }


def _pairing(row: TransferRow) -> tuple[object, ...]:
    return tuple(_asked_of(row).values())


def _was_refused(case: Case) -> bool:
    if case.refusal is not None:
        return True
    statuses = (each.status for each in case.tries)
    return case.nothing_happened and any(400 <= each < 500 and each != 429 for each in statuses)
