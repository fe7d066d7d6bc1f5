"""The wallets of a run by their role, and the payments of a scenario."""

import random
from dataclasses import dataclass, field

from loadtest.proof.answers import JsonObject
from loadtest.proof.ids import ledger_number
from loadtest.proof.record import State

# So small that in a group almost every wallet pays and is paid.
RING_WALLETS = 16
# The share of payments to the hot wallet, in a scenario that has one.
HOT_SHARE = 0.8


@dataclass
class World:
    """Wallet ids by role, and the state of each wallet before the first user starts.

    `payees` of a shopper: any merchant or shopper, usually the first merchant (hot), or a neighbour
    in a small ring. `copies`: how many copies of each payment are sent at once, with one key.
    """

    run: str
    currency: str
    shoppers: list[str]
    merchants: list[str]
    employers: list[str]
    treasuries: list[str]
    # Wallets with little money, for which concurrent payments race.
    purses: list[str]
    # Wallets of this run only, whose money is held. Most scenarios have none.
    cards: list[str] = field(default_factory=list)
    payees: str = "any"
    copies: int = 1
    start: dict[str, State] = field(default_factory=dict)

    @property
    def wallets(self) -> list[str]:
        """All wallets. The number of a wallet is its index in this list."""
        return [
            *self.shoppers,
            *self.merchants,
            *self.employers,
            *self.treasuries,
            *self.purses,
            *self.cards,
        ]

    @property
    def ledger_number(self) -> int | None:
        """The number in the ids of the ledger; None if ids were made before ids had it."""
        numbers = {ledger_number(each) for each in self.wallets}
        return numbers.pop() if len(numbers) == 1 else None

    def payment(self) -> tuple[str, str]:
        """Source and destination of the next payment."""
        if self.payees == "ring":
            ring = self.shoppers[:RING_WALLETS]
            place = random.randrange(len(ring))
            # In both directions, so that two neighbours pay each other at the same time.
            return ring[place], ring[(place + random.choice((1, -1))) % len(ring)]
        source = random.choice(self.shoppers)
        if self.payees == "hot" and random.random() < HOT_SHARE:
            return source, self.merchants[0]
        if random.random() < 0.5:
            return source, random.choice(self.merchants)
        return source, self._other_than(source)

    def transfer_body(self, source: str, destination: str, amount_minor: int) -> JsonObject:
        """The body of a request for a transfer."""
        return {
            "source_wallet_id": source,
            "destination_wallet_id": destination,
            "amount": amount_minor,
            "currency": self.currency,
        }

    def merchant(self) -> str:
        """A merchant; the hot wallet if there is one."""
        return self.merchants[0] if self.payees == "hot" else random.choice(self.merchants)

    def two_treasuries(self) -> tuple[str, str]:
        """Two different treasuries."""
        first, second = random.sample(self.treasuries, 2)
        return first, second

    def _other_than(self, wallet_id: str) -> str:
        while (other := random.choice(self.shoppers)) == wallet_id:
            pass
        return other
