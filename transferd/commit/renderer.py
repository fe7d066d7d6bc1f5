"""How the group commit gets the answers that it sends and stores."""

from collections.abc import Sequence
from typing import Protocol

from transferd.commit.answer import Answer
from transferd.commit.envelope import Envelope
from transferd.domain.book import Outcome
from transferd.domain.errors import Refused
from transferd.domain.transfer import PostedTransfer
from transferd.domain.wallet import Wallet


class Renderer(Protocol):
    """Turns results into statuses and bytes; the edge implements it."""

    def outcome(self, envelope: Envelope, outcome: Outcome) -> Answer:
        """The answer to a command that was just decided."""
        ...

    def refusal(self, envelope: Envelope, refused: Refused) -> bytes:
        """The body of a refusal."""
        ...

    def batch(self, results: Sequence[bytes]) -> bytes:
        """The body of a posted batch, from the bodies of its transfers and refusals."""
        ...

    def transfer(self, transfer: PostedTransfer) -> bytes:
        """The body of a posted transfer; always the same bytes for the same transfer."""
        ...

    def wallet(self, wallet: Wallet) -> bytes:
        """The body of a wallet."""
        ...
