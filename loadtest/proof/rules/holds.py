"""Rules for holds: each change is written once, each hold ends once, and sums agree."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise

from loadtest.proof.answers import micros_of
from loadtest.proof.evidence import CHANGE_KINDS, Case, Evidence
from loadtest.proof.record import ChangeRow, HoldState, Kind, TransferRow
from loadtest.proof.violations import WRONG_ANSWER, Violation

# The status after a change; the status after a capture depends on the request.
_STATUSES = {
    "hold_create": ("active",),
    "hold_adjust": ("active",),
    "hold_capture": ("active", "captured"),
    "hold_release": ("released",),
    "hold_expire": ("expired",),
}


def unmatched_change(evidence: Evidence) -> Iterator[Violation]:
    """Each acknowledged change of a hold is in the ledger once, and the reverse."""
    owners: Counter[str] = Counter()
    for case in evidence.cases.values():
        if not case.asked.changes_hold or case.success is None:
            continue
        rows = evidence.changes_of(case)
        owners.update(row.event_id for row in rows)
        if not rows:
            text = f"key {case.key}: a {case.asked.kind.value} was acknowledged"
            yield Violation("lost-hold-change", f"{text}, and is not in the ledger")
        if len(rows) > 1:
            ids = ", ".join(row.event_id for row in rows)
            yield Violation("doubled-hold-change", f"key {case.key} has the changes {ids}")
    for row in _changes(evidence):
        count = owners[row.event_id]
        if row.kind in CHANGE_KINDS.values() and count != 1:
            kind = "doubled-hold-change" if count else "invented-hold-change"
            yield Violation(kind, f"{row.kind} {row.event_id} has {count} acknowledged keys")


def wrong_hold_answer(evidence: Evidence) -> Iterator[Violation]:
    """A hold in an answer agrees with the request and with the ledger."""
    for case, row in evidence.changed:
        for body in case.holds:
            told = _told(body or {})
            for name, value in {**_written(evidence, row), **_asked(case, row)}.items():
                if told.get(name) != value:
                    text = f"{name} is {told.get(name)!r}, not {value!r}"
                    yield Violation(WRONG_ANSWER, f"key {case.key}, {row.event_id}: {text}")


def wrong_hold(evidence: Evidence) -> Iterator[Violation]:
    """amount = captured + released + remaining, and captured is the sum of the captures.

    An active hold has released nothing, and an ended one has nothing left. The hold is as its last
    change left it.
    """
    captured: Counter[str] = Counter()
    for transfer in evidence.ledger.transfers:
        if transfer.hold is not None:
            captured[transfer.hold] += transfer.amount
    for id in evidence.lives.keys() | captured.keys():
        hold, life = evidence.holds.get(id), evidence.lives.get(id, ())
        if hold is None or not life:
            yield Violation("wrong-hold", f"hold {id} is not in the ledger, or has no changes")
            continue
        if hold.state != life[-1].hold:
            text = f"hold {id} is {hold.state}, after its last change it was {life[-1].hold}"
            yield Violation("wrong-hold", text)
        if hold.state.captured != captured[id]:
            text = f"captured {hold.state.captured}, its transfers have {captured[id]}"
            yield Violation("wrong-hold", f"hold {id}: {text}")
        for row in life:
            if not _adds_up(row):
                yield Violation("wrong-hold", f"hold {id}, {row.kind} {row.event_id}: {row.hold}")


def wrong_step(evidence: Evidence) -> Iterator[Violation]:
    """A hold begins with its creation, only a capture captures, and it expires when it is due."""
    for id, life in evidence.lives.items():
        for number, row in enumerate(life):
            if (row.kind == "hold_create") != (number == 0):
                yield Violation("wrong-hold", f"hold {id}: change {number} is {row.kind}")
        for before, after in _steps(life):
            first, second = before[1], after[1]
            is_due = after[0].at_us >= first.expires_us
            has_captured = second.captured > first.captured
            is_kept = second.captured == first.captured
            if not (has_captured if after[0].kind == "hold_capture" else is_kept):
                text = f"{after[0].kind} changed captured to {second.captured}"
                yield Violation("wrong-hold", f"hold {id}: {text}")
            if after[0].kind == "hold_expire" and not is_due:
                yield Violation("wrong-hold", f"hold {id} expired before {first.expires_us} us")


def late_change(evidence: Evidence) -> Iterator[Violation]:
    """From its expiry on a hold is neither captured, adjusted nor released."""
    transfers = _transfers(evidence)
    for id, life in evidence.lives.items():
        for (_, before), (row, _) in _steps(life):
            transfer = transfers.get((row.wallet, row.version + 1))
            at_us = row.at_us
            if row.kind == "hold_capture" and transfer is not None and transfer.hold == id:
                at_us = transfer.at_us
            if row.kind != "hold_expire" and at_us >= before.expires_us:
                text = f"{row.kind} {row.event_id} at {at_us} us, due since {before.expires_us} us"
                yield Violation("late-hold-change", f"hold {id}: {text}")


def ended_twice(evidence: Evidence) -> Iterator[Violation]:
    """A hold ends once, by a final capture, its release or its expiry, and does not change then."""
    for id, life in evidence.lives.items():
        for (before, state), (after, _) in _steps(life):
            if not state.is_active:
                text = f"{after.kind} {after.event_id} follows {before.kind} {before.event_id}"
                yield Violation("hold-ended-twice", f"hold {id}: {text}")


def unpaired_capture(evidence: Evidence) -> Iterator[Violation]:
    """A capture takes two versions: a change of the hold, and the transfer with its amount.

    A final capture ends the hold. A capture without an amount takes all that was left.
    """
    transfers = _transfers(evidence)
    paired: set[str] = set()
    asked = {row.id: case.asked for case, row in evidence.applied}
    for id, life in evidence.lives.items():
        for (_, before), (row, after) in _steps(life):
            if row.kind != "hold_capture":
                continue
            transfer = transfers.get((row.wallet, row.version + 1))
            amount = after.captured - before.captured
            if transfer is None or (transfer.hold, transfer.amount) != (id, amount):
                text = f"{row.event_id} captured {amount}, the next version is {transfer}"
                yield Violation("unpaired-capture", f"hold {id}: {text}")
                continue
            paired.add(transfer.id)
            request = asked.get(transfer.id)
            if request is not None and (
                request.final is after.is_active
                or (not request.amount and amount != before.remaining)
            ):
                text = f"{row.event_id} captured {amount} and left {after}, requested {request}"
                yield Violation(WRONG_ANSWER, f"hold {id}: {text}")
    for transfer in evidence.ledger.transfers:
        if transfer.hold is not None and transfer.id not in paired:
            text = f"transfer {transfer.id} captures hold {transfer.hold}, which did not change"
            yield Violation("unpaired-capture", text)


def wrong_held(evidence: Evidence) -> Iterator[Violation]:
    """What a wallet holds is the sum of what is left of its active holds, and is available."""
    for id, rows in evidence.changes.items():
        wallet = evidence.wallets.get(id)
        before = evidence.ledger.before.get(id)
        left: Counter[str] = Counter()
        held = before.held if before is not None else 0
        for row in rows:
            if row.hold is not None:
                held += row.hold.remaining - left[row.hold.hold]
                left[row.hold.hold] = row.hold.remaining
            if row.held_after != held:
                text = f"holds {row.held_after} at version {row.version}, its holds have {held}"
                yield Violation("wrong-held", f"wallet {id}: {text}")
        if wallet is None:
            continue
        if rows and wallet.held != rows[-1].held_after:
            text = f"holds {wallet.held}, {rows[-1].held_after} after its last change"
            yield Violation("wrong-held", f"wallet {id}: {text}")
        for entry in () if wallet.funding else evidence.statement(id):
            held = evidence.held_at(id, entry.version)
            if entry.balance_after_minor - held < -wallet.overdraft_limit:
                text = f"holds {held} of {entry.balance_after_minor} at version {entry.version}"
                yield Violation("wrong-held", f"wallet {id}: {text}")


def unexplained_hold_refusal(evidence: Evidence) -> Iterator[Violation]:
    """A refusal of a change of a hold has its reason in the life of the hold."""
    for case in evidence.cases.values():
        life = evidence.lives.get(case.asked.hold, ())
        states = [row.hold for row in life if row.hold is not None]
        if case.refusal is None or not states:
            continue
        code, asked, last = case.refusal.code, case.asked, states[-1]
        reasons: Mapping[str, bool] = {
            "hold-expired": last.status == "expired",
            "hold-not-active": last.status in ("captured", "released"),
            "capture-exceeds-hold": any(
                max(asked.amount, 1) > each.remaining for each in states if each.is_active
            ),
            "amount-below-captured": last.captured > asked.amount,
            "hold-not-found": False,
        }
        if not reasons.get(code, True):
            text = f"hold {asked.hold} ends as {last}"
            yield Violation("unexplained-refusal", f"key {case.key} got {code}, but {text}")


Step = tuple[ChangeRow, HoldState]


def _steps(life: Iterable[ChangeRow]) -> Iterator[tuple[Step, Step]]:
    """Each change of a hold with the change before it."""
    return pairwise((row, row.hold) for row in life if row.hold is not None)


def _changes(evidence: Evidence) -> Iterator[ChangeRow]:
    return (row for life in evidence.lives.values() for row in life)


def _transfers(evidence: Evidence) -> Mapping[tuple[str, int], TransferRow]:
    """The transfers by the wallet that pays and its version."""
    return {(row.source, row.source_version): row for row in evidence.ledger.transfers}


def _adds_up(row: ChangeRow) -> bool:
    hold = row.hold
    if hold is None:
        return True
    is_positive = min(hold.captured, hold.released, hold.remaining) >= 0
    is_ended = hold.remaining == 0 if not hold.is_active else hold.released == 0
    return is_positive and is_ended and hold.status in _STATUSES[row.kind]


def _told(body: Mapping[str, object]) -> dict[str, object]:
    """The members of a hold in an answer, with its times in microseconds."""
    times = {name: micros_of(body.get(name)) for name in ("expires_at", "updated_at")}
    return {**body, **times}


def _written(evidence: Evidence, row: ChangeRow) -> dict[str, object]:
    """The members that an answer about the change must have."""
    hold = row.hold
    assert hold is not None
    written = evidence.holds.get(hold.hold)
    return {
        "id": hold.hold,
        "source_wallet_id": row.wallet,
        "destination_wallet_id": None if written is None else written.destination,
        "amount": hold.amount,
        "captured": hold.captured,
        "released": hold.released,
        "remaining": hold.remaining,
        "status": hold.status,
        "expires_at": hold.expires_us,
        "updated_at": row.at_us,
    }


def _asked(case: Case, row: ChangeRow) -> dict[str, object]:
    """The members that the request asked for."""
    asked = case.asked
    match asked.kind:
        case Kind.HOLD:
            return {
                "source_wallet_id": asked.source,
                "destination_wallet_id": asked.destination,
                "amount": asked.amount,
                "expires_at": row.at_us + asked.expires_in_s * 1_000_000,
            }
        case Kind.ADJUST:
            return {"amount": asked.amount, "expires_at": asked.expires_us}
        case _:
            return {}
