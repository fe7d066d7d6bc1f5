"""True rounds with holds: a ledger that creates, captures, adjusts, releases and expires them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from random import Random

import orjson

from loadtest.proof.record import ChangeRow, HoldRow, HoldState, Kind, Operation
from tests.unit.true_rounds import ACTS, Act, Round, World, played, settle

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_S = 24 * 3600


def h(number: int) -> str:
    """The id of a hold by its number, which begins at 0 in a round."""
    return f"{number:08}-0000-7000-9000-000000000000"


@dataclass
class HoldWorld(World):
    """A service with holds. Each request first writes the expiries that are due."""

    by_id: dict[str, HoldRow] = field(default_factory=dict)

    def asked_hold(
        self, source: str, destination: str, amount: int, expires_in_s: int = _DAY_S
    ) -> Operation:
        """A new hold that is not requested yet."""
        operation = self.asked(source, destination, amount)
        operation.kind, operation.expires_in_s = Kind.HOLD, expires_in_s
        return operation

    def asked_about(
        self, hold: str, kind: Kind, amount: int = 0, *, final: bool = True
    ) -> Operation:
        """A change of a hold that is not requested yet; an adjustment sets an expiry of its own."""
        row = self.by_id[hold]
        operation = self.asked(row.source, row.destination or "", amount)
        operation.kind, operation.hold, operation.final = kind, hold, final
        if kind is Kind.ADJUST:
            operation.expires_us = self.now_us + _DAY_S * 1_000_000 + len(self.history)
        return operation

    def holds(self) -> list[HoldRow]:
        return list(self.by_id.values())

    def held_at(self, wallet: str, until_us: int) -> int:
        last: dict[str, HoldState] = {}
        for row in self.log:
            is_before = row.at_us < until_us
            if isinstance(row, ChangeRow) and row.hold and row.wallet == wallet and is_before:
                last[row.hold.hold] = row.hold
        return sum(hold.remaining for hold in last.values() if hold.expires_us > until_us)

    def _execute(self, operation: Operation) -> None:
        self._expire()
        if operation.kind is Kind.HOLD:
            self._create(operation)
        elif operation.hold:
            self._change_hold(operation)
        else:
            super()._execute(operation)

    def _expire(self) -> None:
        due = (row for row in self.by_id.values() if row.state.is_active)
        for row in sorted(due, key=lambda row: row.state.expires_us):
            if row.state.expires_us <= self.now_us:
                self._write("hold_expire", row, _ended(row.state, "expired"))

    def _create(self, operation: Operation) -> None:
        if operation.amount > self.available(self.wallets[operation.source]):
            return self.refuse(operation, 422, "insufficient-funds")
        expires_us = self.now_us + operation.expires_in_s * 1_000_000
        id = h(len(self.by_id))
        state = HoldState(id, operation.amount, 0, 0, "active", expires_us)
        row = HoldRow(operation.source, operation.destination, state)
        self._write("hold_create", row, state)
        return self._answer(operation, 201, id)

    def _change_hold(self, operation: Operation) -> None:
        row = self.by_id[operation.hold]
        state, available = row.state, self.available(self.wallets[row.source])
        amount = operation.amount or state.remaining
        if not state.is_active:
            code = "hold-expired" if state.status == "expired" else "hold-not-active"
            self.refuse(operation, 409, code)
        elif operation.kind is Kind.RELEASE:
            self._write("hold_release", row, _ended(state, "released"))
            self._answer(operation, 200, row.id)
        elif operation.kind is Kind.ADJUST and amount < state.captured:
            self.refuse(operation, 422, "amount-below-captured")
        elif operation.kind is Kind.ADJUST and amount - state.amount > available:
            self.refuse(operation, 422, "insufficient-funds")
        elif operation.kind is Kind.ADJUST:
            after = state._replace(amount=amount, expires_us=operation.expires_us)
            self._write("hold_adjust", row, after)
            self._answer(operation, 200, row.id)
        elif not 0 < amount <= state.remaining:
            self.refuse(operation, 422, "capture-exceeds-hold")
        else:
            after = state._replace(captured=state.captured + amount)
            after = _ended(after, "captured") if operation.final else after
            self._write("hold_capture", row, after)
            self._post(operation, amount)

    def _write(self, kind: str, row: HoldRow, after: HoldState) -> None:
        wallet = self.wallets[row.source]
        before = 0 if kind == "hold_create" else row.state.remaining
        held, version = wallet.held + after.remaining - before, wallet.version + 1
        self.wallets[wallet.id] = replace(wallet, held=held, version=version)
        self.by_id[row.id] = replace(row, state=after)
        self.log.append(
            ChangeRow(wallet.id, version, kind, wallet.balance, held, self.now_us, after)
        )

    def _answer(self, operation: Operation, status: int, id: str) -> None:
        row = self.by_id[id]
        body = {
            "id": id,
            "source_wallet_id": row.source,
            "destination_wallet_id": row.destination,
            "amount": row.state.amount,
            "captured": row.state.captured,
            "released": row.state.released,
            "remaining": row.state.remaining,
            "status": row.state.status,
            "expires_at": time_of(row.state.expires_us),
            "updated_at": time_of(self.now_us),
        }
        self.outcomes[operation.key] = (status, None)
        self.others[operation.key] = "", orjson.dumps(body)


def time_of(instant_us: int) -> str:
    """An instant as answers have it."""
    return (_EPOCH + timedelta(microseconds=instant_us)).isoformat()


def hold_round() -> Round:
    """Ada's h0 is captured twice, h1 is released, and h4 captured whole. Bob's h2 expires, and a
    read and an answer about the past leave it out before that is written. Cy's h3 stays active."""
    world = HoldWorld.with_people("ada", "bob", "cy")
    asked: dict[str, Operation] = {}

    def tell(name: str, operation: Operation) -> None:
        asked[name] = operation
        world.tell(operation)

    tell("created", world.asked_hold("ada", "bob", 60))
    world.tell(asked["created"])
    tell("part", world.asked_about(h(0), Kind.CAPTURE, 25, final=False))
    tell("adjusted", world.asked_about(h(0), Kind.ADJUST, 50))
    tell("below", world.asked_about(h(0), Kind.ADJUST, 24))
    tell("last", world.asked_about(h(0), Kind.CAPTURE, 10))
    tell("over", world.asked_about(h(0), Kind.RELEASE))
    tell("second", world.asked_hold("ada", "cy", 30))
    tell("released", world.asked_about(h(1), Kind.RELEASE))
    tell("short", world.asked_hold("bob", "cy", 20, 15))
    tell("excess", world.asked_about(h(2), Kind.CAPTURE, 21))
    asked["due read"] = world.read("bob")
    asked["due past"] = world.look_back("bob", world.now_us)
    tell("due", world.asked_about(h(2), Kind.CAPTURE))
    unheard = world.asked_hold("cy", "ada", 40)
    cut = replace(world.answer(unheard), status=0, body=b"")
    world.heard(unheard, cut, early_s=1, late_s=1)
    tell("unheard", unheard)
    tell("poor", world.asked("cy", "bob", 61))
    tell("poor hold", world.asked_hold("cy", "bob", 61))
    tell("third", world.asked_hold("ada", "bob", 10))
    tell("whole", world.asked_about(h(4), Kind.CAPTURE))
    asked["read"] = world.read("cy")
    return replace(world.round(), asked=asked)


def random_hold_round(random: Random, *, operations: int, listening: bool = True) -> Round:
    """As a `random_round`, with holds."""
    world = HoldWorld.with_people("hot", *"abcdef", each=60, overdraft_limit=random.choice((0, 25)))
    return played(world, HOLD_ACTS, random, operations, listening)


def _create(world: World, random: Random) -> None:
    assert isinstance(world, HoldWorld)
    source, destination = random.sample(["hot", *"abc"], 2)
    expires_in_s = random.choice((15, 60, _DAY_S))
    amount = random.randint(1, 70)
    settle(world, random, world.asked_hold(source, destination, amount, expires_in_s))


def _change(world: World, random: Random) -> None:
    assert isinstance(world, HoldWorld)
    if world.by_id:
        hold = random.choice(list(world.by_id)[-4:])
        kind = random.choice((Kind.CAPTURE, Kind.CAPTURE, Kind.ADJUST, Kind.RELEASE))
        amount = random.randint(0 if kind is Kind.CAPTURE else 1, 60)
        amount = 0 if kind is Kind.RELEASE else amount
        final = kind is not Kind.CAPTURE or random.random() < 0.4
        settle(world, random, world.asked_about(hold, kind, amount, final=final))


HOLD_ACTS: Sequence[Act] = (*ACTS, *[_create] * 4, *[_change] * 6)


def _ended(state: HoldState, status: str) -> HoldState:
    return state._replace(status=status, released=state.released + state.remaining)
