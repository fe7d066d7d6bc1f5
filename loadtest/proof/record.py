"""The full record of a round: requests and answers of the client, and the ledger at the end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from loadtest.proof.answers import Meaning, is_stored, meaning_of


class Kind(Enum):
    """The kind of an operation."""

    TRANSFER = "transfer"
    REVERSAL = "reversal"
    HOLD = "hold"
    CAPTURE = "capture"
    ADJUST = "adjust"
    RELEASE = "release"
    BATCH = "batch"
    FREEZE = "freeze"
    UNFREEZE = "unfreeze"
    READ = "read"
    INSTANT = "instant"
    WINDOW = "window"


@dataclass(frozen=True)
class Try:
    """One request and its answer. Seconds on the client's clock. Status 0: no answer.

    `began_us` is its begin in microseconds since 1970, by the clock that PostgreSQL uses as well.
    """

    began_s: float
    ended_s: float
    status: int
    # The code of a problem; empty for a success.
    code: str = ""
    body: bytes = b""
    replayed: bool = False
    began_us: int = 0

    @property
    def ended_us(self) -> int:
        """Its end in microseconds since 1970."""
        return self.began_us + round((self.ended_s - self.began_s) * 1e6)

    @property
    def meaning(self) -> Meaning:
        """The meaning of the answer for its key."""
        return meaning_of(self.status, self.code)

    @property
    def is_stored(self) -> bool:
        """Whether every repetition gets this answer."""
        return is_stored(self.status, self.code)


@dataclass
class Operation:
    """A request of a client with all its tries, which share one key.

    TRANSFER: both wallets and the amount in minor units. REVERSAL: also the original transfer;
    wallets and amount are as the answer must have them. HOLD: both wallets, the amount and
    `expires_in_s`. CAPTURE, ADJUST and RELEASE: also `hold`, its id. CAPTURE: an amount of 0 asks
    for all that is left, and `final`. ADJUST: a new amount, and a new expiry `expires_us` that no
    other adjustment of the round has. BATCH: its items, which are TRANSFER and CAPTURE without keys
    and tries, and whether it is atomic. FREEZE and UNFREEZE: the wallet. READ: the wallet and an
    optional min_version. INSTANT: the wallet and `until_us`. WINDOW: also `since_us`. Times are
    microseconds since 1970.
    """

    kind: Kind
    key: str = ""
    source: str = ""
    destination: str = ""
    amount: int = 0
    original: str = ""
    hold: str = ""
    final: bool = True
    expires_in_s: int = 0
    expires_us: int = 0
    wallet: str = ""
    min_version: int | None = None
    since_us: int = 0
    until_us: int = 0
    items: Sequence["Operation"] = ()
    atomic: bool = False
    tries: list[Try] = field(default_factory=list)

    @property
    def has_outcome(self) -> bool:
        """Whether it has a key and an outcome."""
        is_batch = self.kind is Kind.BATCH
        return self.moves_money or self.changes_hold or self.sets_status or is_batch

    @property
    def moves_money(self) -> bool:
        """Whether its success is a transfer."""
        return self.kind in {Kind.TRANSFER, Kind.REVERSAL, Kind.CAPTURE}

    @property
    def changes_hold(self) -> bool:
        """Whether its success is a hold: no money moves."""
        return self.kind in {Kind.HOLD, Kind.ADJUST, Kind.RELEASE}

    @property
    def sets_status(self) -> bool:
        """Whether its success is a wallet with another status."""
        return self.kind in {Kind.FREEZE, Kind.UNFREEZE}

    @property
    def is_past(self) -> bool:
        """Whether it reads the past."""
        return self.kind in {Kind.INSTANT, Kind.WINDOW}


class State(NamedTuple):
    """A wallet at one moment. Money in minor units."""

    balance_minor: int
    version: int
    held_minor: int = 0


class Entry(NamedTuple):
    """An entry of a statement. The amount has a sign. Money in minor units.

    kind: as the API names it. hold: the hold that was changed or captured.
    """

    transfer: str | None
    version: int
    amount_minor: int
    balance_after_minor: int
    at_us: int = 0
    kind: str = ""
    hold: str | None = None
    held_after_minor: int = 0


@dataclass(frozen=True)
class WalletRow:
    """A wallet in PostgreSQL at the end. Money in minor units."""

    id: str
    currency: str
    balance: int
    overdraft_limit: int
    version: int
    funding: bool = False
    held: int = 0

    @property
    def state(self) -> State:
        return State(self.balance, self.version)


@dataclass(frozen=True)
class TransferRow:
    """A transfer in PostgreSQL: versions and balances of both sides after it, and its time."""

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
    # The hold of a capture.
    hold: str | None = None

    @property
    def entries(self) -> tuple[tuple[str, Entry], tuple[str, Entry]]:
        """Its entries in the statements of its two wallets."""
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
        """The version of each of its wallets after it."""
        return {self.source: self.source_version, self.destination: self.destination_version}


class HoldState(NamedTuple):
    """A hold at one moment. Money in minor units."""

    hold: str
    amount: int
    captured: int
    released: int
    status: str
    expires_us: int

    @property
    def remaining(self) -> int:
        """The amount that is still reserved."""
        return self.amount - self.captured - self.released

    @property
    def is_active(self) -> bool:
        """Whether it has not ended."""
        return self.status == "active"


@dataclass(frozen=True)
class HoldRow:
    """A hold in PostgreSQL at the end."""

    source: str
    destination: str | None
    state: HoldState

    @property
    def id(self) -> str:
        return self.state.hold


@dataclass(frozen=True)
class ChangeRow:
    """A change of a wallet without a transfer in PostgreSQL: its version and state after it.

    `hold` is the state of the hold after the change; None if the change is not about a hold.
    """

    wallet: str
    version: int
    kind: str
    balance_after: int
    held_after: int
    at_us: int
    hold: HoldState | None

    @property
    def entry(self) -> Entry:
        """Its entry in the statement of the wallet."""
        return Entry(None, self.version, 0, self.balance_after, self.at_us)

    @property
    def event_id(self) -> str:
        return f"{self.wallet}:{self.version}"


@dataclass(frozen=True)
class Delivery:
    """An event that arrived at the receiver of a webhook; `number` counts arrivals."""

    number: int
    event_id: str
    kind: str
    # The transfer of the event, if it has one.
    transfer: str | None
    # Wallet -> version, as in the event.
    versions: Mapping[str, int]
    # The hold of the event after the change, if it has one.
    hold: HoldState | None = None
    body: bytes = b""


@dataclass(frozen=True)
class Ledger:
    """The stored state at the end of a round.

    `before`: the wallets before the client starts. `outcomes`: key -> status and, for a success,
    the id of the transfer. `listed`: answers to requests for lists at the end. `number`: all ids of
    the ledger carry it.
    """

    wallets: Sequence[WalletRow]
    transfers: Sequence[TransferRow]
    outcomes: Mapping[str, tuple[int, str | None]]
    deliveries: Sequence[Delivery] = ()
    before: Mapping[str, WalletRow] = field(default_factory=dict)
    waiting_events: int = 0
    holds: Sequence[HoldRow] = ()
    changes: Sequence[ChangeRow] = ()
    listed: Sequence[bytes] = ()
    number: int = 0
    name: str = "main"
