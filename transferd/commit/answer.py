"""The answer to a command."""

from typing import NamedTuple

from transferd.ledger.store.outcomes import StoredAnswer


class Answer(NamedTuple):
    """A status and a body, which the edge makes; the layers below pass them on unread.

    `stored` is the form that is kept under the key; None if the key stays free. `replayed` is true
    if the answer was decided for an earlier request.
    """

    status: int
    body: bytes
    stored: StoredAnswer | None = None
    replayed: bool = False

    @property
    def kept(self) -> bool:
        """Whether this answer is stored under the key."""
        return self.replayed or self.stored is not None
