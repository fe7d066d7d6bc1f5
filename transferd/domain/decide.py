"""`decide`: the outcome of a command on the state that was read under row locks.

Pure: no I/O, no clock, no await. The order of the checks is part of the HTTP contract.
"""

from dataclasses import replace

from transferd.domain.book import (
    BatchPosted,
    Book,
    Captured,
    Outcome,
    Posted,
    UserCreated,
    WalletCreated,
    WalletSet,
)
from transferd.domain.command import Command, named_holds, touched_wallets
from transferd.domain.decide_holds import decide_about_hold, decide_capture
from transferd.domain.errors import Reason, Refused
from transferd.domain.hold import AdjustHold, Capture, CreateHold, ExpireHolds, ReleaseHold
from transferd.domain.posting import change_of, post
from transferd.domain.refusals import (
    insufficient_funds,
    same_wallet,
    version_changed,
    wallet_not_found,
    wrong_status,
)
from transferd.domain.transfer import Batch, BatchMode, Reversal, Transfer, TransferKind
from transferd.domain.user import CreateUser, User
from transferd.domain.wallet import (
    ChangeKind,
    CreateWallet,
    SetStatus,
    UpdateWallet,
    Wallet,
    WalletStatus,
)


def decide(command: Command, book: Book) -> Outcome:
    """The outcome of `command` on `book`. Does not change `book`."""
    match command:
        case Transfer():
            return decide_transfer(command, book)
        case Batch():
            return decide_batch(command, book)
        case Reversal():
            return decide_reversal(command, book)
        case CreateHold() | Capture() | AdjustHold() | ReleaseHold() | ExpireHolds():
            return decide_about_hold(command, book)
        case CreateWallet():
            return decide_wallet(command, book)
        case SetStatus():
            return decide_status(command, book)
        case UpdateWallet():
            return decide_update(command, book)
        case CreateUser():
            created_at = book.users.get(command.id, book.at)
            return UserCreated(User(command.id, command.name, command.metadata, created_at))


def decide_transfer(command: Transfer, book: Book) -> Posted | Refused:
    """Checks, in this order: two different wallets, then the checks of `post`."""
    if command.source_wallet_id == command.destination_wallet_id:
        return same_wallet()
    return post(
        book,
        id=command.id,
        kind=TransferKind.TRANSFER,
        source_id=command.source_wallet_id,
        destination_id=command.destination_wallet_id,
        amount_minor=command.amount_minor,
        currency=command.currency,
        reference=command.reference,
        metadata=command.metadata,
    )


class BatchDecision:
    """The decision of a batch. It can be made in steps: a large batch takes tens of milliseconds.

    Each transfer is decided like a single one, on the balances after the previous ones.
    """

    def __init__(self, command: Batch, book: Book) -> None:
        self._command = command
        ids = touched_wallets(command)
        # A copy: the book changes only after the whole batch is decided.
        self._draft = Book(
            book.at,
            {id: book.wallets[id].copy() for id in ids if id in book.wallets},
            holds={id: book.holds[id] for id in named_holds(command) if id in book.holds},
        )
        self._results: list[Posted | Captured | Refused] = []

    def step(self, transfers_max: int) -> BatchPosted | Refused | None:
        """Decide up to so many further transfers. Returns None while some are left."""
        transfers = self._command.transfers
        done = len(self._results)
        for index in range(done, min(done + transfers_max, len(transfers))):
            item = transfers[index]
            result: Posted | Captured | Refused
            if isinstance(item, Transfer):
                result = decide_transfer(item, self._draft)
            else:
                result = decide_capture(item, self._draft)
            if not isinstance(result, Refused):
                self._draft.apply(result)
            elif self._command.mode is BatchMode.ATOMIC:
                return Refused(
                    Reason.BATCH_REFUSED,
                    f"Nothing was posted: transfer {index} was refused. {result.detail}",
                    {
                        "index": index,
                        "refusal": {"code": result.reason, "detail": result.detail, **result.facts},
                    },
                )
            self._results.append(result)
        if len(self._results) < len(transfers):
            return None
        return BatchPosted(tuple(self._results))


def decide_batch(command: Batch, book: Book) -> BatchPosted | Refused:
    """The decision of a whole batch in one step."""
    outcome = BatchDecision(command, book).step(len(command.transfers))
    assert outcome is not None
    return outcome


def decide_reversal(command: Reversal, book: Book) -> Posted | Refused:
    """Checks, in this order: the original exists, is not a reversal, has this amount left to
    reverse; then the checks of `post`."""
    original = command.original
    if original is None:
        return Refused(Reason.TRANSFER_NOT_FOUND, f"There is no transfer {command.original_id}.")
    if original.kind is TransferKind.REVERSAL:
        return Refused(Reason.NOT_REVERSIBLE, "A reversal cannot be reversed.")
    left_minor = original.amount_minor - book.reversed_minor.get(original.id, 0)
    amount_minor = left_minor if command.amount_minor is None else command.amount_minor
    if left_minor == 0 or amount_minor > left_minor:
        return Refused(
            Reason.REVERSAL_EXCEEDS_TRANSFER,
            f"{left_minor} of {original.amount_minor} {original.currency} is left to reverse.",
            {"left": left_minor, "currency": original.currency},
        )
    return post(
        book,
        id=command.id,
        kind=TransferKind.REVERSAL,
        source_id=original.destination_wallet_id,
        destination_id=original.source_wallet_id,
        amount_minor=amount_minor,
        currency=original.currency,
        reference=original.reference if command.reference is None else command.reference,
        metadata=command.metadata,
        reverses_transfer_id=original.id,
    )


def decide_wallet(command: CreateWallet, book: Book) -> WalletCreated | WalletSet | Refused:
    """Checks that the user exists; then posts the initial balance from the funding wallet."""
    if (created := book.wallets.get(command.id)) is not None:
        # An earlier attempt lost its connection during COMMIT, and PostgreSQL has committed it.
        return WalletSet(replace(created), None)
    if command.user_id not in book.users:
        return Refused(Reason.USER_NOT_FOUND, f"There is no user {command.user_id}.")
    wallet = Wallet(
        id=command.id,
        user_id=command.user_id,
        currency=command.currency,
        balance_minor=0,
        held_minor=0,
        overdraft_limit_minor=command.overdraft_limit_minor,
        status=WalletStatus.ACTIVE,
        funding=False,
        version=0,
        metadata=command.metadata,
        created_at=book.at,
        updated_at=book.at,
    )
    change = change_of(wallet, ChangeKind.CREATED)
    if command.initial_minor == 0:
        return WalletCreated(wallet, change, None)
    initial = post(
        replace(book, wallets={**book.wallets, wallet.id: wallet}),
        id=command.transfer_id,
        kind=TransferKind.TRANSFER,
        source_id=command.funding_wallet_id,
        destination_id=command.id,
        amount_minor=command.initial_minor,
        currency=command.currency,
        reference="initial balance",
        metadata="{}",
    )
    if isinstance(initial, Refused):
        return initial
    return WalletCreated(wallet, change, initial.transfer)


_STATUS_AFTER = {
    ChangeKind.FREEZE: WalletStatus.FROZEN,
    ChangeKind.UNFREEZE: WalletStatus.ACTIVE,
    ChangeKind.CLOSE: WalletStatus.CLOSED,
}


def decide_status(command: SetStatus, book: Book) -> WalletSet | Refused:
    """Checks, in this order: wallet exists, version, current status, empty. The caller has checked
    that it is not a funding wallet."""
    wallet = book.wallets.get(command.wallet_id)
    if wallet is None:
        return wallet_not_found(command.wallet_id)
    if command.versions is not None and wallet.version not in command.versions:
        return version_changed(wallet)
    status = _STATUS_AFTER[command.kind]
    if wallet.status is status:
        return WalletSet(replace(wallet), None)
    if wallet.status is WalletStatus.CLOSED:
        return wrong_status(wallet)
    if status is WalletStatus.CLOSED and (wallet.balance_minor or wallet.open_holds):
        return Refused(
            Reason.WALLET_NOT_EMPTY,
            "A wallet can be closed only at zero and without open holds.",
            {
                "balance": wallet.balance_minor,
                "held": wallet.held_minor,
                "open_holds": wallet.open_holds,
                "currency": wallet.currency,
            },
        )
    return _set(book, wallet, command.kind, replace(wallet, status=status))


def decide_update(command: UpdateWallet, book: Book) -> WalletSet | Refused:
    """Checks, in this order: wallet exists, version, not closed, not below its new limit."""
    wallet = book.wallets.get(command.wallet_id)
    if wallet is None:
        return wallet_not_found(command.wallet_id)
    if command.versions is not None and wallet.version not in command.versions:
        return version_changed(wallet)
    if wallet.status is WalletStatus.CLOSED:
        return wrong_status(wallet)
    after = replace(wallet)
    if command.overdraft_limit_minor is not None:
        after.overdraft_limit_minor = command.overdraft_limit_minor
    if command.metadata is not None:
        after.metadata = command.metadata
    available_minor = after.available_minor
    lowered = after.overdraft_limit_minor < wallet.overdraft_limit_minor
    if lowered and available_minor is not None and available_minor < 0:
        return insufficient_funds(wallet.available_minor or 0, -available_minor, wallet.currency)
    if after == wallet:
        return WalletSet(after, None)
    return _set(book, wallet, ChangeKind.UPDATE, after)


def _set(book: Book, before: Wallet, kind: ChangeKind, after: Wallet) -> WalletSet:
    after.version = before.version + 1
    after.updated_at = book.at
    return WalletSet(after, change_of(after, kind))
