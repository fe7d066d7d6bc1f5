"""Decisions about holds. Each is made on the hold and its wallet, under the lock of the wallet.

A group expires the holds that are due first (`expired`), so here an active hold is not due.
"""

from datetime import datetime, timedelta

from transferd.domain.book import Book, Captured, HoldSet, WalletSet
from transferd.domain.errors import Reason, Refused
from transferd.domain.hold import (
    EXPIRY_AHEAD_MAX,
    AdjustHold,
    Capture,
    CreateHold,
    ExpireHolds,
    Hold,
    HoldStatus,
    ReleaseHold,
)
from transferd.domain.money import fits_a_balance
from transferd.domain.posting import change_of, post
from transferd.domain.refusals import (
    balance_out_of_range,
    capture_exceeds_hold,
    currency_mismatch,
    expiry_invalid,
    hold_not_found,
    hold_over,
    insufficient_funds,
    same_wallet,
    too_many_holds,
    wallet_not_found,
    wrong_status,
)
from transferd.domain.transfer import TransferKind
from transferd.domain.wallet import ChangeKind, Wallet, WalletStatus


def decide_about_hold(
    command: CreateHold | Capture | AdjustHold | ReleaseHold | ExpireHolds, book: Book
) -> Captured | HoldSet | WalletSet | Refused:
    """The outcome of a command about a hold."""
    match command:
        case CreateHold():
            return decide_hold(command, book)
        case Capture():
            return decide_capture(command, book)
        case AdjustHold():
            return decide_adjust(command, book)
        case ReleaseHold():
            return decide_release(command, book)
        case ExpireHolds():
            # The group has already expired what is due.
            wallet = book.wallets.get(command.wallet_id)
            if wallet is None:
                return wallet_not_found(command.wallet_id)
            return WalletSet(wallet.copy(), None)


def decide_hold(command: CreateHold, book: Book) -> HoldSet | Refused:
    """Checks, in this order: two different wallets, source exists, destination exists, currency,
    status of the source, status of the destination, funds, range, expiry, number of open holds.

    The checks of the destination are made only if one is named.
    """
    if command.source_wallet_id == command.destination_wallet_id:
        return same_wallet()
    source = _payer(command, book)
    if isinstance(source, Refused):
        return source
    if (refused := _reserve(source, command.amount_minor)) is not None:
        return refused
    expires_at = command.expires_at or book.at + timedelta(seconds=command.expires_in_s)
    if _is_invalid(expires_at, book.at):
        return expiry_invalid(book.at)
    if source.open_holds >= command.open_holds_max:
        return too_many_holds(source.open_holds, command.open_holds_max)
    hold = Hold(
        command.id,
        command.source_wallet_id,
        command.destination_wallet_id,
        command.currency,
        command.amount_minor,
        0,
        0,
        HoldStatus.ACTIVE,
        expires_at,
        None,
        command.reference,
        command.metadata,
        book.at,
        book.at,
    )
    return _set(book, source, None, hold, ChangeKind.HOLD_CREATE)


def decide_capture(command: Capture, book: Book) -> Captured | Refused:
    """Checks, in this order: hold exists, its status and expiry, amount left, destination, two
    different wallets; then the checks of `post`.

    The check of the funds cannot fail: the wallet keeps the amount of the hold available for it.
    """
    hold = _active(command, book)
    if isinstance(hold, Refused):
        return hold
    amount_minor = hold.remaining_minor if command.amount_minor is None else command.amount_minor
    if not 0 < amount_minor <= hold.remaining_minor:
        return capture_exceeds_hold(hold)
    destination_id = command.destination_wallet_id or hold.destination_wallet_id
    if destination_id is None:
        return Refused(
            Reason.DESTINATION_MISSING,
            "Neither the hold nor the capture names a destination.",
        )
    if hold.destination_wallet_id not in (None, destination_id):
        return Refused(
            Reason.DESTINATION_MISMATCH,
            f"The hold is for wallet {hold.destination_wallet_id}.",
            {"destination_wallet_id": hold.destination_wallet_id},
        )
    if destination_id == hold.source_wallet_id:
        return same_wallet()
    source = book.wallets.get(hold.source_wallet_id)
    if source is None:
        return wallet_not_found(hold.source_wallet_id)
    captured = hold.captured(amount_minor, book.at, command.id if command.is_final else None)
    after = _set(book, source, hold, captured, ChangeKind.HOLD_CAPTURE)
    assert after.change is not None
    posted = post(
        Book(book.at, {**_destination(book, destination_id), source.id: after.wallet}),
        id=command.id,
        kind=TransferKind.CAPTURE,
        source_id=source.id,
        destination_id=destination_id,
        amount_minor=amount_minor,
        currency=hold.currency,
        reference=hold.reference if command.reference is None else command.reference,
        metadata=command.metadata,
        hold_id=hold.id,
    )
    if isinstance(posted, Refused):
        return posted
    return Captured(posted.transfer, captured, after.wallet, after.change)


def decide_adjust(command: AdjustHold, book: Book) -> HoldSet | Refused:
    """Checks, in this order: hold exists, its status and expiry, not below what is captured, new
    expiry; and for a larger amount: status of the wallet, funds, range."""
    hold = _active(command, book)
    if isinstance(hold, Refused):
        return hold
    amount_minor = hold.amount_minor if command.amount_minor is None else command.amount_minor
    if amount_minor < hold.captured_minor:
        return Refused(
            Reason.AMOUNT_BELOW_CAPTURED,
            f"{hold.captured_minor} {hold.currency} is captured already.",
            {"captured": hold.captured_minor, "currency": hold.currency},
        )
    expires_at = hold.expires_at if command.expires_at is None else command.expires_at
    if expires_at != hold.expires_at and _is_invalid(expires_at, book.at):
        return expiry_invalid(book.at)
    source = book.wallets[hold.source_wallet_id]
    more_minor = amount_minor - hold.amount_minor
    if more_minor > 0:
        if source.status is not WalletStatus.ACTIVE:
            return wrong_status(source)
        if (refused := _reserve(source, more_minor)) is not None:
            return refused
    adjusted = hold._replace(amount_minor=amount_minor, expires_at=expires_at)
    if adjusted == hold:
        return HoldSet(hold, source, None)
    adjusted = adjusted._replace(updated_at=book.at)
    return _set(book, source, hold, adjusted, ChangeKind.HOLD_ADJUST)


def decide_release(command: ReleaseHold, book: Book) -> HoldSet | Refused:
    """Checks, in this order: hold exists, its status and expiry."""
    hold = _active(command, book)
    if isinstance(hold, Refused):
        return hold
    released = hold.ended(HoldStatus.RELEASED, book.at)
    source = book.wallets[hold.source_wallet_id]
    return _set(book, source, hold, released, ChangeKind.HOLD_RELEASE)


def expired(hold: Hold, book: Book) -> HoldSet:
    """The expiry of an active hold that is due."""
    source = book.wallets[hold.source_wallet_id]
    ended = hold.ended(HoldStatus.EXPIRED, hold.expires_at)
    return _set(book, source, hold, ended, ChangeKind.HOLD_EXPIRE)


def _active(command: Capture | AdjustHold | ReleaseHold, book: Book) -> Hold | Refused:
    """The hold that the command names, if it is active."""
    hold = book.holds.get(command.hold_id)
    # Without the hold in the command its wallets are neither checked nor locked.
    if hold is None or command.hold is None:
        return hold_not_found(command.hold_id)
    return hold if hold.status is HoldStatus.ACTIVE else hold_over(hold)


def _payer(command: CreateHold, book: Book) -> Wallet | Refused:
    """The wallet that pays, if it and the destination may take part."""
    source = book.wallets.get(command.source_wallet_id)
    if source is None:
        return wallet_not_found(command.source_wallet_id)
    destination = None
    if command.destination_wallet_id is not None:
        destination = book.wallets.get(command.destination_wallet_id)
        if destination is None:
            return wallet_not_found(command.destination_wallet_id)
    for wallet in (source, destination):
        if wallet is not None and wallet.currency != command.currency:
            return currency_mismatch(source, destination, command.currency)
    if source.status is not WalletStatus.ACTIVE:
        return wrong_status(source)
    if destination is not None and destination.status is WalletStatus.CLOSED:
        return wrong_status(destination)
    return source


def _reserve(source: Wallet, amount_minor: int) -> Refused | None:
    """Why the wallet cannot reserve so much more; None if it can. Checks funds, then range."""
    available_minor = source.available_minor
    if available_minor is not None and amount_minor > available_minor:
        return insufficient_funds(available_minor, amount_minor - available_minor, source.currency)
    if not fits_a_balance(source.held_minor + amount_minor):
        return balance_out_of_range()
    return None


def _is_invalid(expires_at: datetime, now: datetime) -> bool:
    return not now < expires_at <= now + EXPIRY_AHEAD_MAX


def _destination(book: Book, id: str) -> dict[str, Wallet]:
    wallet = book.wallets.get(id)
    return {} if wallet is None else {id: wallet}


def _set(book: Book, source: Wallet, before: Hold | None, after: Hold, kind: ChangeKind) -> HoldSet:
    """The change of a hold, with its effect on the wallet that pays."""
    wallet = source.copy()
    wallet.version += 1
    wallet.updated_at = book.at
    wallet.held_minor += after.remaining_minor
    if before is None:
        wallet.open_holds += 1
    else:
        wallet.held_minor -= before.remaining_minor
    if after.status is HoldStatus.ACTIVE:
        earliest = wallet.hold_expires_at or after.expires_at
        wallet.hold_expires_at = min(earliest, after.expires_at)
    else:
        wallet.open_holds -= 1
        if not wallet.open_holds:
            wallet.hold_expires_at = None
    return HoldSet(after, wallet, change_of(wallet, kind, after))
