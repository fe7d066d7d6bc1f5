"""A full record of a round: what its client asked and was answered, and the ledger at the end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from loadtest.proof.answers import Word, is_stored, word_of


class Kind(Enum):
    """What a client asked for."""

    TRANSFER = "transfer"
    REVERSAL = "reversal"
    READ = "read"
    INSTANT = "instant"
    WINDOW = "window"


@dataclass(frozen=True)
class Try:
    """One request and its answer. Seconds on the client's clock; status 0 is no answer at all."""

    began_s: float
    ended_s: float
    status: int
    # The code of a problem; empty for a success.
    code: str = ""
    body: bytes = b""
    replayed: bool = False

    @property
    def word(self) -> Word:
        """What it says of its key."""
        return word_of(self.status, self.code)

    @property
    def is_stored(self) -> bool:
        """Whether every repetition gets this answer."""
        return is_stored(self.status, self.code)


@dataclass
class Operation:
    """Something a client wants, with every try at it under its one key.

    A transfer names both wallets and the amount (minor units); a reversal the original transfer,
    with wallets and amount as they have to be in its answer; a read the wallet and, if it gave one,
    the version that it must not fall behind. A question about the past names the wallet, the end of
    its time and, if it is about a window, the beginning: microseconds since 1970.
    """

    kind: Kind
    key: str = ""
    source: str = ""
    destination: str = ""
    amount: int = 0
    original: str = ""
    wallet: str = ""
    min_version: int | None = None
    since_us: int = 0
    until_us: int = 0
    tries: list[Try] = field(default_factory=list)

    @property
    def moves_money(self) -> bool:
        """Whether it has a key, and with it an outcome."""
        return self.kind in {Kind.TRANSFER, Kind.REVERSAL}


class State(NamedTuple):
    """A wallet at one moment. Money in minor units."""

    balance_minor: int
    version: int


class Entry(NamedTuple):
    """One change of a wallet, as a statement has it. Signed amount and balance in minor units."""

    transfer: str | None
    version: int
    amount_minor: int
    balance_after_minor: int
    at_us: int = 0


@dataclass(frozen=True)
class WalletRow:
    """A wallet as PostgreSQL has it at the end. Money in minor units."""

    id: str
    currency: str
    balance: int
    overdraft_limit: int
    version: int
    funding: bool = False

    @property
    def state(self) -> State:
        """Its balance and version."""
        return State(self.balance, self.version)


@dataclass(frozen=True)
class TransferRow:
    """A transfer as PostgreSQL has it: both sides' versions and balances after it, and its time."""

    id: str
    source: str
    destination: str
    amount: int
    source_version: int
    source_balance_after: int
    destination_version: int
    destination_balance_after: int
    reverses: str | None = None
    at_us: int = 0

    @property
    def entries(self) -> tuple[tuple[str, Entry], tuple[str, Entry]]:
        """What it is in the statements of its two wallets."""
        source = Entry(
            self.id, self.source_version, -self.amount, self.source_balance_after, self.at_us
        )
        destination = Entry(
            self.id,
            self.destination_version,
            self.amount,
            self.destination_balance_after,
            self.at_us,
        )
        return (self.source, source), (self.destination, destination)

    @property
    def versions(self) -> dict[str, int]:
        """The version that it gave each of its wallets."""
        return {self.source: self.source_version, self.destination: self.destination_version}


@dataclass(frozen=True)
class Delivery:
    """An event as the receiver of a webhook got it; `number` counts its arrivals."""

    number: int
    event_id: str
    kind: str
    # The transfer that it tells of, if it does.
    transfer: str | None
    # The wallet's version by wallet, as the event tells it.
    versions: Mapping[str, int]


@dataclass(frozen=True)
class Ledger:
    """Everything that is stored at the end, when all is quiet.

    `before` has the wallets as they were when the client began: versions are walked from there.
    `outcomes` are the stored results by key: status and, of a success, the transfer.
    """

    wallets: Sequence[WalletRow]
    transfers: Sequence[TransferRow]
    outcomes: Mapping[str, tuple[int, str | None]]
    deliveries: Sequence[Delivery] = ()
    before: Mapping[str, WalletRow] = field(default_factory=dict)
    waiting_events: int = 0
