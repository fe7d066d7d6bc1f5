"""Rules for answers about the past: they agree with the ledger and with each other."""

from bisect import bisect_left
from collections.abc import Iterator

from loadtest.proof.answers import JsonObject, json_object
from loadtest.proof.evidence import Evidence
from loadtest.proof.record import Entry, Kind, Operation
from loadtest.proof.violations import Violation

# Version, amount and balance after it.
Line = tuple[int, int, int]


def decreasing_time(evidence: Evidence) -> Iterator[Violation]:
    """A later version of a wallet never has an earlier time."""
    for wallet, entries in evidence.entries.items():
        latest_us = 0
        for version in sorted(entries):
            for entry in entries[version]:
                if entry.at_us < latest_us:
                    text = f"version {version} has {entry.at_us} us, after {latest_us} us"
                    yield Violation("decreasing-time", f"wallet {wallet}: {text}")
                latest_us = max(latest_us, entry.at_us)


def changed_past(evidence: Evidence) -> Iterator[Violation]:
    """The answer for an instant has the last version whose time is before the instant."""
    for asked, body in _answers(evidence, Kind.INSTANT):
        earlier = _between(evidence, asked.wallet, 0, asked.until_us)
        before = evidence.before(asked.wallet).version
        version = max((entry.version for entry in earlier), default=before)
        found_version, found = body.get("version"), body.get("balance")
        balance = evidence.balance_at(asked.wallet, version)
        if found_version != version or (balance is not None and found != balance):
            text = f"answered version {found_version} with {found}, it is {version} with {balance}"
            yield Violation("changed-past", f"wallet {asked.wallet}, {asked.until_us} us: {text}")


def changed_held(evidence: Evidence) -> Iterator[Violation]:
    """The answer for an instant holds what the active holds reserve that expire after it."""
    for asked, body in _answers(evidence, Kind.INSTANT):
        version = body.get("version")
        if not isinstance(version, int):
            continue
        due = (
            hold.remaining
            for hold in evidence.active_at(asked.wallet, version)
            if hold.expires_us <= asked.until_us
        )
        held = evidence.held_at(asked.wallet, version) - sum(due)
        if body.get("held") != held:
            text = f"answered held {body.get('held')} at version {version}, it is {held}"
            yield Violation("changed-past", f"wallet {asked.wallet}, {asked.until_us} us: {text}")


def other_answer(evidence: Evidence) -> Iterator[Violation]:
    """The same question about the past always has the same answer."""
    answers: dict[tuple[Kind, str, int, int], JsonObject] = {}
    for kind in (Kind.INSTANT, Kind.WINDOW):
        for asked, body in _answers(evidence, kind):
            question = (kind, asked.wallet, asked.since_us, asked.until_us)
            if answers.setdefault(question, body) != body:
                text = f"wallet {asked.wallet}, {asked.until_us} us: two different answers"
                yield Violation("changed-past", text)


def wrong_window(evidence: Evidence) -> Iterator[Violation]:
    """A window has each entry of its time range once, newest first."""
    for asked, body in _answers(evidence, Kind.WINDOW):
        inside = _between(evidence, asked.wallet, asked.since_us, asked.until_us)
        expected = sorted(map(_line, inside), reverse=True)
        answered = _lines(body)
        if answered != expected:
            lost = sorted({line[0] for line in expected} - {line[0] for line in answered})
            text = f"{asked.since_us} to {asked.until_us} us: versions {lost} are missing"
            yield Violation(
                "wrong-window", f"wallet {asked.wallet}, {text}, the answer has {len(answered)}"
            )


def uneven_window(evidence: Evidence) -> Iterator[Violation]:
    """The opening balance of a window plus its entries is the closing balance."""
    balances = {
        (asked.wallet, asked.until_us): body.get("balance")
        for asked, body in _answers(evidence, Kind.INSTANT)
    }
    for asked, body in _answers(evidence, Kind.WINDOW):
        opening = balances.get((asked.wallet, asked.since_us))
        closing = balances.get((asked.wallet, asked.until_us))
        moved = sum(line[1] for line in _lines(body))
        if opening is not None and closing is not None and opening + moved != closing:
            text = f"{opening} plus {moved} is not {closing}"
            yield Violation("wrong-window", f"wallet {asked.wallet}, {asked.until_us} us: {text}")


def _answers(evidence: Evidence, kind: Kind) -> Iterator[tuple[Operation, JsonObject]]:
    for asked in evidence.past:
        for each in asked.tries:
            if asked.kind is kind and each.status == 200:
                yield asked, json_object(each.body) or {}


def _between(evidence: Evidence, wallet: str, since_us: int, until_us: int) -> list[Entry]:
    in_time = evidence.in_time.get(wallet, [])
    first, end = (
        bisect_left(in_time, instant_us, key=lambda entry: entry.at_us)
        for instant_us in (since_us, until_us)
    )
    return in_time[first:end]


def _line(entry: Entry) -> Line:
    return entry.version, entry.amount_minor, entry.balance_after_minor


def _lines(body: JsonObject) -> list[Line]:
    return [(e["version"], e["amount"], e["balance_after"]) for e in body.get("data", ())]
