"""A model of a ledger in memory, to compare the service with."""

from dataclasses import dataclass, field
from typing import Any

from tests.support.api import Reply


@dataclass(frozen=True)
class Refusal:
    """A refusal that the contract demands; `facts` are members of the problem."""

    status: int
    code: str
    facts: dict[str, int] = field(default_factory=dict)

    def check(self, reply: Reply) -> None:
        """AssertionError unless the reply is this refusal."""
        assert (reply.status, reply.code) == (self.status, self.code)
        assert self.facts.items() <= reply.json.items(), reply


@dataclass(frozen=True)
class Entry:
    """A line of a wallet's statement."""

    version: int
    kind: str
    amount: int
    balance_after: int
    counterparty: str | None = None
    transfer_id: str | None = None

    @classmethod
    def of(cls, view: dict[str, Any]) -> "Entry":
        """The entry in an answer of the API."""
        return cls(
            view["version"],
            view["kind"],
            view["amount"],
            view["balance_after"],
            view["counterparty_wallet_id"],
            view["transfer_id"],
        )


@dataclass
class Wallet:
    """A wallet. A funding wallet has no limit."""

    id: str
    currency: str
    limit: int = 0
    funding: bool = False
    balance: int = 0
    version: int = 0
    status: str = "active"
    entries: list[Entry] = field(default_factory=list)

    @property
    def available(self) -> int:
        return 2**53 if self.funding else self.balance + self.limit

    def move(self, kind: str, amount: int, other: str | None = None, id: str | None = None) -> None:
        """Change the balance under the next version, and add the entry."""
        self.version += 1
        self.balance += amount
        self.entries.append(Entry(self.version, kind, amount, self.balance, other, id))


@dataclass
class Transfer:
    """A posted transfer; `given_back` is the sum of its reversals."""

    id: str
    source: str
    destination: str
    amount: int
    currency: str
    is_reversal: bool
    given_back: int = 0

    @property
    def left(self) -> int:
        return self.amount - self.given_back


STATUS_AFTER = {"freeze": "frozen", "unfreeze": "active", "close": "closed"}
_WALLET_NOT_FOUND = Refusal(404, "wallet-not-found")
_CLOSED = Refusal(422, "wallet-closed")


@dataclass
class Model:
    """Each `refuse_*` returns the refusal or None; the other methods apply a change.

    The checks are in the order of the contract.
    """

    wallets: dict[str, Wallet] = field(default_factory=dict)
    transfers: dict[str, Transfer] = field(default_factory=dict)

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
        kind = "reversal" if transfer.is_reversal else "transfer"
        source, destination = self.wallets[transfer.source], self.wallets[transfer.destination]
        source.move(kind, -transfer.amount, destination.id, transfer.id)
        destination.move(kind, transfer.amount, source.id, transfer.id)
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
        if verb == "close" and wallet.balance:
            return Refusal(409, "wallet-not-empty", {"balance": wallet.balance})
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
        short = -(wallet.balance + limit)
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


def _refuse_funds(available: int, amount: int) -> Refusal | None:
    if amount <= available:
        return None
    facts = {"available": available, "shortfall": amount - available}
    return Refusal(422, "insufficient-funds", facts)
