"""True rounds with batches, which capture holds as well, and with frozen wallets."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random

import orjson

from loadtest.proof.record import ChangeRow, Kind, Operation
from tests.unit.hold_rounds import HOLD_ACTS, HoldWorld, h
from tests.unit.true_rounds import Act, Round, World, played, settle

_DEBITS = (Kind.TRANSFER, Kind.REVERSAL, Kind.HOLD, Kind.CAPTURE)


@dataclass
class BatchWorld(HoldWorld):
    """A service with batches, and with wallets that can be frozen."""

    frozen: set[str] = field(default_factory=set)

    def asked_batch(self, *items: Operation, atomic: bool = False) -> Operation:
        """A batch of operations that are not requested otherwise."""
        for item in items:
            self.history.remove(item)
        bare = [replace(item, key="") for item in items]
        operation = self.asked("", "", 0)
        operation.kind, operation.items, operation.atomic = Kind.BATCH, bare, atomic
        return operation

    def asked_status(self, wallet: str, kind: Kind) -> Operation:
        """A freeze or an unfreeze that is not requested yet."""
        operation = self.asked("", "", 0)
        operation.kind, operation.wallet = kind, wallet
        return operation

    def _execute(self, operation: Operation) -> None:
        self._expire()
        if operation.kind is Kind.BATCH:
            self._execute_batch(operation)
        elif operation.sets_status:
            self._set_status(operation)
        elif operation.source in self.frozen and self._grows(operation):
            self.refuse(operation, 409, "wallet-frozen")
        else:
            super()._execute(operation)

    def _grows(self, operation: Operation) -> bool:
        """Whether a frozen wallet must refuse it."""
        if not operation.hold:
            return operation.kind in _DEBITS
        state = self.by_id[operation.hold].state
        is_larger = operation.kind is Kind.ADJUST and operation.amount > state.amount
        return state.is_active and (operation.kind is Kind.CAPTURE or is_larger)

    def _execute_batch(self, batch: Operation) -> None:
        before = dict(self.wallets), list(self.rows), list(self.log), dict(self.by_id)
        results = []
        for number, item in enumerate(batch.items):
            single = replace(item, key=f"{batch.key}/{number}", tries=[])
            self._execute(single)
            status, id = self.outcomes.pop(single.key)
            if id is not None:
                results.append(orjson.loads(self._body(id)))
                continue
            refusal = {"status": status, "code": self.others.pop(single.key)[0]}
            if batch.atomic:
                self.wallets, self.rows, self.log, self.by_id = before
                body = {"code": "batch-refused", "index": number, "refusal": refusal}
                self.outcomes[batch.key] = (422, None)
                self.others[batch.key] = "batch-refused", orjson.dumps(body)
                return
            results.append(refusal)
        self.outcomes[batch.key] = (200, None)
        self.others[batch.key] = "", orjson.dumps({"results": results})

    def _set_status(self, operation: Operation) -> None:
        wallet = self.wallets[operation.wallet]
        is_freeze = operation.kind is Kind.FREEZE
        (self.frozen.add if is_freeze else self.frozen.discard)(wallet.id)
        wallet = self.wallets[wallet.id] = replace(wallet, version=wallet.version + 1)
        kind = operation.kind.value
        self.log.append(
            ChangeRow(
                wallet.id, wallet.version, kind, wallet.balance, wallet.held, self.now_us, None
            )
        )
        status = "frozen" if is_freeze else "active"
        body = {"id": wallet.id, "status": status, "version": wallet.version}
        self.outcomes[operation.key] = (200, None)
        self.others[operation.key] = "", orjson.dumps(body)


def batch_round() -> Round:
    """Batches: "mixed" pays, captures h0 and refuses a payment; "whole" is atomic and posts all;
    "none" is atomic and refused. Then Ada's wallet is frozen, with the active hold h2, and what is
    refused for that is named so."""
    world = BatchWorld.with_people("ada", "bob", "cy")
    asked: dict[str, Operation] = {}

    def tell(name: str, operation: Operation) -> None:
        asked[name] = operation
        world.tell(operation)

    for name in ("first", "second", "third"):
        tell(name, world.asked_hold("ada", "bob", 20))
    mixed = world.asked_batch(
        world.asked("bob", "cy", 5),
        world.asked_about(h(0), Kind.CAPTURE, 15, final=False),
        world.asked("cy", "ada", 500),
    )
    tell("mixed", mixed)
    world.tell(mixed)
    captured = world.asked_about(h(0), Kind.CAPTURE), world.asked_about(h(1), Kind.CAPTURE, 7)
    tell("whole", world.asked_batch(*captured, world.asked("cy", "bob", 3), atomic=True))
    over = world.asked("bob", "cy", 1), world.asked_about(h(1), Kind.CAPTURE)
    tell("none", world.asked_batch(*over, atomic=True))
    tell("freeze", world.asked_status("ada", Kind.FREEZE))
    tell("credit", world.asked("bob", "ada", 2))
    tell("frozen capture", world.asked_about(h(2), Kind.CAPTURE, 4, final=False))
    tell("frozen hold", world.asked_hold("ada", "bob", 1))
    tell("smaller", world.asked_about(h(2), Kind.ADJUST, 18))
    frozen = world.asked_batch(
        world.asked_about(h(2), Kind.CAPTURE, 6, final=False), world.asked("bob", "cy", 1)
    )
    tell("frozen batch", frozen)
    tell("unfreeze", world.asked_status("ada", Kind.UNFREEZE))
    tell("thawed", world.asked_about(h(2), Kind.CAPTURE, 8, final=False))
    return replace(world.round(), asked=asked)


def random_batch_round(random: Random, *, operations: int, listening: bool = True) -> Round:
    """As a `random_hold_round`, with batches and frozen wallets."""
    world = BatchWorld.with_people(
        "hot", *"abcdef", each=60, overdraft_limit=random.choice((0, 25))
    )
    return played(world, BATCH_ACTS, random, operations, listening)


def _batch(world: World, random: Random) -> None:
    """Items with different payers and different holds, as the client makes them."""
    assert isinstance(world, BatchWorld)
    payers = random.sample(["hot", *"abc"], random.randint(1, 3))
    items = [world.asked(each, random.choice("def"), random.randint(1, 40)) for each in payers]
    for hold in random.sample(list(world.by_id)[-4:], min(len(world.by_id), random.randint(0, 2))):
        final = random.random() < 0.4
        items.append(world.asked_about(hold, Kind.CAPTURE, random.randint(0, 30), final=final))
    random.shuffle(items)
    settle(world, random, world.asked_batch(*items, atomic=random.random() < 0.5))


def _set_status(world: World, random: Random) -> None:
    assert isinstance(world, BatchWorld)
    wallet = random.choice(["hot", *"abc"])
    kind = Kind.UNFREEZE if wallet in world.frozen else Kind.FREEZE
    # One client does that, and each request has its answer before the next one.
    world.tell(world.asked_status(wallet, kind))


BATCH_ACTS: Sequence[Act] = (*HOLD_ACTS, *[_batch] * 5, *[_set_status] * 3)
