"""The machine of `LedgerMachine`, with random requests about holds and a clock that it moves."""

from copy import deepcopy
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from hypothesis import strategies as st
from hypothesis.stateful import multiple, precondition, rule

from tests.support.api import Reply
from tests.support.contract import time_of
from tests.support.ledger_machine import CURRENCIES, STRANGER, LedgerMachine
from tests.support.ledger_model import Item, apply, body_of
from tests.support.model_state import Capture, Hold, Refusal, Transfer, Wallet
from tests.support.past import text_of

# Each step of the model's clock moves the clock of the database so far. Holds expire between two
# steps, far from both: an example may take minutes.
STEP = timedelta(seconds=600)
TOO_FAR = 100_000
# A hold by its place; see `hold_number`.
NUMBERS = st.integers(0, 99)
LATER = st.sampled_from([-1, 0, 0, 1, TOO_FAR])
AMOUNTS = st.none() | st.integers(1, 300)


class HoldMachine(LedgerMachine):
    """One example: as in `LedgerMachine`, and holds of its wallets. Each wallet begins with one."""

    def __init__(self) -> None:
        super().__init__()
        # Instants of the database, and the wallets as they were then.
        self.marks: list[tuple[datetime, dict[str, dict[str, Any]]]] = []

    # Create

    def open_wallet(self, currency: str, initial: int, limit: int) -> str:
        id = super().open_wallet(currency, initial, limit)
        peers = self.peers_of(id)
        self.make_hold(id, peers[0] if peers else None, max(1, initial // 2), 1)
        return id

    @rule(
        source=LedgerMachine.wallets,
        peer=st.none() | st.integers(0, 9),
        amount=st.integers(1, 300),
        steps=st.sampled_from([1, 1, 2, 9]),
    )
    def reserve(self, source: str, peer: int | None, amount: int, steps: int) -> None:
        destination = None if peer is None else self.peer_of(source, peer)
        self.make_hold(source, destination, amount, steps)

    @rule(source=LedgerMachine.wallets, too_much=st.booleans())
    def reserve_everything(self, source: str, too_much: bool) -> None:
        available = self.model.wallets[source].available
        self.make_hold(source, None, max(1, available + too_much), 1)

    @rule(
        source=LedgerMachine.wallets | st.just(STRANGER),
        destination=LedgerMachine.wallets | st.just(STRANGER),
        currency=st.sampled_from(CURRENCIES),
        is_dry_run=st.booleans(),
        change=st.sampled_from(["capture", "release", "adjust"]),
    )
    def go_astray(
        self, source: str, destination: str, currency: str, is_dry_run: bool, change: str
    ) -> None:
        self.make_hold(source, destination, 1, 1, currency=currency, is_dry_run=is_dry_run)
        reply = self.post(
            f"/holds/{STRANGER}/{change}", {"amount": 1} if change == "adjust" else {}
        )
        assert (reply.status, reply.code) == (404, "hold-not-found")

    def make_hold(
        self,
        source: str,
        destination: str | None,
        amount: int,
        steps: int,
        *,
        currency: str | None = None,
        is_dry_run: bool = False,
    ) -> None:
        payer = self.model.wallets.get(source)
        code = currency or (payer.currency if payer else "USD")
        seconds = steps * int(STEP.total_seconds()) - 300
        body = {"source_wallet_id": source, "amount": amount, "currency": code}
        body |= {"expires_in_s": seconds}
        wallets = [source]
        if destination is not None:
            body["destination_wallet_id"] = destination
            wallets.append(destination)
        if is_dry_run:
            refusal = self.model.refuse_hold(source, destination, amount, code)
            reply = self.live.run(self.api.post("/holds?dry_run=true", body))
        else:
            self.lock(*wallets)
            refusal = self.model.refuse_hold(source, destination, amount, code)
            reply = self.post("/holds", body, *wallets)
        if refusal is not None:
            refusal.check(reply)
            return
        if is_dry_run:
            assert (reply.status, reply.json["status"]) == (200, "dry_run")
            return
        assert reply.status == 201, reply
        lasts = time_of(reply.json["expires_at"]) - time_of(reply.json["created_at"])
        assert lasts == timedelta(seconds=seconds)
        hold = Hold(
            reply.json["id"],
            source,
            destination,
            code,
            amount,
            time_of(reply.json["expires_at"]),
            self.model.clock.step + steps,
            self.model.clock,
        )
        self.model.hold(hold)

    # Change

    @rule(
        target=LedgerMachine.transfers,
        number=NUMBERS,
        amount=AMOUNTS,
        is_final=st.booleans(),
        peer=st.none() | st.integers(0, 9),
    )
    def capture(self, number: int, amount: int | None, is_final: bool, peer: int | None) -> Any:
        return self.pay_from(self.capture_of(self.hold_number(number), amount, is_final, peer))

    @rule(target=LedgerMachine.transfers, number=NUMBERS, too_much=st.booleans())
    def capture_exactly(self, number: int, too_much: bool) -> Any:
        hold = self.model.holds[self.hold_number(number)]
        peer = 1 if hold.destination is None else None
        asked = self.capture_of(hold.id, max(1, hold.remaining + too_much), True, peer)
        return self.pay_from(asked)

    @rule(number=NUMBERS, amount=AMOUNTS)
    def try_to_capture(self, number: int, amount: int | None) -> None:
        self.pay_from(
            self.capture_of(self.hold_number(number), amount, True, None), is_dry_run=True
        )

    @rule(number=NUMBERS, more=st.booleans())
    def change_a_frozen_wallet(self, number: int, more: bool) -> None:
        hold = self.model.holds[self.hold_number(number)]
        self.set_status(hold.source, "freeze")
        self.make_hold(hold.source, None, 1, 1)
        self.change_amount(hold.id, max(1, hold.amount + (1 if more else -1)), 0)
        self.pay_from(self.capture_of(hold.id, 1, False, None if hold.destination else 1))
        self.set_status(hold.source, "unfreeze")

    @rule(number=NUMBERS, below=st.booleans())
    def capture_a_part_and_adjust(self, number: int, below: bool) -> None:
        hold = self.model.holds[self.hold_number(number)]
        self.pay_from(self.capture_of(hold.id, 2, False, None if hold.destination else 1))
        self.change_amount(hold.id, max(1, hold.captured - below), 0)

    def pay_from(self, asked: Capture, *, is_dry_run: bool = False) -> Any:
        path, wallets = f"/holds/{asked.hold_id}/capture", self.wallets_of(asked)
        if is_dry_run:
            refusal = self.model.refuse_capture(asked)
            reply = self.live.run(self.api.post(f"{path}?dry_run=true", asked.body()))
        else:
            self.lock(*wallets)
            refusal = self.model.refuse_capture(asked)
            reply = self.post(path, asked.body(), *wallets)
        if refusal is not None:
            refusal.check(reply)
            return multiple()
        if is_dry_run:
            assert (reply.status, reply.json["status"]) == (200, "dry_run")
            return multiple()
        assert (reply.status, reply.json["hold_id"]) == (201, asked.hold_id)
        return self.model.capture(asked, reply.json["id"]).id

    def hold_number(self, number: int) -> str:
        """A hold of the example, most of the time one that has not ended."""
        ids = list(self.model.holds)
        active = [hold.id for hold in self.model.holds.values() if hold.status == "active"]
        chosen = active if active and number % 4 else ids
        return chosen[number % len(chosen)]

    def capture_of(
        self, hold: str, amount: int | None, is_final: bool, peer: int | None
    ) -> Capture:
        source, destination = self.model.holds[hold].source, None
        if peer is not None:
            # Number 0 is the payer itself.
            destination = self.peer_of(source, peer) if peer else source
        return Capture(hold, amount, is_final, destination)

    @rule(number=NUMBERS, amount=AMOUNTS, later=LATER)
    def adjust(self, number: int, amount: int | None, later: int) -> None:
        self.change_amount(self.hold_number(number), amount, later)

    @rule(number=NUMBERS, too_much=st.booleans())
    def adjust_to_everything(self, number: int, too_much: bool) -> None:
        hold = self.hold_number(number)
        known = self.model.holds[hold]
        available = self.model.wallets[known.source].available
        self.change_amount(hold, known.amount + available + too_much, 0)

    def change_amount(self, hold: str, amount: int | None, later: int) -> None:
        known = self.model.holds[hold]
        body: dict[str, Any] = {} if amount is None else {"amount": amount}
        if later or amount is None:
            body["expires_at"] = text_of(known.expires_at + later * STEP)
        self.lock(known.source)
        refusal = self.model.refuse_adjust(hold, amount, later)
        reply = self.post(f"/holds/{hold}/adjust", body, known.source)
        if refusal is not None:
            refusal.check(reply)
            return
        assert reply.status == 200, reply
        self.model.adjust(hold, amount, later, STEP)

    @rule(number=NUMBERS)
    def release(self, number: int) -> None:
        hold = self.hold_number(number)
        source = self.model.holds[hold].source
        self.lock(source)
        refusal = self.model.refuse_change(hold)
        reply = self.post(f"/holds/{hold}/release", None, source)
        if refusal is not None:
            refusal.check(reply)
            return
        assert reply.status == 200, reply
        self.model.release(hold)

    # Batches

    @rule(
        number=NUMBERS,
        other=NUMBERS,
        peer=st.integers(1, 9),
        amounts=st.tuples(AMOUNTS, st.integers(1, 300)),
        is_atomic=st.booleans(),
    )
    def batch(
        self, number: int, other: int, peer: int, amounts: tuple[int | None, int], is_atomic: bool
    ) -> None:
        amount, paid = amounts
        hold = self.hold_number(number)
        payer = self.model.wallets[self.model.holds[hold].source]
        items: list[Item] = [
            self.capture_of(hold, amount, False, None),
            Transfer("", payer.id, self.peer_of(payer.id, peer), paid, payer.currency, False),
            self.capture_of(self.hold_number(other), None, True, None),
            self.capture_of(hold, 1, True, peer),
        ]
        wallets = tuple({id for item in items for id in self.wallets_of(item)})
        self.lock(*wallets)
        mode = "atomic" if is_atomic else "independent"
        body = {"mode": mode, "transfers": [body_of(item) for item in items]}
        reply = self.post("/transfers/batch", body, *wallets)
        if is_atomic and (expected := self.first_refusal(items)) is not None:
            assert (reply.status, reply.code) == (422, "batch-refused")
            found = reply.json["refusal"]
            assert (reply.json["index"], found["code"]) == (expected[0], expected[1].code)
            return
        results = reply.json["results"]
        assert len(results) == len(items)
        for item, result in zip(items, results, strict=True):
            refusal = apply(self.model, item, result.get("id", ""))
            assert result.get("code") == (refusal.code if refusal else None)

    def first_refusal(self, items: list[Item]) -> tuple[int, Refusal] | None:
        """The first item that is refused after those before it, and its refusal."""
        draft = deepcopy(self.model)
        for index, item in enumerate(items):
            if (refusal := apply(draft, item, str(uuid4()))) is not None:
                return index, refusal
        return None

    def wallets_of(self, item: Item) -> tuple[str, ...]:
        """The wallets that a group locks for it."""
        if isinstance(item, Transfer):
            return item.source, item.destination
        hold = self.model.holds[item.hold_id]
        destination = item.destination or hold.destination
        return (hold.source,) if destination is None else (hold.source, destination)

    # Time

    @precondition(lambda self: any(wallet.holds for wallet in self.model.wallets.values()))
    @rule(steps=st.sampled_from([1, 1, 2]))
    def let_time_pass(self, steps: int) -> None:
        """Holds become due; no group has written their ends yet."""
        self.model.clock.step += steps
        instant = self.live.let_pass(steps * int(STEP.total_seconds()))
        own = [wallet for wallet in self.model.wallets.values() if not wallet.funding]
        self.marks.append((instant, {wallet.id: wallet.view() for wallet in own}))
        self.touched |= set(self.model.wallets)

    @precondition(lambda self: self.marks)
    @rule(data=st.data())
    def look_back_at_a_mark(self, data: st.DataObject) -> None:
        instant, wallets = data.draw(st.sampled_from(self.marks))
        for id, expected in wallets.items():
            self.compare_past(id, instant, expected)

    def compare_past(self, wallet: str, instant: datetime, expected: dict[str, Any]) -> None:
        shown = self.at(wallet, instant)
        assert {name: shown[name] for name in expected} == expected

    @rule(number=NUMBERS)
    def look_back_at_an_expiry(self, number: int) -> None:
        known = self.model.holds[self.hold_number(number)]
        if known.status_now != "expired":
            return
        before = self.at(known.source, known.expires_at - timedelta(microseconds=1))
        after = self.at(known.source, known.expires_at)
        assert before["version"] == after["version"]
        assert before["held"] - after["held"] == known.view()["released"]

    def at(self, wallet: str, instant: datetime) -> Any:
        return self.live.run(self.api.get(f"/wallets/{wallet}?at={text_of(instant)}")).json

    # Comparison

    def compare(self, wallet: Wallet) -> None:
        super().compare(wallet)
        for instant, wallets in self.marks[-1:]:
            if wallet.id in wallets:
                self.compare_past(wallet.id, instant, wallets[wallet.id])
        holds = [hold for hold in self.model.holds.values() if hold.source == wallet.id]
        listed = self.live.run(self.api.get(f"/holds?wallet_id={wallet.id}&limit=200")).json
        assert [shown["id"] for shown in listed["data"]] == [hold.id for hold in holds[::-1]]
        for shown, hold in zip(listed["data"], holds[::-1], strict=True):
            expected = hold.view()
            assert {name: shown[name] for name in expected} == expected
            assert time_of(shown["expires_at"]) == hold.expires_at

    def look_at(self, wallet: Wallet) -> Reply:
        view = super().look_at(wallet)
        # A wallet with a hold that is due has changed without a new version.
        assert not self.model.due_holds_of(wallet.id) or "ETag" not in view.headers
        return view
