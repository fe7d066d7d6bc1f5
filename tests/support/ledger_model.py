"""A model of a ledger in memory, to compare the service with."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from tests.support.model_state import Capture, Clock, Hold, Refusal, Transfer, Wallet

# An item of a batch.
Item = Transfer | Capture
STATUS_AFTER = {"freeze": "frozen", "unfreeze": "active", "close": "closed"}
# More than any test of the model takes, and less than 366 days.
_STEPS_AHEAD_MAX = 1_000
_WALLET_NOT_FOUND = Refusal(404, "wallet-not-found")
_CLOSED = Refusal(422, "wallet-closed")


@dataclass
class Model:
    """Each `refuse_*` returns the refusal or None; the other methods apply a change.

    The checks are in the order of the contract.
    """

    wallets: dict[str, Wallet] = field(default_factory=dict)
    transfers: dict[str, Transfer] = field(default_factory=dict)
    holds: dict[str, Hold] = field(default_factory=dict)
    clock: Clock = field(default_factory=Clock)
    open_holds_max: int = 3

    def lock(self, *wallet_ids: str) -> None:
        """Write the ends of the holds of these wallets that are due, as each group does first."""
        due = self.due_holds_of(*wallet_ids)
        for hold in sorted(due, key=lambda hold: (hold.expires_at, hold.id)):
            self._end(hold, "expired")
            self.wallets[hold.source].move("hold_expire", 0, hold_id=hold.id)

    def due_holds_of(self, *wallet_ids: str) -> list[Hold]:
        """The holds of these wallets that are due and whose ends are not written."""
        wallets = [self.wallets[id] for id in dict.fromkeys(wallet_ids) if id in self.wallets]
        return [hold for wallet in wallets for hold in wallet.holds if hold.is_due]

    @property
    def closed(self) -> list[Wallet]:
        return [wallet for wallet in self.wallets.values() if wallet.status == "closed"]

    def refuse_transfer(
        self, source_id: str, destination_id: str, amount: int, currency: str
    ) -> Refusal | None:
        """The refusal of this transfer, if any."""
        if source_id == destination_id:
            return Refusal(422, "same-wallet")
        source, destination = self.wallets.get(source_id), self.wallets.get(destination_id)
        if source is None or destination is None:
            return _WALLET_NOT_FOUND
        if {source.currency, destination.currency} != {currency}:
            return Refusal(422, "currency-mismatch")
        if source.status != "active":
            return Refusal(422, f"wallet-{source.status}")
        if destination.status == "closed":
            return _CLOSED
        return _refuse_funds(source.available, amount)

    def transfer(self, transfer: Transfer) -> None:
        """Apply a posted transfer or reversal."""
        source, destination = self.wallets[transfer.source], self.wallets[transfer.destination]
        kind, ids = transfer.kind, (transfer.id, transfer.hold_id)
        source.move(kind, -transfer.amount, destination.id, *ids)
        destination.move(kind, transfer.amount, source.id, *ids)
        self.transfers[transfer.id] = transfer

    def refuse_reversal(self, original: Transfer, amount: int | None) -> Refusal | None:
        """The refusal of a reversal of this amount, if any. None reverses the rest."""
        if original.is_reversal:
            return Refusal(409, "not-reversible")
        wanted = original.left if amount is None else amount
        if wanted > original.left or original.left == 0:
            return Refusal(409, "reversal-exceeds-transfer", {"left": original.left})
        return self.refuse_transfer(
            original.destination, original.source, wanted, original.currency
        )

    def refuse_status(self, wallet_id: str, verb: str) -> Refusal | None:
        """The refusal to freeze, unfreeze or close the wallet, if any."""
        wallet = self.wallets.get(wallet_id)
        if wallet is None:
            return _WALLET_NOT_FOUND
        if wallet.status == STATUS_AFTER[verb]:
            return None
        if wallet.status == "closed":
            return _CLOSED
        if verb == "close" and (wallet.balance or wallet.holds):
            facts = {"balance": wallet.balance, "open_holds": len(wallet.holds)}
            return Refusal(409, "wallet-not-empty", facts)
        return None

    def set_status(self, wallet_id: str, verb: str) -> None:
        """Freeze, unfreeze or close the wallet. The same status again adds no version."""
        wallet = self.wallets[wallet_id]
        if wallet.status != STATUS_AFTER[verb]:
            wallet.status = STATUS_AFTER[verb]
            wallet.move(verb, 0)

    def refuse_limit(self, wallet_id: str, limit: int) -> Refusal | None:
        """The refusal of this overdraft limit, if any."""
        wallet = self.wallets.get(wallet_id)
        if wallet is None:
            return _WALLET_NOT_FOUND
        if wallet.status == "closed":
            return _CLOSED
        short = wallet.limit - wallet.available - limit
        if short > 0:
            facts = {"available": wallet.available, "shortfall": short}
            return Refusal(422, "insufficient-funds", facts)
        return None

    def set_limit(self, wallet_id: str, limit: int) -> None:
        """Set the overdraft limit. The same limit again adds no version."""
        wallet = self.wallets[wallet_id]
        if wallet.limit != limit:
            wallet.limit = limit
            wallet.move("update", 0)

    def refuse_hold(
        self, source_id: str, destination_id: str | None, amount: int, currency: str
    ) -> Refusal | None:
        """The refusal of a new hold with a valid expiry, if any."""
        if source_id == destination_id:
            return Refusal(422, "same-wallet")
        ids = [source_id] if destination_id is None else [source_id, destination_id]
        if any(id not in self.wallets for id in ids):
            return _WALLET_NOT_FOUND
        if any(self.wallets[id].currency != currency for id in ids):
            return Refusal(422, "currency-mismatch")
        source = self.wallets[source_id]
        if source.status != "active":
            return Refusal(422, f"wallet-{source.status}")
        if self.wallets[ids[-1]].status == "closed":
            return _CLOSED
        if (refusal := _refuse_funds(source.available, amount)) is not None:
            return refusal
        if len(source.open_holds) >= self.open_holds_max:
            return Refusal(422, "too-many-holds", {"open_holds": len(source.open_holds)})
        return None

    def hold(self, hold: Hold) -> None:
        """Apply a new hold."""
        self.holds[hold.id] = hold
        source = self.wallets[hold.source]
        source.holds.append(hold)
        source.move("hold_create", 0, hold_id=hold.id)

    def refuse_capture(self, asked: Capture) -> Refusal | None:
        """The refusal of a capture, if any."""
        if (refusal := self.refuse_change(asked.hold_id)) is not None:
            return refusal
        hold = self.holds[asked.hold_id]
        amount = hold.remaining if asked.amount is None else asked.amount
        if not 0 < amount <= hold.remaining:
            return Refusal(422, "capture-exceeds-hold", {"remaining": hold.remaining})
        destination = asked.destination or hold.destination
        if destination is None:
            return Refusal(422, "destination-missing")
        if hold.destination not in (None, destination):
            facts = {"destination_wallet_id": hold.destination}
            return Refusal(422, "destination-mismatch", facts)
        # The funds of a capture are what the hold has reserved.
        refusal = self.refuse_transfer(hold.source, destination, amount, hold.currency)
        return None if refusal and refusal.code == "insufficient-funds" else refusal

    def capture(self, asked: Capture, transfer_id: str) -> Transfer:
        """Apply a capture: first the change of the hold, then the transfer."""
        hold = self.holds[asked.hold_id]
        amount = hold.remaining if asked.amount is None else asked.amount
        destination = asked.destination or hold.destination
        assert destination is not None
        hold.captured += amount
        if asked.is_final:
            self._end(hold, "captured")
            hold.final_transfer = transfer_id
        self.wallets[hold.source].move("hold_capture", 0, hold_id=hold.id)
        posted = Transfer(transfer_id, hold.source, destination, amount, hold.currency, False)
        posted.hold_id = hold.id
        self.transfer(posted)
        return posted

    def refuse_change(self, hold_id: str) -> Refusal | None:
        """The refusal of each change of a hold that does not exist or has ended, if any.

        It is all that a release can be refused for.
        """
        hold = self.holds.get(hold_id)
        if hold is None:
            return Refusal(404, "hold-not-found")
        if hold.status_now == "active":
            return None
        facts: dict[str, object] = {"hold_status": hold.status_now}
        if hold.final_transfer is not None:
            facts["transfer_id"] = hold.final_transfer
        code = "hold-expired" if hold.status_now == "expired" else "hold-not-active"
        return Refusal(409, code, facts)

    def refuse_adjust(self, hold_id: str, amount: int | None, later: int) -> Refusal | None:
        """The refusal to set the amount of a hold and to move its expiry by steps, if any."""
        if (refusal := self.refuse_change(hold_id)) is not None:
            return refusal
        hold = self.holds[hold_id]
        amount = hold.amount if amount is None else amount
        if amount < hold.captured:
            return Refusal(422, "amount-below-captured", {"captured": hold.captured})
        if later and not 0 < hold.expires + later - self.clock.step < _STEPS_AHEAD_MAX:
            return Refusal(422, "expiry-invalid")
        source = self.wallets[hold.source]
        if amount <= hold.amount:
            return None
        if source.status != "active":
            return Refusal(422, f"wallet-{source.status}")
        return _refuse_funds(source.available, amount - hold.amount)

    def adjust(self, hold_id: str, amount: int | None, later: int, step: timedelta) -> None:
        """Adjust a hold. The same values again add no version."""
        hold = self.holds[hold_id]
        amount = hold.amount if amount is None else amount
        if (amount, later) != (hold.amount, 0):
            hold.amount = amount
            hold.expires += later
            hold.expires_at += later * step
            self.wallets[hold.source].move("hold_adjust", 0, hold_id=hold.id)

    def release(self, hold_id: str) -> None:
        """Release a hold."""
        hold = self.holds[hold_id]
        self._end(hold, "released")
        self.wallets[hold.source].move("hold_release", 0, hold_id=hold.id)

    def _end(self, hold: Hold, status: str) -> None:
        hold.end(status)
        self.wallets[hold.source].holds.remove(hold)


def _refuse_funds(available: int, amount: int) -> Refusal | None:
    if amount <= available:
        return None
    facts = {"available": available, "shortfall": amount - available}
    return Refusal(422, "insufficient-funds", facts)


def body_of(item: Item) -> dict[str, Any]:
    """The item of a batch in the API."""
    if isinstance(item, Capture):
        return {"hold_id": item.hold_id} | item.body()
    return {
        "source_wallet_id": item.source,
        "destination_wallet_id": item.destination,
        "amount": item.amount,
        "currency": item.currency,
    }


def apply(model: Model, item: Item, transfer_id: str) -> Refusal | None:
    """Decide an item of a batch and apply it; returns its refusal, if any."""
    if isinstance(item, Capture):
        if (refusal := model.refuse_capture(item)) is None:
            model.capture(item, transfer_id)
        return refusal
    sides = (item.source, item.destination)
    if (refusal := model.refuse_transfer(*sides, item.amount, item.currency)) is None:
        model.transfer(Transfer(transfer_id, *sides, item.amount, item.currency, False))
    return refusal
