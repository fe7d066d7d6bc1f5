"""What a round of chaos leaves behind: the history of its client, and the ledger at the end.

The checker is a pure function of these two.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum


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


@dataclass(frozen=True)
class WalletRow:
    """A wallet as PostgreSQL has it at the end. Money in minor units."""

    id: str
    currency: str
    balance: int
    overdraft_limit: int
    version: int
    funding: bool = False


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


@dataclass(frozen=True)
class Anomaly:
    """Something that must never be: its kind, and a sentence with the ids."""

    kind: str
    text: str
