"""The state on which a group is decided, read under the locks of its wallets."""

from collections.abc import Sequence

from transferd.commit.events import events_of
from transferd.commit.origin import new_origin
from transferd.commit.record import record
from transferd.domain.book import Book
from transferd.domain.command import Command, named_holds
from transferd.domain.decide_holds import expired
from transferd.domain.transfer import PostedTransfer, Reversal
from transferd.domain.user import CreateUser
from transferd.domain.wallet import CreateWallet
from transferd.ledger.store import group as store
from transferd.ledger.store.database import Transaction
from transferd.ledger.store.holds import due_holds, read_locked_holds


async def book_of(
    transaction: Transaction, locked: store.Locked, commands: Sequence[Command]
) -> Book:
    """The locked wallets, and what else the commands need; most groups need nothing else."""
    book = Book(locked.at, locked.wallets)
    originals = set()
    users = set()
    holds: set[str] = set()
    for command in commands:
        match command:
            case Reversal(original=PostedTransfer(id=id)):
                originals.add(id)
            case CreateWallet(user_id=user_id):
                users.add(user_id)
            case CreateUser(id=id):
                users.add(id)
            case _:
                holds.update(named_holds(command))
    if originals:
        book.reversed_minor = await store.reversed_sums(transaction, list(originals))
    if users:
        book.users = await store.existing_users(transaction, list(users))
    if holds:
        book.holds = await read_locked_holds(transaction, list(holds))
    return book


async def expire_due_holds(
    transaction: Transaction, book: Book, result: store.GroupResult
) -> list[float]:
    """Expire the holds of the locked wallets that are due, before any command is decided.

    So one clock and one lock decide between an expiry and a capture. The versions of the expiries
    follow the last version before them, in the order of their times: reads of the past rely on it.
    Returns how late each of them is, in seconds.
    """
    reached = [
        wallet.id
        for wallet in book.wallets.values()
        if wallet.hold_expires_at is not None and wallet.hold_expires_at <= book.at
    ]
    if not reached:
        return []
    due, later = await due_holds(transaction, reached, book.at)
    for hold in due:
        outcome = expired(hold, book)
        book.apply(outcome)
        record(outcome, result)
        result.events += events_of(new_origin(), outcome)
    for wallet_id in reached:
        # The time of the wallet was a lower bound. It may have been reached without a due hold.
        book.wallets[wallet_id].hold_expires_at = later.get(wallet_id)
        result.set_wallets.add(wallet_id)
    return [(book.at - hold.expires_at).total_seconds() for hold in due]
