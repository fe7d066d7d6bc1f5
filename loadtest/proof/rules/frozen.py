"""Rules for frozen wallets: they receive, and they neither pay nor reserve more money.

The client never freezes a frozen wallet, so each freeze is a change.
"""

from collections import Counter
from collections.abc import Iterator

from loadtest.proof.answers import json_object
from loadtest.proof.evidence import Case, Evidence
from loadtest.proof.record import ChangeRow, Kind
from loadtest.proof.violations import WRONG_ANSWER, Violation

_STATUSES = {"freeze": "frozen", "unfreeze": "active"}


def unmatched_status(evidence: Evidence) -> Iterator[Violation]:
    """Each acknowledged freeze and unfreeze is in the ledger once, and the reverse."""
    rows = {
        (row.wallet, row.version, row.kind): 0
        for changes in evidence.changes.values()
        for row in changes
        if row.kind in _STATUSES
    }
    answered: Counter[tuple[str, int, str]] = Counter()
    for case in _cases(evidence):
        if case.success is None:
            continue
        kind, body = case.asked.kind.value, json_object(case.success.body) or {}
        if (body.get("id"), body.get("status")) != (case.asked.wallet, _STATUSES[kind]):
            yield Violation(WRONG_ANSWER, f"key {case.key}, {kind}: answered {body}")
        answered[case.asked.wallet, body.get("version", -1), kind] += 1
    for wallet, version, kind in answered.keys() | rows.keys():
        count = answered[wallet, version, kind]
        text = f"wallet {wallet}, version {version}: {kind}"
        if (wallet, version, kind) not in rows:
            yield Violation("lost-status-change", f"{text} was acknowledged, is not in the ledger")
        elif count != 1:
            what = "doubled" if count else "invented"
            yield Violation(f"{what}-status-change", f"{text} has {count} acknowledged keys")


def moved_while_frozen(evidence: Evidence) -> Iterator[Violation]:
    """A frozen wallet pays nothing, and what its holds reserve does not grow."""
    paid = {(row.source, row.source_version): row.id for row in evidence.ledger.transfers}
    for wallet, rows in evidence.changes.items():
        changes = {row.version: row for row in rows}
        amounts: dict[str, int] = {}
        is_frozen = False
        for entry in evidence.statement(wallet):
            row = changes.get(entry.version)
            if row is None:
                what = paid.get((wallet, entry.version), "")
            elif row.kind in _STATUSES:
                is_frozen, what = row.kind == "freeze", ""
            else:
                what = _grown(row, amounts)
            if is_frozen and what:
                text = f"{what} at version {entry.version}, while it was frozen"
                yield Violation("moved-while-frozen", f"wallet {wallet}: {text}")


def unexplained_frozen(evidence: Evidence) -> Iterator[Violation]:
    """A wallet that was refused as frozen was frozen at some time during the request."""
    # By wallet: when it may have been frozen for the first time, and until when at the latest.
    frozen: dict[str, list[tuple[float, float]]] = {}
    cases = sorted(_cases(evidence), key=lambda case: case.began_s)
    for case in cases:
        spans = frozen.setdefault(case.asked.wallet, [])
        if case.asked.kind is Kind.FREEZE:
            spans.append((case.began_s, float("inf")))
        elif spans and case.success is not None:
            spans[-1] = (spans[-1][0], case.success.ended_s)
    for case in evidence.cases.values():
        refusal = case.refusal
        if refusal is None or refusal.code != "wallet-frozen":
            continue
        wallet = case.asked.source
        if not any(
            began_s < refusal.ended_s and case.began_s < ended_s
            for began_s, ended_s in frozen.get(wallet, ())
        ):
            text = f"wallet {wallet} was not frozen then"
            yield Violation("unexplained-refusal", f"key {case.key} got wallet-frozen, but {text}")


def _cases(evidence: Evidence) -> Iterator[Case]:
    return (each for each in evidence.cases.values() if each.asked.sets_status)


def _grown(row: ChangeRow, amounts: dict[str, int]) -> str:
    """The kind of a change that a frozen wallet must not have. Notes the amount of the hold."""
    if row.hold is None:
        return ""
    before = amounts.get(row.hold.hold, 0)
    amounts[row.hold.hold] = row.hold.amount
    is_growth = row.kind == "hold_capture" or row.hold.amount > before
    return f"{row.kind} of hold {row.hold.hold}" if is_growth else ""
