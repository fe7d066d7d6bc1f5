"""Commands: the changes that a request can ask of the ledger, and the wallets that they involve."""

from collections.abc import Iterable

from transferd.domain.transfer import Batch, PostedTransfer, Reversal, Transfer
from transferd.domain.user import CreateUser
from transferd.domain.wallet import ChangeKind, CreateWallet, SetStatus, UpdateWallet

Command = Transfer | Batch | Reversal | CreateWallet | SetStatus | UpdateWallet | CreateUser


def touched_wallets(command: Command) -> Iterable[str]:
    """Ids of the wallets whose rows must be locked before `command` is decided."""
    match command:
        case Transfer():
            return (command.source_wallet_id, command.destination_wallet_id)
        case Batch(_, transfers):
            sources = {transfer.source_wallet_id for transfer in transfers}
            return sources | {transfer.destination_wallet_id for transfer in transfers}
        case Reversal(original=PostedTransfer() as original):
            return (original.destination_wallet_id, original.source_wallet_id)
        case CreateWallet(initial_minor=0):
            return (command.id,)
        case CreateWallet():
            return (command.id, command.funding_wallet_id)
        case SetStatus() | UpdateWallet():
            return (command.wallet_id,)
        case _:
            return ()


def paying_wallet(command: Command) -> str | None:
    """Id of the wallet whose actor orders `command`; None if no single wallet pays.

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
        case Batch() | CreateUser():
            return None


def is_urgent(command: Command) -> bool:
    """Whether `command` overtakes others. Freeze and close must work while a wallet is flooded."""
    return isinstance(command, SetStatus) and command.kind is not ChangeKind.UNFREEZE


def weight_of(command: Command) -> int:
    """The number of transfers that `command` adds to a group."""
    return len(command.transfers) if isinstance(command, Batch) else 1
