"""The interface through which the group commit gets the bytes that it answers and stores."""

from collections.abc import Sequence
from typing import Protocol

from transferd.commit.answer import Answer
from transferd.commit.envelope import Envelope
from transferd.domain.book import Outcome
from transferd.domain.wallet import Wallet
from transferd.ledger.store.database import LedgerDatabase, Transaction
from transferd.ledger.store.outcomes import StoredAnswer


class Renderer(Protocol):
    """Turns outcomes and wallets into bytes; the edge implements it."""

    def answer(self, envelope: Envelope, outcome: Outcome) -> Answer:
        """The answer to a command that was decided now, with its stored form."""
        ...

    async def replay(
        self, stored: Sequence[StoredAnswer], source: LedgerDatabase | Transaction
    ) -> list[bytes]:
        """The bodies of stored answers. The same stored answer always gives the same bytes."""
        ...

    def wallet(self, wallet: Wallet) -> bytes:
        """The body of a wallet."""
        ...
