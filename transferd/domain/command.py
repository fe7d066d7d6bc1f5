"""Commands: the changes that a request can ask of the ledger, and the wallets that they involve."""

from collections.abc import Iterable

from transferd.domain.hold import (
    AdjustHold,
    Capture,
    CreateHold,
    ExpireHolds,
    Hold,
    ReleaseHold,
)
from transferd.domain.transfer import Batch, PostedTransfer, Reversal, Transfer
from transferd.domain.user import CreateUser
from transferd.domain.wallet import ChangeKind, CreateWallet, SetStatus, UpdateWallet

# The commands about a hold that exists.
HoldCommand = Capture | AdjustHold | ReleaseHold
# Large work, which no actor orders.
BulkCommand = Batch | ExpireHolds
OrderedCommand = (
    Transfer
    | Reversal
    | CreateHold
    | HoldCommand
    | CreateWallet
    | SetStatus
    | UpdateWallet
    | CreateUser
)
Command = OrderedCommand | BulkCommand


def touched_wallets(command: Command) -> Iterable[str]:
    """Ids of the wallets whose rows must be locked before `command` is decided."""
    match command:
        case Transfer():
            return (command.source_wallet_id, command.destination_wallet_id)
        case Batch(_, transfers):
            return _touched_by_items(transfers)
        case Reversal(original=PostedTransfer() as original):
            return (original.destination_wallet_id, original.source_wallet_id)
        case CreateWallet(initial_minor=0):
            return (command.id,)
        case CreateWallet():
            return (command.id, command.funding_wallet_id)
        case SetStatus() | UpdateWallet() | ExpireHolds():
            return (command.wallet_id,)
        case CreateHold() | Capture() | AdjustHold() | ReleaseHold():
            return _touched_by_hold(command)
        case CreateUser() | Reversal():
            return ()


def _touched_by_items(items: Iterable[Transfer | Capture]) -> set[str]:
    found: set[str] = set()
    for item in items:
        if isinstance(item, Transfer):
            found.add(item.source_wallet_id)
            found.add(item.destination_wallet_id)
        else:
            found.update(_touched_by_hold(item))
    return found


def _touched_by_hold(command: CreateHold | HoldCommand) -> Iterable[str]:
    destination_id = None
    match command:
        case CreateHold():
            source_id, destination_id = command.source_wallet_id, command.destination_wallet_id
        case Capture(hold=Hold() as hold):
            source_id = hold.source_wallet_id
            destination_id = command.destination_wallet_id or hold.destination_wallet_id
        case AdjustHold(hold=Hold() as hold) | ReleaseHold(hold=Hold() as hold):
            source_id = hold.source_wallet_id
        case _:
            # There is no such hold.
            return ()
    return (source_id,) if destination_id is None else (source_id, destination_id)


def named_holds(command: Command) -> Iterable[str]:
    """Ids of the holds that must be read under the lock before `command` is decided."""
    match command:
        case Capture() | AdjustHold() | ReleaseHold():
            return () if command.hold is None else (command.hold_id,)
        case Batch(_, transfers):
            return [item.hold_id for item in transfers if isinstance(item, Capture) and item.hold]
        case _:
            return ()


def paying_wallet(command: OrderedCommand) -> str | None:
    """Id of the wallet whose actor orders `command`; None for a command without a wallet.

    A command that changes a wallet without a payment is ordered by that wallet. The id may be
    unknown; its actor then orders the commands that name it.
    """
    match command:
        case Transfer():
            return command.source_wallet_id
        case Reversal(original=PostedTransfer() as original):
            return original.destination_wallet_id
        case Reversal():
            return command.original_id
        case CreateWallet(initial_minor=0):
            return command.id
        case CreateWallet():
            return command.funding_wallet_id
        case SetStatus() | UpdateWallet():
            return command.wallet_id
        case CreateHold():
            return command.source_wallet_id
        case Capture() | AdjustHold() | ReleaseHold():
            return command.hold_id if command.hold is None else command.hold.source_wallet_id
        case CreateUser():
            return None


def is_urgent(command: Command) -> bool:
    """Whether `command` overtakes others. Freeze and close must work while a wallet is flooded."""
    return isinstance(command, SetStatus) and command.kind is not ChangeKind.UNFREEZE


def weight_of(command: Command) -> int:
    """The number of transfers that `command` adds to a group."""
    return len(command.transfers) if isinstance(command, Batch) else 1
