"""The state on which a group of commands is decided, and the outcomes that change it."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from transferd.domain.errors import Refused
from transferd.domain.hold import Hold
from transferd.domain.transfer import PostedTransfer
from transferd.domain.user import User
from transferd.domain.wallet import Wallet, WalletChange


class Posted(NamedTuple):
    """A transfer or reversal was posted."""

    transfer: PostedTransfer


class WalletCreated(NamedTuple):
    """A new wallet at version 0, and its initial balance as a separate transfer."""

    wallet: Wallet
    change: WalletChange
    initial: PostedTransfer | None


class WalletSet(NamedTuple):
    """The wallet after a command that moved no money; `change` is None if nothing changed."""

    wallet: Wallet
    change: WalletChange | None


class HoldSet(NamedTuple):
    """A hold after a command that moved no money, and its paying wallet; `change` is None if
    nothing changed."""

    hold: Hold
    wallet: Wallet
    change: WalletChange | None


class Captured(NamedTuple):
    """A capture was posted. `change` reduced what the wallet holds; the transfer came after it.

    `wallet` is the paying wallet between the two.
    """

    transfer: PostedTransfer
    hold: Hold
    wallet: Wallet
    change: WalletChange


class BatchPosted(NamedTuple):
    """The result of each transfer of a batch, in order. In an atomic batch all are posted."""

    results: tuple[Posted | Captured | Refused, ...]


class UserCreated(NamedTuple):
    """A new user."""

    user: User


Outcome = (
    Posted | BatchPosted | Captured | HoldSet | WalletCreated | WalletSet | UserCreated | Refused
)


@dataclass(slots=True)
class Book:
    """The state on which a group is decided: read under the locks, then changed by `apply`.

    `reversed_minor` maps each transfer that the group reverses to the sum that is already reversed.
    `users` maps each existing user that the group names to its time of creation. `holds` are the
    holds that the group names, by id.
    """

    at: datetime
    wallets: dict[str, Wallet]
    reversed_minor: dict[str, int] = field(default_factory=dict)
    users: dict[str, datetime] = field(default_factory=dict)
    holds: dict[str, Hold] = field(default_factory=dict)

    def apply(self, outcome: Outcome) -> None:
        """Apply the outcome to the wallets; the next command is decided on the new state."""
        match outcome:
            case Posted(transfer):
                self._move(transfer)
            case BatchPosted(results):
                for result in results:
                    self.apply(result)
            case WalletCreated(wallet, _, initial):
                self.wallets[wallet.id] = wallet.copy()
                if initial is not None:
                    self._move(initial)
            case WalletSet(wallet, change) if change is not None:
                self.wallets[wallet.id] = wallet.copy()
            case HoldSet(hold, wallet, change) if change is not None:
                self.holds[hold.id] = hold
                self.wallets[wallet.id] = wallet.copy()
            case Captured(transfer, hold, wallet, _):
                self.holds[hold.id] = hold
                self.wallets[wallet.id] = wallet.copy()
                self._move(transfer)
            case _:
                pass

    def _move(self, transfer: PostedTransfer) -> None:
        source = self.wallets[transfer.source_wallet_id]
        source.balance_minor = transfer.source_balance_after_minor
        source.version = transfer.source_version
        source.updated_at = self.at
        destination = self.wallets[transfer.destination_wallet_id]
        destination.balance_minor = transfer.destination_balance_after_minor
        destination.version = transfer.destination_version
        destination.updated_at = self.at
        if (original_id := transfer.reverses_transfer_id) is not None:
            already = self.reversed_minor.get(original_id, 0)
            self.reversed_minor[original_id] = already + transfer.amount_minor
