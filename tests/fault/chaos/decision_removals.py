"""Removes checks of the decisions; see `removals`."""

from collections.abc import Sequence
from typing import Any

from tests.fault.chaos.replacing import replace, reword
from transferd.commit import transaction as group_transaction
from transferd.commit.state import Expired
from transferd.domain.book import Book
from transferd.domain.command import HoldCommand
from transferd.domain.wallet import SetStatus, Wallet, WalletStatus
from transferd.ledger.store import group


def no_limit_in_decide() -> None:
    replace(Wallet, "available_minor", lambda _: property(lambda self: None))


def no_sums_of_reversals() -> None:
    def make(_: Any) -> Any:
        async def none(*_: Any) -> dict[str, int]:
            return {}

        return none

    replace(group, "reversed_sums", make)


def no_expiry_first() -> None:
    def make(_: Any) -> Any:
        async def none(*_: Any) -> Expired:
            return Expired([], set())

        return none

    replace(group_transaction, "expire_due_holds", make)


def holds_as_before_the_lock() -> None:
    def make(true: Any) -> Any:
        async def book_of(transaction: Any, locked: Any, commands: Sequence[Any]) -> Book:
            book: Book = await true(transaction, locked, commands)
            holds = (each.hold for each in commands if isinstance(each, HoldCommand))
            book.holds |= {hold.id: hold for hold in holds if hold is not None}
            return book

        return book_of

    replace(group_transaction, "book_of", make)
    reword("write_group_and_changes", "AND h.status + 0 = 0", "")


def frozen_wallets_as_active() -> None:
    def make(true: Any) -> Any:
        async def book_of(transaction: Any, locked: Any, commands: Sequence[Any]) -> Book:
            book: Book = await true(transaction, locked, commands)
            # An unfreeze must still find the wallet frozen.
            named = {each.wallet_id for each in commands if isinstance(each, SetStatus)}
            for wallet in book.wallets.values():
                if wallet.status is WalletStatus.FROZEN and wallet.id not in named:
                    wallet.status = WalletStatus.ACTIVE
            return book

        return book_of

    replace(group_transaction, "book_of", make)
