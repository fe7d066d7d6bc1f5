"""What several decisions share: posting a transfer, and the row of another change."""

from transferd.domain.book import Book, Posted
from transferd.domain.errors import Refused
from transferd.domain.hold import Hold
from transferd.domain.money import fits_a_balance
from transferd.domain.refusals import (
    balance_out_of_range,
    currency_mismatch,
    insufficient_funds,
    wallet_not_found,
    wrong_status,
)
from transferd.domain.transfer import PostedTransfer, TransferKind
from transferd.domain.wallet import ChangeKind, Wallet, WalletChange, WalletStatus


def post(
    book: Book,
    *,
    id: str,
    kind: TransferKind,
    source_id: str,
    destination_id: str,
    amount_minor: int,
    currency: str,
    reference: str | None,
    metadata: str,
    reverses_transfer_id: str | None = None,
    hold_id: str | None = None,
) -> Posted | Refused:
    """The transfer, unless it is refused.

    Checks, in this order: source exists, destination exists, currency, status of the source,
    status of the destination, funds, range.
    """
    source = book.wallets.get(source_id)
    if source is None:
        return wallet_not_found(source_id)
    destination = book.wallets.get(destination_id)
    if destination is None:
        return wallet_not_found(destination_id)
    if not source.currency == destination.currency == currency:
        return currency_mismatch(source, destination, currency)
    if source.status is not WalletStatus.ACTIVE:
        return wrong_status(source)
    if destination.status is WalletStatus.CLOSED:
        return wrong_status(destination)
    available_minor = source.available_minor
    if available_minor is not None and amount_minor > available_minor:
        return insufficient_funds(available_minor, amount_minor - available_minor, currency)
    source_after = source.balance_minor - amount_minor
    destination_after = destination.balance_minor + amount_minor
    if not fits_a_balance(source_after) or not fits_a_balance(destination_after):
        return balance_out_of_range()
    return Posted(
        PostedTransfer(
            id,
            kind,
            source_id,
            destination_id,
            amount_minor,
            currency,
            reference,
            metadata,
            source.version + 1,
            source_after,
            destination.version + 1,
            destination_after,
            reverses_transfer_id,
            book.at,
            hold_id,
        )
    )


def change_of(wallet: Wallet, kind: ChangeKind, hold: Hold | None = None) -> WalletChange:
    """The row of a change without a transfer; `wallet` and `hold` are the states after it."""
    return WalletChange(
        wallet.id,
        wallet.version,
        kind,
        wallet.status,
        wallet.balance_minor,
        wallet.overdraft_limit_minor,
        wallet.updated_at,
        wallet.held_minor,
        hold,
    )
