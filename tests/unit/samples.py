"""Default wallets, commands and envelopes; a test states only the values that matter to it."""

import asyncio
from collections import deque
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from transferd.commit.answer import Answer
from transferd.commit.committer import Committer
from transferd.commit.envelope import Envelope
from transferd.commit.origin import Origin
from transferd.commit.turn import TurnSource
from transferd.domain.book import Book
from transferd.domain.hold import Hold, HoldStatus
from transferd.domain.key import Fingerprint, Key
from transferd.domain.transfer import PostedTransfer, Transfer, TransferKind
from transferd.domain.wallet import ChangeKind, SetStatus, Wallet, WalletStatus
from transferd.ledger.store.outcomes import RENDER_SINGLE, StoredAnswer

EARLIER = datetime(2030, 1, 1, tzinfo=UTC)
NOW = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
ORIGIN = Origin("request-1", "00-" + "a" * 32 + "-" + "b" * 16 + "-01", "/transfers")
OK = Answer(201, b'{"id":"1"}', StoredAnswer(RENDER_SINGLE, "1", None))

_WALLET = Wallet(
    id="ada",
    user_id="ada's owner",
    currency="USD",
    balance_minor=0,
    held_minor=0,
    overdraft_limit_minor=0,
    status=WalletStatus.ACTIVE,
    funding=False,
    version=3,
    metadata="{}",
    created_at=EARLIER,
    updated_at=EARLIER,
)
_POSTED = PostedTransfer(
    id="lunch",
    kind=TransferKind.TRANSFER,
    source_wallet_id="ada",
    destination_wallet_id="bob",
    amount_minor=100,
    currency="USD",
    reference="lunch",
    metadata="{}",
    source_version=4,
    source_balance_after_minor=900,
    destination_version=4,
    destination_balance_after_minor=100,
    reverses_transfer_id=None,
    created_at=EARLIER,
)


_HOLD = Hold(
    id="h",
    source_wallet_id="ada",
    destination_wallet_id="bob",
    currency="USD",
    amount_minor=100,
    captured_minor=0,
    released_minor=0,
    status=HoldStatus.ACTIVE,
    expires_at=NOW + timedelta(days=1),
    final_transfer_id=None,
    reference="room 12",
    metadata="{}",
    created_at=EARLIER,
    updated_at=EARLIER,
)


def wallet(id: str, balance_minor: int = 0, **changes: Any) -> Wallet:
    """An active wallet in USD at version 3."""
    return replace(_WALLET, id=id, balance_minor=balance_minor, **changes)


def funding_wallet(balance_minor: int = 0, **changes: Any) -> Wallet:
    """The funding wallet `fund`, in USD."""
    return wallet("fund", balance_minor, user_id=None, funding=True, **changes)


def book(*wallets: Wallet, **more: Any) -> Book:
    """A book of these wallets, read at NOW."""
    return Book(NOW, {each.id: each for each in wallets}, **more)


def hold(amount_minor: int = 100, **changes: Any) -> Hold:
    """An active hold `h` on ada's wallet for bob, which expires a day after NOW."""
    return _HOLD._replace(amount_minor=amount_minor, **changes)


def transfer(amount_minor: int = 100, **changes: Any) -> Transfer:
    """The command that moves this amount from ada to bob."""
    return Transfer("t", "ada", "bob", amount_minor, "USD", None, "{}")._replace(**changes)


def posted(amount_minor: int = 100, **changes: Any) -> PostedTransfer:
    """A stored transfer `lunch` from ada to bob."""
    return _POSTED._replace(amount_minor=amount_minor, **changes)


def envelope(
    wallet_id: str = "ada",
    *,
    key: Key | None = None,
    fingerprint: bytes = b"same",
    enqueued_at: float = 0.0,
    wait_s: float = 10.0,
    urgent: bool = False,
) -> Envelope:
    """A transfer from the wallet, or a freeze if it is urgent, with a deadline after 10 seconds."""
    freeze = SetStatus(wallet_id, ChangeKind.FREEZE)
    return Envelope(
        freeze if urgent else transfer(source_wallet_id=wallet_id),
        key=key,
        fingerprint=Fingerprint(fingerprint),
        origin=ORIGIN,
        enqueued_at=enqueued_at,
        deadline=enqueued_at + wait_s,
    )


async def settled() -> None:
    """Let every task run until it waits for something else."""
    for _ in range(10):
        await asyncio.sleep(0)


class Clock:
    """A clock that only the test advances."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class HandCommitter(Committer):
    """Records announced turns; the test decides their outcome, not PostgreSQL."""

    def __init__(self) -> None:
        self.announced: deque[TurnSource] = deque()

    def __repr__(self) -> str:
        return f"<HandCommitter {len(self.announced)} ready>"

    def announce(self, source: TurnSource, *, urgent: bool = False) -> None:
        """Note it, at the front if it is urgent."""
        if urgent:
            self.announced.appendleft(source)
        else:
            self.announced.append(source)

    def commit(self, answer: Answer = OK) -> list[Envelope]:
        """Execute all ready turns as one group; its envelopes, all with this answer."""
        turns = [(source, source.take_turn(1_000)) for source in self.announced]
        self.announced.clear()
        envelopes = [envelope for _, turn in turns for envelope in turn]
        for each in envelopes:
            each.settle(answer)
        for source, _ in turns:
            if source.end_turn():
                self.announce(source)
        return envelopes
