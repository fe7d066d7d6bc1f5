"""The wallets, holds and transfers of a model of a ledger."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tests.support.api import Reply


@dataclass
class Clock:
    """The time of a model: the number of steps so far."""

    step: int = 0


@dataclass
class Hold:
    """A hold; from the step `expires` on it is due. An end that is due may not be written yet."""

    id: str
    source: str
    destination: str | None
    currency: str
    amount: int
    expires_at: datetime
    expires: int
    clock: Clock
    captured: int = 0
    released: int = 0
    status: str = "active"
    final_transfer: str | None = None

    @property
    def remaining(self) -> int:
        return self.amount - self.captured - self.released

    @property
    def is_due(self) -> bool:
        return self.status == "active" and self.clock.step >= self.expires

    @property
    def status_now(self) -> str:
        return "expired" if self.is_due else self.status

    def end(self, status: str) -> None:
        """End the hold, which releases what is left."""
        self.released = self.remaining
        self.status = status

    def view(self) -> dict[str, Any]:
        """What the API shows of it now."""
        return {
            "source_wallet_id": self.source,
            "destination_wallet_id": self.destination,
            "amount": self.amount,
            "captured": self.captured,
            "released": self.remaining if self.is_due else self.released,
            "remaining": 0 if self.is_due else self.remaining,
            "status": self.status_now,
        }


@dataclass(frozen=True)
class Capture:
    """A request for a capture; an amount of None asks for all that is left."""

    hold_id: str
    amount: int | None
    is_final: bool
    destination: str | None

    def body(self) -> dict[str, Any]:
        """Its body in the API, without the hold."""
        given = {"amount": self.amount, "destination_wallet_id": self.destination}
        return {"final": self.is_final} | {
            name: value for name, value in given.items() if value is not None
        }


@dataclass(frozen=True)
class Refusal:
    """A refusal that the contract demands; `facts` are members of the problem."""

    status: int
    code: str
    facts: Mapping[str, object] = field(default_factory=dict)

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
    hold_id: str | None = None
    held_after: int = 0

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
            view["hold_id"],
            view["held_after"],
        )


@dataclass
class Wallet:
    """A wallet. A funding wallet has no limit. `holds` are those whose end is not written."""

    id: str
    currency: str
    limit: int = 0
    funding: bool = False
    balance: int = 0
    version: int = 0
    status: str = "active"
    entries: list[Entry] = field(default_factory=list)
    holds: list[Hold] = field(default_factory=list)

    @property
    def open_holds(self) -> list[Hold]:
        return [hold for hold in self.holds if not hold.is_due]

    @property
    def held(self) -> int:
        return sum(hold.remaining for hold in self.open_holds)

    @property
    def available(self) -> int:
        return 2**53 if self.funding else self.balance - self.held + self.limit

    def move(
        self,
        kind: str,
        amount: int,
        other: str | None = None,
        id: str | None = None,
        hold_id: str | None = None,
    ) -> None:
        """Change the balance under the next version, and add the entry."""
        self.version += 1
        self.balance += amount
        written = sum(hold.remaining for hold in self.holds)
        entry = Entry(self.version, kind, amount, self.balance, other, id, hold_id, written)
        self.entries.append(entry)

    def view(self) -> dict[str, Any]:
        """What the API shows of it now."""
        return {
            "balance": self.balance,
            "held": self.held,
            "available": self.available,
            "overdraft_limit": self.limit,
            "status": self.status,
            "version": self.version,
            "currency": self.currency,
        }


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
    hold_id: str | None = None

    @property
    def left(self) -> int:
        return self.amount - self.given_back

    @property
    def kind(self) -> str:
        if self.hold_id is not None:
            return "capture"
        return "reversal" if self.is_reversal else "transfer"
