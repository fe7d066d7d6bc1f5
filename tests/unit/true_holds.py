"""True records of holds: statements, holds and answers as a load test has them after a run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import orjson

from loadtest.proof.bounded import StatementCheck
from loadtest.proof.history import History, Request
from loadtest.proof.hold_record import (
    ADJUST,
    CAPTURE,
    CAPTURE_TRANSFER,
    CREATE,
    EXPIRE,
    RELEASE,
    HoldsRead,
    ShownHold,
)
from loadtest.proof.record import Entry, State
from loadtest.proof.violations import Violation
from tests.unit.true_rounds import t

ADA, BOB = "ada", "bob"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STEP_US = 1_000_000
LONG_US = 10**12


def h(number: int) -> str:
    """The id of a hold by its number, which begins at 0 in a record."""
    return f"{number:08}-0000-7000-8000-00000000000a"


def text_of(time_us: int) -> str:
    """A time as the API shows it."""
    return (_EPOCH + timedelta(microseconds=time_us)).isoformat()


@dataclass(frozen=True)
class Made:
    """A hold of Ada's wallet."""

    id: str
    amount: int
    expires_us: int
    captured: int = 0
    released: int = 0
    status: str = "active"

    @property
    def remaining(self) -> int:
        return self.amount - self.captured - self.released

    @property
    def state(self) -> ShownHold:
        """As GET shows it."""
        amounts = (self.amount, self.captured, self.released, self.remaining)
        return ShownHold(self.id, ADA, *amounts, self.status, self.expires_us)


class HoldRecord:
    """Ada pays Bob from holds. Each change has its own second.

    The attributes are there to plant faults; `statements` are oldest first.
    """

    def __init__(self) -> None:
        self.start = {ADA: State(10_000, 7), BOB: State(0, 2)}
        self.final = dict(self.start)
        self.statements: dict[str, list[Entry]] = {ADA: [], BOB: []}
        self.made: dict[str, Made] = {}
        self.history = History({ADA: 0, BOB: 1})
        self.known: dict[str, ShownHold | None] = {}
        self.active: list[ShownHold] = []
        self.executed: set[str] = set()
        self.now_us = 10**15
        self._transfers = 0

    def create(self, amount: int, lasts_us: int = LONG_US) -> str:
        """A new hold; returns its id."""
        hold = Made(h(len(self.made)), amount, self.now_us + _STEP_US + lasts_us)
        self._change(CREATE, hold)
        self._told("/holds", hold)
        return hold.id

    def adjust(self, id: str, amount: int) -> None:
        hold = replace(self.made[id], amount=amount)
        self._change(ADJUST, hold)
        self._told(f"/holds/{id}/adjust", hold)

    def release(self, id: str) -> None:
        hold = self._ended(id, "released")
        self._change(RELEASE, hold)
        self._told(f"/holds/{id}/release", hold)

    def expire(self, id: str) -> None:
        """The service writes the expiry of a hold."""
        self.now_us = max(self.now_us, self.made[id].expires_us)
        self._change(EXPIRE, self._ended(id, "expired"))

    def capture(self, id: str, amount: int, *, final: bool = False) -> None:
        hold = replace(self.made[id], captured=self.made[id].captured + amount)
        if final:
            hold = replace(hold, status="captured", released=hold.released + hold.remaining)
        self._change(CAPTURE, hold)
        self._told(f"/holds/{id}/capture", self.pay(amount, CAPTURE_TRANSFER, id), final=final)

    def pay(self, amount: int, kind: str = "transfer", hold: str | None = None) -> dict[str, Any]:
        """A transfer from Ada to Bob; returns the answer."""
        id = t(self._transfers)
        self._transfers += 1
        source = self._post(ADA, kind, hold, id, -amount)
        self._post(BOB, kind, hold, id, amount)
        answer = {
            "id": id,
            "kind": kind,
            "source_wallet_id": ADA,
            "destination_wallet_id": BOB,
            "amount": amount,
            "source_version": source.version,
            "source_balance_after": source.balance_after_minor,
            "created_at": text_of(self.now_us),
        }
        if hold is None:
            self.history.transferred(answer)
        return answer

    def violations(self, *, keep: bool = True) -> list[Violation]:
        """As the audit finds them. keep: whether the answers were kept."""
        check = StatementCheck(self.history if keep else None)
        holds = HoldsRead(self.known, self.active)
        check.wallet(ADA, self.start[ADA], self.final[ADA], self.statements[ADA], holds=holds)
        check.wallet(BOB, self.start[BOB], self.final[BOB], self.statements[BOB])
        return check.finish(self.executed)

    def kinds(self, *, keep: bool = True) -> set[str]:
        return {violation.kind for violation in self.violations(keep=keep)}

    def _ended(self, id: str, status: str) -> Made:
        hold = self.made[id]
        return replace(hold, status=status, released=hold.released + hold.remaining)

    def _change(self, kind: str, hold: Made) -> None:
        self.now_us += _STEP_US
        self.made[hold.id] = hold
        self.known = {id: each.state for id, each in self.made.items()}
        self.active = [each.state for each in self.made.values() if each.status == "active"]
        held = sum(each.remaining for each in self.made.values())
        self.final[ADA] = self.final[ADA]._replace(held_minor=held)
        self._post(ADA, kind, hold.id, None, 0)

    def _post(
        self, wallet: str, kind: str, hold: str | None, transfer: str | None, amount: int
    ) -> Entry:
        last = self.final[wallet]
        now = State(last.balance_minor + amount, last.version + 1, last.held_minor)
        self.final[wallet] = now
        entry = Entry(
            transfer,
            now.version,
            amount,
            now.balance_minor,
            self.now_us,
            kind,
            hold,
            now.held_minor,
        )
        self.statements[wallet].append(entry)
        return entry

    def _told(self, path: str, answer: Made | dict[str, Any], **asked: object) -> None:
        body = view_of(answer, self.now_us) if isinstance(answer, Made) else answer
        self.history.succeeded(Request(path, "", orjson.dumps(asked)), body)


def view_of(hold: Made, now_us: int) -> dict[str, Any]:
    """The answer about a hold that has just changed."""
    return {
        "id": hold.id,
        "source_wallet_id": ADA,
        "amount": hold.amount,
        "captured": hold.captured,
        "released": hold.released,
        "remaining": hold.remaining,
        "status": hold.status,
        "expires_at": text_of(hold.expires_us),
        "updated_at": text_of(now_us),
    }


def true_holds() -> HoldRecord:
    """h0 is captured twice, h1 released, h2 expired, h3 active, h4 active with nothing left."""
    record = HoldRecord()
    both, given_back = record.create(100), record.create(40)
    record.capture(both, 30)
    short = record.create(20, lasts_us=5 * _STEP_US)
    record.pay(7)
    record.adjust(both, 150)
    record.release(given_back)
    record.expire(short)
    record.capture(both, 50, final=True)
    left = record.create(60)
    record.capture(left, 10)
    record.capture(record.create(5), 5)
    return record


def random_holds(random: Random, *, operations: int) -> HoldRecord:
    """Holds that are captured, adjusted, released and expired in any order."""
    record = HoldRecord()
    acts: Sequence[Callable[[HoldRecord, Random, Made], None]] = (
        lambda r, x, hold: r.adjust(hold.id, x.randint(max(1, hold.captured), 300)),
        lambda r, x, hold: r.release(hold.id),
        _capture,
        _capture,
        _expire,
    )
    for _ in range(operations):
        active = [hold for hold in record.made.values() if hold.status == "active"]
        if not active or random.random() < 0.3:
            record.create(random.randint(1, 200), random.choice((50 * _STEP_US, LONG_US)))
        elif random.random() < 0.1:
            record.pay(random.randint(1, 9))
        else:
            hold = random.choice(active)
            if hold.expires_us <= record.now_us + _STEP_US:
                record.expire(hold.id)
            else:
                random.choice(acts)(record, random, hold)
    return record


def _capture(record: HoldRecord, random: Random, hold: Made) -> None:
    if hold.remaining:
        amount = random.randint(1, hold.remaining)
        record.capture(hold.id, amount, final=random.random() < 0.4)


def _expire(record: HoldRecord, random: Random, hold: Made) -> None:
    # All other short holds are due then as well.
    if hold.expires_us < record.now_us + LONG_US // 2:
        due = [each for each in record.made.values() if each.expires_us <= hold.expires_us]
        for each in due:
            if each.status == "active":
                record.expire(each.id)
