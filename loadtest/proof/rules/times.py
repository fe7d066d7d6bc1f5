"""Rules for order: reads, transfers and refusals reflect all earlier acknowledged transfers."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator

from loadtest.proof.answers import JsonObject, json_object
from loadtest.proof.evidence import Evidence
from loadtest.proof.record import Kind, Operation, Try
from loadtest.proof.violations import STALE_READ, WRONG_ANSWER, Violation

# A wallet, one of its versions, and when it was seen, in seconds on the client's clock.
SeenVersion = tuple[str, int, float]


class SeenVersions:
    """The highest version of each wallet that was seen before a moment."""

    def __init__(self, seen: Iterable[SeenVersion]) -> None:
        self._moments: dict[str, list[float]] = {}
        self._highest: dict[str, list[int]] = {}
        for wallet, version, moment_s in sorted(seen, key=lambda each: each[2]):
            highest = self._highest.setdefault(wallet, [])
            highest.append(max(version, highest[-1]) if highest else version)
            self._moments.setdefault(wallet, []).append(moment_s)

    def before(self, wallet: str, moment_s: float) -> int | None:
        """The highest version that was seen before this moment; None if there is none."""
        count = bisect_left(self._moments.get(wallet, ()), moment_s)
        return self._highest[wallet][count - 1] if count else None


def stale_read(evidence: Evidence) -> Iterator[Violation]:
    """A read is never older than its min_version."""
    for read, _, body in _answered_reads(evidence):
        if read.min_version is not None and body["version"] < read.min_version:
            text = f"wallet {read.wallet}: version {body['version']} for {read.min_version}"
            yield Violation(STALE_READ, text)


def wrong_read(evidence: Evidence) -> Iterator[Violation]:
    """The version of a read exists, and the read has its balance and what it holds.

    Holds that are due are left out, also before that is written. Those that become due during the
    read may be in it.
    """
    for read in evidence.reads:
        for each in read.tries:
            if each.status == 200 and _wallet(each) is None:
                yield Violation(WRONG_ANSWER, f"wallet {read.wallet}: read {each.body[:200]!r}")
    for read, each, body in _answered_reads(evidence):
        wallet, version = evidence.wallets.get(read.wallet), body["version"]
        balance = evidence.balance_at(read.wallet, version)
        if body.get("id") != read.wallet or (wallet is not None and version > wallet.version):
            yield Violation(WRONG_ANSWER, f"wallet {read.wallet}: read {body}")
        elif balance is not None and body.get("balance") != balance:
            text = f"read {body.get('balance')} at version {version}, not {balance}"
            yield Violation(WRONG_ANSWER, f"wallet {read.wallet}: {text}")
        elif body.get("held") not in (possible := _held_at(evidence, each, read.wallet, version)):
            text = f"read held {body.get('held')} at version {version}, not one of {possible}"
            yield Violation(WRONG_ANSWER, f"wallet {read.wallet}: {text}")


def old_read(evidence: Evidence) -> Iterator[Violation]:
    """No read is older than an answer that arrived before the read began."""
    answered = SeenVersions(_answered(evidence))
    for read, each, body in _answered_reads(evidence):
        known = answered.before(read.wallet, each.began_s)
        if read.min_version is None and known is not None and body["version"] < known:
            text = f"wallet {read.wallet}: version {body['version']}, {known} was answered before"
            yield Violation("old-read", text)


def wrong_order(evidence: Evidence) -> Iterator[Violation]:
    """A transfer has later versions than each transfer that was acknowledged before its request.

    This is so in every wallet that both have, as source or destination, and for changes of holds.
    """
    acknowledged = SeenVersions(_acknowledged(evidence))
    for case, what, versions in evidence.ordered:
        for wallet, version in versions.items():
            known = acknowledged.before(wallet, case.began_s)
            # A case without a try has no time. Other rules find it.
            if case.tries and known is not None and version <= known:
                text = f"version {version} was requested after {known} was acknowledged"
                yield Violation("wrong-order", f"wallet {wallet}, {what}: {text}")


def unexplained_refusal(evidence: Evidence) -> Iterator[Violation]:
    """A wallet that was refused for insufficient funds had too little at some version.

    The version lies between the last one that was acknowledged before the first try began and the
    last one that was requested before the refusal arrived. An expiry is not requested, but it only
    makes more available. The money of a hold is available to its capture, which is never refused.
    """
    acknowledged, begun = SeenVersions(_acknowledged(evidence)), SeenVersions(_begun(evidence))
    for case in evidence.cases.values():
        refusal, wallet = case.refusal, evidence.wallets.get(case.asked.source)
        if refusal is None or refusal.code != "insufficient-funds" or wallet is None:
            continue
        before = evidence.before(wallet.id).version
        first = acknowledged.before(wallet.id, case.began_s)
        last = begun.before(wallet.id, refusal.ended_s)
        versions = range(first if first is not None else before, max(last or 0, before) + 1)
        needed = _needed(evidence, case.asked) - wallet.overdraft_limit
        balances = ((each, evidence.balance_at(wallet.id, each)) for each in versions)
        # An unknown version may have had too little.
        if case.asked.kind is Kind.CAPTURE or all(
            balance is not None and balance - evidence.held_at(wallet.id, version) >= needed
            for version, balance in balances
        ):
            text = f"wallet {wallet.id} always had {case.asked.amount}"
            yield Violation("unexplained-refusal", f"key {case.key} was refused, but {text}")


def unexplained_excess(evidence: Evidence) -> Iterator[Violation]:
    """After a reversal-exceeds-transfer the requested reversals exceed their transfer."""
    given_back: dict[str, list[tuple[float, int]]] = {}
    for case, row in evidence.applied:
        if row.reverses is not None:
            given_back.setdefault(row.reverses, []).append((case.began_s, row.amount))
    for case in evidence.cases.values():
        refusal, original = case.refusal, evidence.rows.get(case.asked.original)
        if refusal is None or refusal.code != "reversal-exceeds-transfer" or original is None:
            continue
        others = given_back.get(original.id, ())
        back = sum(amount for began_s, amount in others if began_s < refusal.ended_s)
        if case.asked.amount + back <= original.amount:
            text = f"at most {back} of {original.amount} of transfer {original.id} was reversed"
            yield Violation("unexplained-refusal", f"key {case.key} was refused, but {text}")


def _needed(evidence: Evidence, asked: Operation) -> int:
    """The most money that the request needs. An adjustment needs only the difference."""
    life = evidence.lives.get(asked.hold, ()) if asked.kind is Kind.ADJUST else ()
    return asked.amount - min((row.hold.amount for row in life if row.hold), default=0)


def _held_at(evidence: Evidence, each: Try, wallet: str, version: int) -> list[int]:
    """What a read of this version may show as held."""
    held = evidence.held_at(wallet, version)
    possible = [held]
    for hold in evidence.active_at(wallet, version):
        held -= hold.remaining
        if hold.expires_us <= each.began_us:
            possible = [held]
        elif hold.expires_us <= each.ended_us:
            possible.append(held)
    return possible


def _wallet(each: Try) -> JsonObject | None:
    body = json_object(each.body)
    return body if body is not None and isinstance(body.get("version"), int) else None


def _answered_reads(evidence: Evidence) -> Iterator[tuple[Operation, Try, JsonObject]]:
    for read in evidence.reads:
        for each in read.tries:
            body = _wallet(each) if each.status == 200 else None
            if body is not None:
                yield read, each, body


def _acknowledged(evidence: Evidence) -> Iterator[SeenVersion]:
    for case, _, versions in evidence.ordered:
        if case.success is not None:
            for wallet, version in versions.items():
                yield wallet, version, case.success.ended_s


def _begun(evidence: Evidence) -> Iterator[SeenVersion]:
    for case, _, versions in evidence.ordered:
        for wallet, version in versions.items():
            yield wallet, version, case.began_s


def _answered(evidence: Evidence) -> Iterator[SeenVersion]:
    yield from _acknowledged(evidence)
    for read, each, body in _answered_reads(evidence):
        yield read.wallet, body["version"], each.ended_s
