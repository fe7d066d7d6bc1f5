"""The state on which a group is decided, read under the locks of its wallets."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from transferd.commit.events import events_of
from transferd.commit.origin import new_origin
from transferd.commit.record import record
from transferd.config import Limits
from transferd.domain.book import Book
from transferd.domain.command import Command
from transferd.domain.decide_holds import expired
from transferd.domain.transfer import PostedTransfer, Reversal
from transferd.domain.user import CreateUser
from transferd.domain.wallet import CreateWallet
from transferd.ledger.store import group as store
from transferd.ledger.store.database import Transaction
from transferd.ledger.store.group_rows import GroupResult
from transferd.ledger.store.holds import due_holds, next_expiries


async def book_of(
    transaction: Transaction, locked: store.Locked, commands: Sequence[Command]
) -> Book:
    """What was locked, and what else the commands need; most groups need nothing else."""
    book = Book(locked.at, locked.wallets, holds=locked.holds)
    originals = set()
    users = set()
    for command in commands:
        match command:
            case Reversal(original=PostedTransfer(id=id)):
                originals.add(id)
            case CreateWallet(user_id=user_id):
                users.add(user_id)
            case CreateUser(id=id):
                users.add(id)
    if originals:
        book.reversed_minor = await store.reversed_sums(transaction, list(originals))
    if users:
        book.users = await store.existing_users(transaction, list(users))
    return book


class Expired(NamedTuple):
    """How late each expiry is, in seconds, and the wallets whose due holds are left for later."""

    late_s: list[float]
    postponed: set[str]


async def expire_due_holds(
    transaction: Transaction, book: Book, result: GroupResult, limits: Limits
) -> Expired:
    """Expire the holds of the locked wallets that are due, before any command is decided.

    So one clock and one lock decide between an expiry and a capture. The versions of the expiries
    follow the last version before them, in the order of their times: reads of the past rely on it.
    A wallet is postponed if the group would expire too many holds: no command of it may be decided.
    """
    reached = [
        wallet.id
        for wallet in book.wallets.values()
        if wallet.hold_expires_at is not None and wallet.hold_expires_at <= book.at
    ]
    if not reached:
        return Expired([], set())
    holds_max = limits.group_expiries_max
    due = await due_holds(transaction, reached, book.at, holds_max=holds_max + 1)
    postponed: set[str] = set()
    if len(due) > holds_max:
        # They are in the order of their wallets, and those of the last one may be incomplete.
        last_id = due[-1].source_wallet_id
        postponed = {wallet_id for wallet_id in reached if wallet_id >= last_id}
        due = [hold for hold in due if hold.source_wallet_id < last_id]
    for number, hold in enumerate(due, start=1):
        outcome = expired(hold, book)
        book.apply(outcome)
        record(outcome, result)
        result.events += events_of(new_origin(), outcome)
        if number % limits.items_per_tick == 0:
            await asyncio.sleep(0)
    done = [wallet_id for wallet_id in reached if wallet_id not in postponed]
    later = await next_expiries(transaction, done, book.at)
    for wallet_id in done:
        # The time of the wallet was a lower bound. It may have been reached without a due hold.
        book.wallets[wallet_id].hold_expires_at = later.get(wallet_id)
        result.set_wallets.add(wallet_id)
    return Expired([(book.at - hold.expires_at).total_seconds() for hold in due], postponed)
